"""Real storage servers for tests: fake-gcs-server and moto, as processes on free ports of this machine."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
GCS_SERVER = "github.com/fsouza/fake-gcs-server@v1.56.1"
GO_TOOLS = ROOT / ".tools" / "bin"
MOTO_SERVER = ROOT / ".venvs" / "dev" / "bin" / "moto_server"
SECONDS_TO_START = 30


class MissingServerError(Exception):
    """The server's program is not here and cannot be built; the message says why."""


def gcs_program() -> Path:
    """Finds fake-gcs-server, or builds it with Go into `.tools/bin`."""
    found = shutil.which("fake-gcs-server", path=f"{GO_TOOLS}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if found:
        return Path(found)
    go = shutil.which("go", path=f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/local/go/bin")
    if go is None:
        raise MissingServerError(
            f"fake-gcs-server is neither on PATH nor in {GO_TOOLS}, and there is no go to build it"
        )
    built = subprocess.run(
        [go, "install", GCS_SERVER], env={**os.environ, "GOBIN": str(GO_TOOLS)}, capture_output=True, text=True
    )
    if built.returncode:
        raise MissingServerError(f"go install {GCS_SERVER} failed: {built.stderr.strip()[-300:]}")
    return GO_TOOLS / "fake-gcs-server"


def s3_program() -> Path:
    """Finds moto_server in the authoring environment."""
    if not MOTO_SERVER.is_file():
        raise MissingServerError(f"{MOTO_SERVER} is missing; set up the authoring environment with its dev group")
    return MOTO_SERVER


@contextlib.contextmanager
def gcs_server() -> Iterator[str]:
    """Runs a Cloud Storage emulator in memory; gives its URL."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    command = [gcs_program(), "-scheme", "http", "-host", "127.0.0.1", "-port", port, "-public-host", address]
    command += ["-external-url", f"http://{address}", "-backend", "memory", "-log-level", "error"]
    with _running(command, f"http://{address}/storage/v1/b?project=tests"):
        yield f"http://{address}"


@contextlib.contextmanager
def s3_server(host: str = "127.0.0.1") -> Iterator[str]:
    """Runs an S3 server in memory, on an address of this machine; gives its URL."""
    port = free_port()
    url = f"http://{host}:{port}"
    with _running([s3_program(), "-H", host, "-p", port], url):
        yield url


def make_gcs_bucket(server: str, name: str) -> None:
    """Makes a bucket on a Cloud Storage server."""
    body = f'{{"name": "{name}"}}'.encode()
    headers = {"Content-Type": "application/json"}
    _open(urllib.request.Request(f"{server}/storage/v1/b?project=tests", body, headers, method="POST"))


def make_s3_bucket(server: str, name: str) -> None:
    """Makes a bucket on an S3 server."""
    _open(urllib.request.Request(f"{server}/{name}", method="PUT"))


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Sets environment variables for this process and its children, and puts back what was there."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _running(command: Sequence[object], url: str) -> Iterator[None]:
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + SECONDS_TO_START
        while not _answers(url):
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended with code {process.returncode} before it answered")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not answer at {url} within {SECONDS_TO_START} s")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(timeout=10)


def _answers(url: str) -> bool:
    try:
        _open(url)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _open(request: urllib.request.Request | str) -> None:
    # No proxy: it is a server on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as response:
        response.read()


def free_port() -> int:
    """Finds a port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
