"""Time and memory of a command and everything that it starts."""

import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_INTERVAL_SECONDS = 0.1
_MIB = 2**20


@dataclass
class Usage:
    """What a command used."""

    exit_code: int
    wall_seconds: float
    rss_mib: float
    """Largest sum of the processes' resident sets. Pages that a fork shares with its parent count twice."""
    pss_mib: float
    """Largest sum of their proportional sets: shared pages count once. This is the memory that is taken."""


def measure(command: Sequence[str], log: Path, cwd: Path) -> Usage:
    """Runs a command to its end and samples its process tree ten times a second.

    Args:
        command: to run.
        log: file for its output.
        cwd: where to run it.
    """
    started = time.monotonic()
    with log.open("wb") as output:
        process = psutil.Popen(list(command), stdout=output, stderr=subprocess.STDOUT, cwd=cwd)
        usage = Usage(-1, 0.0, 0.0, 0.0)
        ended = threading.Event()
        sampler = threading.Thread(target=_sample, args=(process, usage, ended))
        sampler.start()
        usage.exit_code = process.wait()
        usage.wall_seconds = time.monotonic() - started
        ended.set()
        sampler.join()
    return usage


def _sample(root: psutil.Process, usage: Usage, ended: threading.Event) -> None:
    while not ended.wait(_INTERVAL_SECONDS):
        rss = pss = 0
        try:
            processes = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in processes:
            one_rss, one_pss = _memory(process.pid)
            rss += one_rss
            pss += one_pss
        usage.rss_mib = max(usage.rss_mib, rss / _MIB)
        usage.pss_mib = max(usage.pss_mib, pss / _MIB)


def _memory(pid: int) -> tuple[int, int]:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:3]
        rss, pss = (int(line.split()[1]) * 1024 for line in lines)
    except (OSError, ValueError, ProcessLookupError):
        return 0, 0
    return rss, pss
