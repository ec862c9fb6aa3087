"""Follows a run to its end: one line a stage, through whatever the network does."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from components.errors import UnavailableError
from components.run_records import StageRecord
from components.stage_logs import explain, with_cause
from components.workflow import Step
from pipelines.graph import Graph
from pipelines.kubeflow.api import Api
from pipelines.kubeflow.pod_logs import WithPods
from pipelines.kubeflow.runs import Run, get_run, get_steps, graph_of, records_of, spec_of

_PAUSE = 3.0
_LONGEST_PAUSE = 30.0
_PATIENCE = 15 * 60.0
"""Seconds without an answer after which the API is given up."""
_STUCK = 20.0
"""Seconds that a pod may wait before it is told of."""
_SHOWN = 300
_UNPULLABLE = re.compile(r'(?:ErrImagePull|ImagePullBackOff|InvalidImageName): .*?image "([^"]+)"')
_NORMAL = ("ContainerCreating", "PodInitializing", "")


class Watcher(Protocol):
    """Somebody who is told how a run goes."""

    def planned(self, tasks: dict[str, str]) -> None:
        """The stages of the run in order: name to label."""

    def changed(self, record: StageRecord) -> None:
        """A stage started or ended."""


@dataclass(frozen=True)
class Seen:
    """A run as it stands."""

    run: Run
    graph: Graph | None
    steps: dict[str, Step]

    @property
    def records(self) -> list[StageRecord]:
        """One for each stage that has started; at the end, one for each."""
        return records_of(self.graph, self.steps, self.run.is_over)

    @property
    def labels(self) -> dict[str, str]:
        """Of the stages, in order."""
        planned = {task.name: task.label for task in self.graph.tasks} if self.graph else {}
        return planned | {task: task for task in self.steps if task not in planned}

    def waiting(self, seconds: float = _STUCK) -> dict[str, str]:
        """Gives why pods wait that have waited longer than usual, by task."""
        return {
            step.task: _reason(step.message)
            for step in self.steps.values()
            if step.state == "running"
            and step.pending
            and step.message.partition(":")[0] not in _NORMAL
            and step.started
            and time.time() - step.started.timestamp() > seconds
        }


def look(api: Api, run: Run) -> Seen:
    """Reads how a run stands."""
    return Seen(run, graph_of(spec_of(api, run)), get_steps(api, run.id))


def follow(api: Api, run: Run, watcher: Watcher, note: Callable[[str], None], timeout: float | None = None) -> Seen:
    """Follows a run to its end.

    Args:
        api: to ask; that it does not answer for a while ends nothing.
        run: to follow.
        watcher: is told of every stage.
        note: is told what else is worth a line.
        timeout: seconds after which the caller has waited enough; None: never.

    Raises:
        UnavailableError: the time is over, or the API has been away for long; the run goes on.
        InputError: the run is gone, or the API refuses.
    """
    begin = answered = time.monotonic()
    pause, graph, shown = _PAUSE, None, ""
    told: dict[str, str] = {}
    noted: dict[str, str] = {}
    waiting: dict[str, str] = {}
    while True:
        try:
            graph = graph or graph_of(spec_of(api, run))
            run = get_run(api, run.id)
            seen = Seen(run, graph, get_steps(api, run.id))
            if shown:
                note("the API answers again")
            answered, pause, shown = time.monotonic(), _PAUSE, ""
        except UnavailableError as error:
            if time.monotonic() - answered > _PATIENCE:
                raise UnavailableError(f"{error}; nothing for {_PATIENCE / 60:g} min; {_goes_on(run)}") from error
            if not shown:
                shown = str(error)
                note(f"{shown}; trying again")
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        else:
            watcher.planned(seen.labels)
            for record in seen.records:
                if told.get(record.task) != record.state:
                    told[record.task] = record.state
                    if record.state == "failed" and run.state in ("CANCELED", "CANCELING"):
                        record = record.model_copy(update={"error": "stopped with the run"})
                    elif record.state == "failed":
                        (record,) = with_cause([record], explain(WithPods(api), run.id, seen.steps[record.task]))
                    watcher.changed(record)
            waiting = {seen.labels[task]: reason for task, reason in seen.waiting().items()}
            for label, reason in waiting.items():
                if noted.get(label) != (kind := reason.partition(":")[0]):
                    noted[label] = kind
                    note(f"{label} waits: {reason}")
            if run.is_over:
                return seen
        if timeout is not None and time.monotonic() - begin + pause > timeout:
            waits = "".join(f"; {label} waits: {reason}" for label, reason in waiting.items())
            raise UnavailableError(f"run '{run.name}' is not over after {timeout:g} s{waits}; {_goes_on(run)}")
        time.sleep(pause)


def _reason(message: str) -> str:
    """Shortens what Kubernetes says, and calls two names of one thing by one, which it takes turns with."""
    if image := _UNPULLABLE.match(message):
        cause = message.rpartition(": ")[2]
        why = "" if cause.startswith("Back-off") else f" ({cause})"
        return f"image '{image[1]}' cannot be pulled{why}; is it pushed there?"
    return message if len(message) <= _SHOWN else f"{message[:_SHOWN]}…"


def _goes_on(run: Run) -> str:
    return f"the run goes on; wait for it by `python -m pipelines wait {run.id}`"
