"""What the processes of a stream have in common when they start: options, logging, and a name."""

import argparse
import logging
import os
import socket
import sys
from pathlib import Path


def options(program: str, about: str | None) -> argparse.ArgumentParser:
    """Gives the parser of the options that each process has: job, instance, port, log_level."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=about, allow_abbrev=False)
    parser.add_argument("--job", type=Path, required=True, help="JSON, as --show-job writes it")
    parser.add_argument(
        "--instance", default=os.environ.get("LOCKGATE_INSTANCE", ""), help="names this process among the group's"
    )
    parser.add_argument("--port", type=int, default=8080, help="of /live, /ready, /metrics and /status")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


def begin_log(level: str) -> None:
    """Writes our lines from a level on to stderr, and warnings of others."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("lockgate").setLevel(level.upper())


def instance_name(given: str) -> str:
    """Names this process among the group's.

    A process has an id of its own on its machine; the first in a container has always the same.
    """
    return given or f"{socket.gethostname()}-{os.getpid()}"
