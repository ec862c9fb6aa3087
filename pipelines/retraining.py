"""Training on this machine that a verdict of monitoring asks for: once for the same evidence."""

import contextlib
import fcntl
from collections.abc import Callable
from pathlib import Path

from components import storage
from components.errors import DataRejectedError, UnavailableError
from components.monitoring_history import history_of
from components.monitoring_responses import Act, Responses
from pipelines.local import Outcome
from pipelines.project import LoadedProject

RETRAIN = "retrain"
"""As respond_to_verdict calls it."""
_OVER = (None, DataRejectedError.exit_code)
"""A training that passed, or that a gate stopped, is not tried again on the same evidence; one that broke is."""


class _BrokenError(UnavailableError):
    """The run ended with a fault, and has said which."""


def train_once(project: LoadedProject, evidence: str, runs: Path, train: Callable[[], Outcome]) -> Outcome | None:
    """Trains, unless it was done for this evidence; whoever comes meanwhile waits until it is over.

    A run on this machine ends with the process that started it. So the lock tells who is alive: a claim that nobody
    holds the lock for is of a process that was killed, and its training is begun again.

    Args:
        project: with the window to train on.
        evidence: names the verdict.
        runs: folder of all runs; the lock is in it where the history is in a bucket.
        train: runs the training pipeline.

    Returns:
        How the training ended; None: it was done before.
    """
    settings = project.settings
    configured = project.resolve(settings.monitoring.history) if settings.monitoring.history else ""
    history = history_of(configured, project.resolve(settings.publication.store))
    outcomes: list[Outcome] = []

    def act(_: Callable[[], None]) -> tuple[str, str]:
        outcome = train()
        outcomes.append(outcome)
        code = outcome.failed.exit_code if outcome.failed else None
        if code not in _OVER:
            raise _BrokenError(f"run {outcome.run_name} broke")
        return outcome.run_name, settings.data.window

    folder = runs if storage.is_remote(history) else Path(history.removeprefix("file://"))
    lock = folder / ".locks" / f"{settings.name}-{evidence}.lock"
    with storage.reaching(str(lock)):
        lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(_BrokenError):
            Responses(history, settings.name, evidence).once(RETRAIN, Act(act), alone=True)
    return outcomes[0] if outcomes else None
