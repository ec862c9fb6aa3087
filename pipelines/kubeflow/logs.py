"""The log of one stage of a run, as `python -m pipelines logs` prints it."""

import contextlib
import time
from collections.abc import Iterator

from components.errors import InputError, UnavailableError
from components.stage_logs import own_lines, read_log
from components.workflow import Step
from pipelines.kubeflow.api import Api, NotFoundError
from pipelines.kubeflow.pod_logs import WithPods
from pipelines.kubeflow.runs import Run, get_run
from pipelines.kubeflow.watching import Seen, look

_PAUSE = 3.0


class StageLog:
    """What a stage has printed, and prints."""

    def __init__(self, api: Api, run: Run, stage: str, whole: bool) -> None:
        """Finds the stage.

        Args:
            api: to ask.
            run: of the stage.
            stage: its task's name, its component's or its label; empty: the one that failed, or runs.
            whole: with the lines of KFP.

        Raises:
            InputError: there is no such stage, or it does not run in this run.
            UnavailableError: none is named, and none has begun.
        """
        self._api = api
        self._seen = look(api, run)
        self._task = _find(self._seen, stage)
        self._select = str.splitlines if whole else own_lines
        self.label = self._seen.labels[self._task]
        state = self._step.state if self._step else "skipped" if run.is_over else "running"
        if state in ("cached", "skipped"):
            raise InputError(f"stage '{self.label}' is {state} in this run; it printed nothing")

    def lines(self) -> list[str]:
        """Reads what it has printed until now."""
        step = self._step
        if step is None or step.pending:
            return []
        return self._select(read_log(WithPods(self._api), self._seen.run.id, step.pod))

    def follow(self) -> Iterator[str]:
        """Reads what it has printed, and goes on until it ends."""
        lines = self.lines()
        yield from lines
        while not self._seen.run.is_over and (self._step is None or self._step.state == "running"):
            time.sleep(_PAUSE)
            with contextlib.suppress(UnavailableError, NotFoundError):  # away for now, or on the way to the archive
                self._seen = look(self._api, get_run(self._api, self._seen.run.id))
                before, lines = len(lines), self.lines() or lines
                yield from lines[before:]

    def require_begun(self) -> None:
        """Checks that its pod runs or has run.

        Raises:
            UnavailableError: not yet.
        """
        if self._step is None:
            raise UnavailableError(f"stage '{self.label}' has not begun: its turn has not come")
        if self._step.pending:
            raise UnavailableError(f"stage '{self.label}' has not begun: {self._step.message or 'its pod is pending'}")

    @property
    def _step(self) -> Step | None:
        return self._seen.steps.get(self._task)


def _find(seen: Seen, wanted: str) -> str:
    """Finds the task that is meant."""
    if wanted:
        names = {label: task for task, label in seen.labels.items()} | {task: task for task in seen.labels}
        task = names.get(wanted) or names.get(wanted.replace("_", "-"))
        if task is None:
            raise InputError(f"there is no stage '{wanted}'; the stages are: {', '.join(seen.labels.values())}")
        return task
    for state in ("failed", "running"):
        if found := [step.task for step in seen.steps.values() if step.state == state]:
            return found[0]
    if not seen.steps:
        raise UnavailableError(f"no stage of run '{seen.run.name}' has begun")
    return list(seen.steps)[-1]
