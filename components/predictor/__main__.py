"""Serves one exported model: `python -m components.predictor --model-dir <folder>`."""

import argparse
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import tempfile
import time
import warnings
from types import FrameType
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from components.errors import InputError, LockgateError
from components.predictor.served_model import ServedModel, read_facts
from components.predictor.settings import ENVIRONMENT_PREFIX, Settings

_M_ARENA_MAX = -8  # malloc.h


def main(arguments: list[str]) -> int:
    """Serves until SIGTERM; gives the exit code."""
    started = time.monotonic()
    # A process with id 1, as in a container, has no default for this signal.
    signal.signal(signal.SIGTERM, _exit)
    _save_memory()
    # The event loop and the thread that predicts hand the interpreter to each other; 5 ms of waiting would be the tail.
    sys.setswitchinterval(0.0005)
    try:
        settings = _settings(arguments)
        _set_up_logging(settings.log_level)
        _serve(settings, started)
    except LockgateError as error:
        print(f"predictor: {error.label}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _serve(settings: Settings, started: float) -> None:
    facts = read_facts(settings.model_dir, settings.model_name)
    for name, port in (("http_port", settings.http_port), ("grpc_port", settings.grpc_port)):
        _require_free(name, port)
    _allow_read_only_root()
    model = ServedModel(facts, settings.threads)
    # KServe reads the command line when it is imported, and knows none of our options.
    sys.argv[1:] = []
    from components.predictor import metrics
    from components.predictor.predictor import Predictor
    from components.predictor.request_log import LogOptions, RequestLog
    from components.predictor.server import Server

    def count(what: str, number: int) -> None:
        metrics.LOG_FAILURES.inc(number) if what == "failure" else metrics.LOGGED.labels(what).inc(number)

    log = None
    if settings.log_uri:
        options = LogOptions(
            uri=settings.log_uri,
            sample=settings.log_sample,
            buffer_rows=settings.log_buffer_rows,
            file_rows=settings.log_file_rows,
            seconds=settings.log_seconds,
            redact=settings.redact,
        )
        log = RequestLog(options, facts, count)
    predictor = Predictor(model, settings, log)
    server = Server(predictor, settings)
    logging.getLogger("lockgate").info(
        "%s %s: loaded and warm after %.1f s; REST on port %d, gRPC on %s",
        *(facts.name, facts.version, time.monotonic() - started),
        *(settings.http_port, settings.grpc_port or "no port"),
    )
    try:
        server.run()
    finally:
        predictor.close()
        if log:
            log.close(settings.grace_seconds / 2)


def _require_free(name: str, port: int) -> None:
    """Refuses a port that is taken: over gRPC two servers would share it, over REST KServe ends with a traceback.

    Raises:
        InputError: it is taken.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError as error:
            raise InputError(f"port {port} cannot be had: {error.strerror}; set {name} to another") from error


def _save_memory() -> None:
    """Keeps freed memory from staying with the process: 20 MiB less after minutes of mixed requests.

    Arrow's own allocators hold on to what the request log's files took. glibc would make up to eight heaps a core, each
    with its own rest.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    with contextlib.suppress(AttributeError):  # another libc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _allow_read_only_root() -> None:
    """TensorFlow asks for a folder for temporary files when it is imported; nothing here writes one."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = "/dev/shm"


def _settings(arguments: list[str]) -> Settings:
    parser = argparse.ArgumentParser(prog="python -m components.predictor", description=__doc__, allow_abbrev=False)
    for name, setting in Settings.model_fields.items():
        parser.add_argument(
            # KServe's serving runtimes spell options with underscores.
            f"--{name.replace('_', '-')}",
            f"--{name}",
            dest=name,
            metavar="VALUE",
            default=os.environ.get(ENVIRONMENT_PREFIX + name.upper()),
            help=f"{setting.description} (default: {_shown(setting)}; variable {ENVIRONMENT_PREFIX}{name.upper()})",
        )
    given: dict[str, Any] = {
        name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None
    }
    if "redact" in given:
        given["redact"] = [name.strip() for name in given["redact"].split(",") if name.strip()]
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(
            f"setting {'.'.join(map(str, first['loc']))}: {first['msg']}, not {first['input']!r}"
        ) from error


def _shown(setting: FieldInfo) -> str:
    return "none" if setting.default in ("", []) else str(setting.default)


def _set_up_logging(level: str) -> None:
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("lockgate").setLevel(level.upper())
    # About KServe's own use of FastAPI.
    warnings.filterwarnings("ignore", module=r"fastapi|kserve")
    # KServe logs each gRPC call, and each fault of a client with a traceback.
    logging.getLogger("kserve").setLevel(logging.CRITICAL)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
