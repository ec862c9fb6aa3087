"""How a local run executes its tasks: what the two ways (venv twins, containers) have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kfp import local

KFP_LINES = ("[KFP", "{", "}", '"', "]")
"""How the lines begin that kfp's executor prints into a task's log: its own, and those of its input, which is JSON."""


@dataclass(frozen=True)
class Ended:
    """How a task's process ended."""

    exit_code: int
    """Negative: the signal that killed it."""
    cpu_seconds: float
    peak_rss_bytes: int


Start = Callable[[str, Path], Ended]
"""Runs the task of that name to its end; what it prints goes to the file."""

Execute = Callable[[Start], int]
"""Runs the task that is under way, records how it ended, and gives its exit code."""

Seam = tuple[Any, str, Any]
"""A module of kfp.local, the name of what runs a task there, and what takes its place."""


class Executor(Protocol):
    """A way to execute the tasks of a run."""

    name: str
    """Part of the cache's path: a result is reused only by what made it."""

    @property
    def kfp_runner(self) -> local.SubprocessRunner | local.DockerRunner:
        """What kfp.local is initialised with."""

    def seam(self, execute: Execute) -> Seam:
        """Gives the place in kfp.local where tasks are run, and what runs them instead."""

    def done(self, task: str) -> None:
        """Notes that a task has ended, or was not needed."""

    def stop(self) -> None:
        """Ends whatever still runs."""
