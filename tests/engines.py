"""Engines for Beam: Flink and Spark behind Beam's job servers, and Prism.

Workers run in the test's process (LOOPBACK), the engine in one of its own: what goes over the wire is what would go to
a cluster. Needs: Java 17 and the archives of tools/flink and tools/spark, which are fetched; Prism by LOCKGATE_PRISM,
on PATH or in .tools/bin.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import LockgateError
from pipelines.java_archives import archives, java
from tests.servers import GO_TOOLS, free_port

ENGINES = ["flink", "spark", "prism"]
_SECONDS_TO_START = 120
_DRIVERS = {
    "flink": "org.apache.beam.runners.flink.FlinkJobServerDriver",
    "spark": "org.apache.beam.runners.spark.SparkJobServerDriver",
}
_OPENED = (
    *("java.io", "java.lang", "java.lang.invoke", "java.net", "java.nio", "java.util", "java.util.concurrent"),
    *("java.util.concurrent.atomic", "sun.nio.ch", "sun.nio.cs", "sun.security.action", "sun.util.calendar"),
)
"""Packages of Java that Flink and Spark look into, which it keeps closed since version 16."""


def _command_of(name: str, port: int, folder: Path) -> list[str]:
    """Gives the command that starts an engine; skips where it is not there, and says why."""
    if name == "prism":
        path = f"{GO_TOOLS}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        found = os.environ.get("LOCKGATE_PRISM") or shutil.which("prism", path=path)
        if not found:
            pytest.skip("no Prism: go install github.com/apache/beam/sdks/v2/go/cmd/prism@v2.73.0")
        return [found, f"--job_port={port}", f"--web_port={free_port()}", "--serve_http=false"]
    try:
        program, files = java(f"{name}'s job server", 17), archives(name)
    except LockgateError as error:
        pytest.skip(f"no {name}: {error}")
    opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED]
    ports = [f"--job-port={port}", f"--artifact-port={free_port()}", f"--expansion-port={free_port()}"]
    classes = ["-cp", os.pathsep.join(map(str, files)), _DRIVERS[name]]
    return [program, "-Xmx1g", *opened, *classes, *ports, f"--artifacts-dir={folder}"]


@contextlib.contextmanager
def running(name: str, folder: Path) -> Iterator[list[str]]:
    """Runs an engine; gives the beam_args that lead to it."""
    port = int(free_port())
    log = folder / "engine.log"
    with log.open("wb") as output:
        process = subprocess.Popen(_command_of(name, port, folder), stdout=output, stderr=output)
    try:
        begun = time.monotonic()
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() - begun > _SECONDS_TO_START:
                pytest.fail(f"{name} did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.2)
        yield [
            "--runner=PortableRunner",
            f"--job_endpoint=127.0.0.1:{port}",
            "--environment_type=LOOPBACK",
            "--parallelism=2",
        ]
    finally:
        process.terminate()
        process.wait(30)
