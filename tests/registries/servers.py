"""Real registries, as processes of this machine: MLflow, and Kubeflow's Model Registry with its database."""

import getpass
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2

from pipelines.environments import ROOT, UV
from tests.servers import free_port

MLFLOW = ROOT / ".tools" / "mlflow"
_LOCK = ROOT / "tools" / "mlflow" / "requirements.txt"
_SECONDS_TO_START = 180


class MissingServerError(Exception):
    """The program is not here; the message says how to get it."""


def mlflow_program() -> Path:
    """Finds the locked MLflow in `.tools/mlflow`, or installs it there."""
    program, stamp = MLFLOW / "bin" / "mlflow", MLFLOW / ".installed"
    if stamp.is_file() and stamp.read_text() == _LOCK.read_text():
        return program
    for command in (
        [UV, "venv", "--quiet", "--clear", MLFLOW],
        [UV, "pip", "sync", "--quiet", "--require-hashes", "--python", MLFLOW / "bin" / "python", _LOCK],
    ):
        done = subprocess.run([*map(str, command)], capture_output=True, text=True)
        if done.returncode:
            raise MissingServerError(f"MLflow cannot be installed: {done.stderr.strip()[-300:]}")
    stamp.write_text(_LOCK.read_text())
    return program


def kubeflow_programs() -> tuple[str, str, str]:
    """Finds the Model Registry and MariaDB."""
    path = os.pathsep.join([str(ROOT / ".tools" / "bin"), os.environ.get("PATH", os.defpath), "/usr/sbin"])
    found = [shutil.which(name, path=path) for name in ("model-registry", "mariadbd", "mariadb-install-db")]
    if not found[0]:
        raise MissingServerError(
            "no model-registry: `go build -o .tools/bin/model-registry .` in a checkout of kubeflow/model-registry"
        )
    if not found[1] or not found[2]:
        raise MissingServerError("no mariadbd for the Model Registry: Debian's package mariadb-server has it")
    return found[0], found[1], found[2]


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Runs an MLflow server; gives its URL."""
    port = free_port()
    command = [mlflow_program(), "server", "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'db.sqlite'}", "--artifacts-destination", folder / "files"]
    with _running(command, folder / "mlflow.log"):
        url = f"http://127.0.0.1:{port}"
        _wait(lambda: _answers(f"{url}/health"), folder / "mlflow.log")
        yield url


@contextmanager
def kubeflow_server(folder: Path) -> Iterator[str]:
    """Runs Kubeflow's Model Registry with a MariaDB; gives its URL."""
    registry, database, install = kubeflow_programs()
    data, socket, log = folder / "data", folder / "socket", folder / "mariadb.log"
    # As root it runs only if told so.
    common = ["--no-defaults", f"--user={getpass.getuser()}", f"--datadir={data}"]
    with log.open("wb") as out:
        subprocess.run(
            [install, *common, "--auth-root-authentication-method=normal"], check=True, stdout=out, stderr=out
        )
    port = free_port()
    # The anonymous user of this machine would go before one of any host.
    user = "registry@localhost"
    statements = (
        "CREATE DATABASE registry",
        f"CREATE USER {user} IDENTIFIED BY 'registry'",
        f"GRANT ALL ON registry.* TO {user}",
    )
    # It takes one statement a line.
    (folder / "init.sql").write_text("".join(f"{statement};\n" for statement in statements))
    arguments = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={socket}"]
    arguments += [f"--init-file={folder / 'init.sql'}", f"--pid-file={folder / 'pid'}"]
    with _running([database, *common, *arguments], log):
        _wait(socket.exists, log)
        http = free_port()
        dsn = f"registry:registry@tcp(127.0.0.1:{port})/registry?charset=utf8mb4&parseTime=True"
        command = [registry, "proxy", "--hostname", "127.0.0.1", "--port", http, "--datastore-type", "embedmd"]
        command += ["--embedmd-database-type", "mysql", "--embedmd-database-dsn", dsn]
        with _running(command, folder / "registry.log"):
            url = f"http://127.0.0.1:{http}"
            path = "/api/model_registry/v1alpha3/registered_models"
            _wait(lambda: _answers(f"{url}{path}"), folder / "registry.log")
            yield url


@contextmanager
def _running(command: list[object], log: Path) -> Iterator[None]:
    with log.open("ab") as out:
        process = subprocess.Popen([*map(str, command)], stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait(ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while not ready():
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
        time.sleep(0.2)


def _answers(url: str) -> bool:
    with suppress(httpx2.TransportError):
        return httpx2.get(url, trust_env=False).status_code == 200
    return False
