"""The model server, in a process of its own, as a pod runs it."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import urllib3

NAME = "candidate"
"""Of the model in URLs."""

_HOST = "127.0.0.1"
_POLL_SECONDS = 0.02
_GRACE_SECONDS = 30
_LOG_LINES = 30
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ServerError(Exception):
    """It does not start, or not end; the text is the cause, in one line."""


class AnswerError(Exception):
    """An answer that is no prediction, or none; the text is status and cause."""


@dataclass
class Server:
    """A server that was started."""

    http_port: int
    grpc_port: int
    process: "subprocess.Popen[bytes]"
    log_file: Path
    started: float = field(default_factory=time.monotonic)
    start_seconds: float = 0.0
    """From its start until it was ready."""

    @property
    def grpc_address(self) -> str:
        """Host and port."""
        return f"{_HOST}:{self.grpc_port}"

    def wait_until_ready(self, seconds: float) -> None:
        """Waits, at most `seconds` from its start.

        Raises:
            ServerError: it ends instead, or takes longer.
        """
        with self.connect(seconds=1.0) as http:
            while True:
                with contextlib.suppress(urllib3.exceptions.HTTPError):
                    if http.request("GET", "/v2/health/ready").status == 200:
                        self.start_seconds = time.monotonic() - self.started
                        return
                if (code := self.process.poll()) is not None:
                    raise ServerError(f"it ended with {code} before it was ready{self._last_words()}")
                if time.monotonic() > self.started + seconds:
                    raise ServerError(
                        f"it is not ready after {seconds:g} s (serving.start_seconds){self._last_words()}"
                    )
                time.sleep(_POLL_SECONDS)

    def connect(self, seconds: float = 30.0) -> urllib3.HTTPConnectionPool:
        """Gives a connection that is kept open, to this machine and so by no proxy."""
        return urllib3.HTTPConnectionPool(_HOST, self.http_port, timeout=seconds, retries=False, maxsize=1)

    def memory_mib(self) -> float:
        """Resident set, in MiB."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 2**20

    def stop(self) -> None:
        """Asks it to end, as a cluster does.

        Raises:
            ServerError: it does not, or not well.
        """
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            raise ServerError(f"it still runs {_GRACE_SECONDS} s after SIGTERM") from None
        if code != 0:
            raise ServerError(f"it ended with {code} after SIGTERM{self._last_words()}")

    def log(self) -> list[str]:
        """The last lines that it printed."""
        text = self.log_file.read_text(encoding="utf-8", errors="replace")
        return [line.rstrip() for line in text.splitlines() if line.strip()][-_LOG_LINES:]

    def _last_words(self) -> str:
        return f": {lines[-1][:300]}" if (lines := self.log()) else ""


@contextlib.contextmanager
def starting(model: Path, log_file: Path) -> Iterator[Server]:
    """Starts a server, and makes sure that it is gone afterwards.

    Args:
        model: directory that train_model exported.
        log_file: to which it prints.
    """
    http_port, grpc_port = _free_ports(2)
    command = [sys.executable, "-m", "components.predictor", f"--model-dir={model}", f"--model-name={NAME}"]
    options = [f"--http-port={http_port}", f"--grpc-port={grpc_port}", "--drain-seconds=0"]
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command + options,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=tempfile.gettempdir(),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            # A task that is killed must not leave a server behind.
            preexec_fn=_die_with_parent,
        )
    try:
        yield Server(http_port, grpc_port, process, log_file)
    finally:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind((_HOST, 0))
        return [int(listener.getsockname()[1]) for listener in listeners]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
