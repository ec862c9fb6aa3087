"""Runs a compiled pipeline on this machine: kfp.local, each task in its image or in the venv twin of it.

kfp.local walks the graph, resolves inputs, caches and handles exits. What is ours is how a task's command
is run (an Executor), in which order, and what is recorded of it. kfp 2.17 offers no hook for that, so four of its
functions are replaced while a run is under way (`_installed`); a test holds what we rely on.
"""

import contextlib
import graphlib
import logging
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from google.protobuf import json_format
from kfp import dsl, local
from kfp.local import executor_input_utils, graph_utils, pipeline_orchestrator, status
from kfp.local.orchestrator import task_executor
from kfp.pipeline_spec import pipeline_spec_pb2

from components.run_records import ArtifactRecord, StageRecord, records_folder, write_record
from pipelines.compiled import documents
from pipelines.environments import twin
from pipelines.execution import KFP_LINES, Ended, Executor, Start
from pipelines.workers import Program, Workers


class Watcher(Protocol):
    """Somebody who is told how a run goes."""

    def planned(self, tasks: Mapping[str, str]) -> None:
        """The tasks of the run in order: name to display name."""

    def changed(self, record: StageRecord) -> None:
        """A task started or ended."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run_name: str
    folder: Path
    records: list[StageRecord]

    @property
    def failed(self) -> StageRecord | None:
        """The first task that failed, if any."""
        return next((record for record in self.records if record.state == "failed"), None)

    def stage(self, task: str) -> StageRecord | None:
        """The record of one task."""
        return next((record for record in self.records if record.task == task), None)


def run_pipeline(
    compiled: str,
    arguments: dict[str, Any],
    root: Path,
    run_name: str,
    watcher: Watcher,
    use_cache: bool = True,
    executor: Executor | None = None,
) -> Outcome:
    """Runs a compiled pipeline to its end, whether it passes or fails.

    Args:
        compiled: the pipeline's YAML.
        arguments: by the names of the pipeline's inputs.
        root: folder of all runs; this one's files go to `<root>/<run_name>/`.
        run_name: unique among the runs.
        watcher: is told of every change.
        use_cache: take the results of tasks that ran before on the same input.
        executor: runs the tasks; None: the venv twins of their images.
    """
    spec = _parse(compiled)
    folder = root / run_name
    records_folder(root, run_name).mkdir(parents=True)
    tasks = _tasks_in_order(spec)
    watcher.planned({task.name: task.label for task in tasks.values()})
    executor = executor or Workers(
        {task.name: twin(task.image, task.stage) for task in tasks.values()}, folder / "workers.log"
    )
    run = _Run(root, run_name, tasks, executor, watcher)
    try:
        with _installed(run, spec), _quiet(folder / "kfp.log"):
            local.init(
                executor.kfp_runner,
                pipeline_root=str(root),
                raise_on_error=False,
                enable_caching=use_cache,
                cache_root=str(root / ".cache" / executor.name),
            )
            pipeline_orchestrator.run_local_pipeline(spec, arguments)
    finally:
        executor.stop()
    return Outcome(run_name, folder, list(run.records.values()))


def images_of(compiled: str) -> list[str]:
    """Lists the images that a compiled pipeline's tasks need."""
    return sorted({task.image for task in _tasks_in_order(_parse(compiled)).values()})


def _parse(compiled: str) -> pipeline_spec_pb2.PipelineSpec:
    # kfp.local fails on this placeholder; nothing schedules a run here.
    text = compiled.replace(dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER, datetime.now(UTC).isoformat())
    return json_format.ParseDict(documents(text)[0], pipeline_spec_pb2.PipelineSpec())


@dataclass(frozen=True)
class _Task:
    name: str
    """In the pipeline, e.g. predict-batch-2."""
    label: str
    stage: str
    image: str
    is_exit: bool
    is_repeated: bool
    """It is in a loop."""


def _tasks_in_order(spec: pipeline_spec_pb2.PipelineSpec) -> dict[str, _Task]:
    """Lists the tasks by component name, in the order in which kfp.local runs them."""
    tasks: dict[str, _Task] = {}
    executors = json_format.MessageToDict(spec.deployment_spec)["executors"]

    def visit(dag: pipeline_spec_pb2.DagSpec, is_repeated: bool = False) -> None:
        exits = {name for name, task in dag.tasks.items() if _is_exit(task)}
        for name in [n for n in _ordered(spec, dag.tasks) if n not in exits] + sorted(exits):
            component_name = dag.tasks[name].component_ref.name
            component = spec.components[component_name]
            if component.WhichOneof("implementation") == "dag":
                visit(component.dag, is_repeated or dag.tasks[name].WhichOneof("iterator") is not None)
                continue
            container = executors[component.executor_label]["container"]
            program = Program.from_command([*container["command"], *container["args"]])
            label = dag.tasks[name].task_info.name or name
            tasks[component_name] = _Task(name, label, program.function, container["image"], name in exits, is_repeated)

    visit(spec.root.dag)
    return tasks


def _ordered(spec: pipeline_spec_pb2.PipelineSpec, tasks: Mapping[str, Any]) -> list[str]:
    """Orders tasks so that those of one image follow each other where they can: fewer workers live at a time."""
    executors = json_format.MessageToDict(spec.deployment_spec)["executors"]

    def image(name: str) -> str:
        component = spec.components[tasks[name].component_ref.name]
        return str(executors[component.executor_label]["container"]["image"]) if component.executor_label else ""

    waits = graphlib.TopologicalSorter(
        {name: [before for before in task.dependent_tasks if before in tasks] for name, task in tasks.items()}
    )
    waits.prepare()
    ordered: list[str] = []
    ready: set[str] = set()
    while waits.is_active():
        ready.update(waits.get_ready())
        current = image(ordered[-1]) if ordered else ""
        name = min(ready, key=lambda name: (image(name) != current, name))
        ready.remove(name)
        waits.done(name)
        ordered.append(name)
    return ordered


def _is_exit(task: pipeline_spec_pb2.PipelineTaskSpec) -> bool:
    return any(p.HasField("task_final_status") for p in task.inputs.parameters.values())


@dataclass
class _Run:
    root: Path
    name: str
    tasks: dict[str, _Task]
    """By component name, which kfp.local also names a task's folder by."""
    executor: Executor
    watcher: Watcher
    records: dict[str, StageRecord] = field(default_factory=dict)
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def execute(self, original: Any, task_spec: Any, **arguments: Any) -> tuple[dict[str, Any], status.Status]:
        """Runs one task through kfp.local and records how it went; turns of a loop one after the other."""
        with self._one_at_a_time:
            return self._execute(original, task_spec, arguments)

    def _execute(
        self, original: Any, task_spec: Any, arguments: dict[str, Any]
    ) -> tuple[dict[str, Any], status.Status]:
        component_name = task_spec.component_ref.name
        task = self.tasks[component_name]
        if task.is_exit:
            self._record_skipped()
        started, clock = datetime.now(UTC), time.monotonic()
        turn_before = self.records.get(task.name)
        record = StageRecord(task=task.name, stage=task.stage, image=task.image, state="running", started=started)
        self._record(record)
        outputs, end = original(task_spec=task_spec, **arguments)
        record = self.records[task.name]  # the handler has been here, unless the cache answered
        is_cached = record.exit_code is None
        if not task.is_repeated:  # else there may be more turns
            self.executor.done(task.name)
        parameters, artifacts = _split_outputs(outputs)
        for artifact in artifacts.values():
            # Metrics have no file, and kfp's cache takes an artifact without one for lost.
            Path(artifact.uri).touch()
        record = record.model_copy(
            update={
                "state": "failed" if end == status.Status.FAILURE else "cached" if is_cached else "succeeded",
                "ended": datetime.now(UTC),
                "wall_seconds": time.monotonic() - clock,
                "folder": _folder_of(artifacts) or str(self.root / self.name / component_name.removeprefix("comp-")),
                "parameters": parameters,
                "artifacts": artifacts,
            }
        )
        self._record(_with_turn_before(record, turn_before) if turn_before else record)
        return outputs, end

    def run_command(self, start: Start) -> int:
        """Runs the command of the task that is under way, and gives its exit code."""
        task = next(r for r in self.records.values() if r.state == "running")
        log = records_folder(self.root, self.name) / f"{task.task}.log"
        self._record(task.model_copy(update={"log": str(log)}))
        ended = start(task.task, log)
        self._record(
            self.records[task.task].model_copy(
                update={
                    "exit_code": ended.exit_code,
                    "cpu_seconds": ended.cpu_seconds,
                    "peak_rss_bytes": ended.peak_rss_bytes,
                    "error": _cause(ended, log),
                }
            )
        )
        return ended.exit_code

    def _record(self, record: StageRecord) -> None:
        self.records[record.task] = record
        write_record(self.root, self.name, record)
        self.watcher.changed(record)

    def _record_skipped(self) -> None:
        for task in self.tasks.values():
            if task.name not in self.records and not task.is_exit:
                self._record(StageRecord(task=task.name, stage=task.stage, image=task.image, state="skipped"))


def _with_turn_before(record: StageRecord, before: StageRecord) -> StageRecord:
    """Puts a turn of a loop into one record with those before: a failure stays, times add up."""
    summed = {
        "started": before.started,
        "wall_seconds": before.wall_seconds + record.wall_seconds,
        "cpu_seconds": before.cpu_seconds + record.cpu_seconds,
        "peak_rss_bytes": max(before.peak_rss_bytes, record.peak_rss_bytes),
    }
    return (before if before.state == "failed" else record).model_copy(update=summed)


def _split_outputs(outputs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, ArtifactRecord]]:
    artifacts = {
        name: ArtifactRecord(uri=value.uri, type=value.schema_title, metadata=value.metadata)
        for name, value in outputs.items()
        if isinstance(value, dsl.Artifact)
    }
    return {name: value for name, value in outputs.items() if name not in artifacts}, artifacts


def _folder_of(artifacts: dict[str, ArtifactRecord]) -> str:
    return next((str(Path(artifact.uri).parent) for artifact in artifacts.values()), "")


def _cause(ended: Ended, log: Path) -> str:
    """Gives the one line that says why a task failed."""
    if ended.exit_code == 0:
        return ""
    if ended.exit_code < 0:
        hint = "out of memory? " if ended.exit_code == -9 else ""
        return f"killed by signal {-ended.exit_code}; {hint}see {log}, then start the same run again"
    text = log.read_text(encoding="utf-8", errors="replace")
    # KFP's executor prints its input, and where it comes to lie among the lines of a container varies.
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(KFP_LINES)]
    return lines[-1] if lines else f"ended with {ended.exit_code} and said nothing; see {log}"


@contextlib.contextmanager
def _installed(run: _Run, spec: pipeline_spec_pb2.PipelineSpec) -> Iterator[None]:
    """Puts our pieces where kfp.local looks for its own."""
    original = task_executor.execute_single_task
    replacements: list[tuple[Any, str, Any]] = [
        run.executor.seam(run.run_command),
        (task_executor, "execute_single_task", lambda **arguments: run.execute(original, **arguments)),
        (graph_utils, "topological_sort_tasks", lambda tasks: _ordered(spec, tasks)[::-1]),  # it takes the last first
        (executor_input_utils, "get_local_pipeline_resource_name", lambda _: run.name),
    ]
    with contextlib.ExitStack() as stack:
        for module, name, replacement in replacements:
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, replacement)
        yield


@contextlib.contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """Keeps kfp.local's own chatter in a file: it prints every argument of every task."""
    with log.open("w", encoding="utf-8") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger = logging.getLogger()
        before, level = list(logger.handlers), logger.level
        logger.handlers = [logging.StreamHandler(file)]
        try:
            with contextlib.redirect_stdout(file):
                yield
        finally:
            logger.handlers, logger.level = before, level
