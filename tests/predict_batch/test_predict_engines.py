"""Batch prediction on engines of their own: Beam's Flink and Spark job servers, and Prism. Needs: Java; the programs.

Workers run here (LOOPBACK), the engine elsewhere: what goes over the wire is what would go to a cluster.
LOCKGATE_FLINK_JOB_SERVER and LOCKGATE_SPARK_JOB_SERVER name the archives beam-runners-flink-*-job-server and
beam-runners-spark-3-job-server; LOCKGATE_PRISM names Prism, else it is looked up on PATH and in .tools/bin.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.predict_batch import engine, parts
from tests.predict_batch.test_predict_side_by_side import many_rows, predicted
from tests.servers import GO_TOOLS, free_port
from tests.train_model.projects import read_split, trained

SECONDS_TO_START = 120


def command_of(name: str, port: int, folder: Path) -> list[str]:
    """Gives the command that starts an engine; skips where it is not there, and says why."""
    if name == "prism":
        path = f"{GO_TOOLS}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        found = os.environ.get("LOCKGATE_PRISM") or shutil.which("prism", path=path)
        if not found:
            pytest.skip("no Prism: go install github.com/apache/beam/sdks/v2/go/cmd/prism@v2.73.0")
        return [found, f"--job_port={port}", f"--web_port={free_port()}", "--serve_http=false"]
    variable = f"LOCKGATE_{name.upper()}_JOB_SERVER"
    jar = os.environ.get(variable, "")
    if not Path(jar).is_file():
        pytest.skip(f"no {name} job server: {variable} names no archive (Maven, org.apache.beam)")
    if not shutil.which("java"):
        pytest.skip("no java")
    ports = [f"--job-port={port}", f"--artifact-port={free_port()}", f"--expansion-port={free_port()}"]
    return ["java", "-Xmx1g", "-jar", jar, *ports, f"--artifacts-dir={folder}"]


@contextlib.contextmanager
def running(name: str, folder: Path) -> Iterator[list[str]]:
    """Runs an engine; gives the beam_args that lead to it."""
    port = int(free_port())
    log = folder / "engine.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command_of(name, port, folder), stdout=output, stderr=output)
    try:
        begun = time.monotonic()
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() - begun > SECONDS_TO_START:
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


@pytest.mark.parametrize("name", ["flink", "spark", "prism"])
def test_an_engine_gives_the_same_rows_the_same_predictions(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_BATCH_ROWS", 16)
    monkeypatch.setattr(engine, "_PART_ROWS", 48)
    with running(name, tmp_path) as beam_args:
        examples = many_rows(tmp_path / "examples", "binary", 400)
        options: dict[str, Any] = {"reasons": 2, "top_rows": 9, "challengers": {"next": str(trained("binary"))}}
        here = predicted(examples, tmp_path / "here", **options)
        there = predicted(examples, tmp_path / "there", **options, beam_args=beam_args)
    assert here == there
    for split in ("eval", "rejected"):
        assert read_split(tmp_path / "there", split).equals(read_split(tmp_path / "here", split))
    tops = [pq.ParquetFile(tmp_path / f"{place}/top/part-00000.parquet").read() for place in ("here", "there")]
    assert tops[0].select(["data", "reasons"]).equals(tops[1].select(["data", "reasons"]))
