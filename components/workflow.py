"""What Argo's workflow tells of a run: KFP's own task details have neither pods nor messages nor what was passed on.

A task is two pods, a driver that resolves its inputs and asks the cache, and an executor:

    training-x7k2p.root.exit-handler-1.train-model-driver(0)
    training-x7k2p.root.exit-handler-1.train-model(0).executor(0)
"""

import base64
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from components.run_records import StageRecord, State

_ATTEMPT = re.compile(r"\(\d+\)$")
_DRIVER = "-driver"
_CONTAINER_DRIVER = "system-container-driver"
_EXECUTOR = "executor"
_FAILED = ("Failed", "Error")
_OVER = (*_FAILED, "Succeeded", "Skipped", "Omitted")


@dataclass(frozen=True)
class Step:
    """How one task of a run stands."""

    task: str
    state: State
    started: datetime | None
    ended: datetime | None
    pod: str
    """Of its executor, or of its driver when that is all there is."""
    pending: bool
    """Its pod does not run yet."""
    message: str
    """Why it waits or failed, as Argo puts it; often nothing more than an exit code."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Inputs."""
    outputs: dict[str, str] = field(default_factory=dict)
    """URIs of its output artifacts, by name."""

    @property
    def stage(self) -> str:
        """Its component."""
        return stage_of(self.task)

    def record(self, image: str = "") -> StageRecord:
        """Gives what a record holds that the workflow knows: neither CPU time nor memory."""
        seconds = (self.ended - self.started).total_seconds() if self.started and self.ended else 0.0
        return StageRecord(
            task=self.task,
            stage=self.stage,
            image=image,
            state=self.state,
            started=self.started,
            ended=self.ended,
            wall_seconds=max(seconds, 0.0),
            error=self.message if self.state == "failed" else "",
            parameters={name: self.parameters[name] for name in ("verdict", "reason") if name in self.parameters},
        )


def stage_of(task: str) -> str:
    """Gives the component of a task: predict-batch-2 is predict_batch."""
    return re.sub(r"-\d+$", "", task).replace("-", "_")


def read_steps(manifest: str) -> dict[str, Step]:
    """Reads the tasks that have started, in the order of their starts.

    Args:
        manifest: the workflow as JSON; empty: it is not known yet.
    """
    if not manifest:
        return {}
    workflow = json.loads(manifest)
    drivers: dict[str, _Node] = {}
    executors: dict[str, _Node] = {}
    groups: dict[str, _Node] = {}
    for node in _nodes(workflow):
        *_, before, last = ("", *node.path)
        if node.is_pod and last == _EXECUTOR:
            executors[before] = node  # a later attempt takes the place of an earlier one
        elif node.is_pod and last.endswith(_DRIVER):
            drivers[last.removesuffix(_DRIVER)] = node
        elif not node.is_pod:
            groups[last] = node
    # The driver of a group of tasks is no task, unless nothing comes after it.
    tasks = [
        t for t, driver in drivers.items() if t in executors or driver.is_for_a_container or driver.phase in _FAILED
    ]
    return {task: _step(task, drivers[task], executors.get(task), groups.get(task)) for task in tasks}


def first_failed(steps: Mapping[str, Step]) -> Step | None:
    """Finds the task that failed first; None: none has."""
    failed = [step for step in steps.values() if step.state == "failed"]
    return min(
        failed,
        key=lambda step: (step.ended is None, step.ended and step.ended.timestamp(), step.task),
        default=None,
    )


def planned_tasks(manifest: str) -> list[str]:
    """Lists all tasks of a workflow, in no order: those that never started are no nodes of it."""
    templates = json.loads(manifest)["spec"]["templates"]
    tasks = [task for template in templates for task in (template.get("dag") or {}).get("tasks") or []]
    return [task["name"].removesuffix(_DRIVER) for task in tasks if task.get("template") == _CONTAINER_DRIVER]


@dataclass(frozen=True)
class _Node:
    path: list[str]
    is_pod: bool
    is_for_a_container: bool
    phase: str
    started: datetime | None
    ended: datetime | None
    pod: str
    message: str
    results: dict[str, str]


def _nodes(workflow: Mapping[str, Any]) -> Iterator[_Node]:
    status, name = workflow.get("status", {}), workflow["metadata"].get("name", "")
    nodes = status.get("nodes") or _unpacked(status.get("compressedNodes", ""))
    for node in sorted(nodes.values(), key=lambda node: (node.get("startedAt") or "9", node["name"])):
        template = node.get("templateName", "")
        yield _Node(
            path=[_ATTEMPT.sub("", part) for part in node["name"].split(".")],
            is_pod=node.get("type") == "Pod",
            is_for_a_container=template == _CONTAINER_DRIVER,
            phase=node.get("phase", "Pending"),
            started=_time(node.get("startedAt")),
            ended=_time(node.get("finishedAt")),
            pod=f"{name}-{template}-{node['id'].rpartition('-')[2]}",
            message=node.get("message", ""),
            results={p["name"]: p.get("value", "") for p in (node.get("outputs") or {}).get("parameters") or []},
        )


def _unpacked(text: str) -> dict[str, Any]:
    """Argo packs the nodes of a workflow that would be too big for Kubernetes."""
    found: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(text))) if text else {}
    return found


def _step(task: str, driver: _Node, executor: _Node | None, group: _Node | None) -> Step:
    state = _state(driver, executor, group)
    last = driver if executor is None or executor.phase in ("Skipped", "Omitted") else executor
    request = _executor_input(driver.results.get("pod-spec-patch", ""))
    inputs, outputs = request.get("inputs", {}), request.get("outputs", {})
    return Step(
        task=task,
        state=state,
        started=driver.started,
        ended=None if state == "running" else last.ended or driver.ended,
        pod=last.pod,
        pending=last.phase == "Pending",
        message=last.message,
        parameters=inputs.get("parameterValues", {}),
        outputs={name: artifacts["artifacts"][0]["uri"] for name, artifacts in outputs.get("artifacts", {}).items()},
    )


def _state(driver: _Node, executor: _Node | None, group: _Node | None) -> State:
    if driver.phase in _FAILED:
        return "failed"
    if driver.results.get("cached-decision") == "true":
        return "cached"
    if driver.results.get("condition") == "false":
        return "skipped"
    if executor is None or executor.phase not in _OVER:
        return "running"
    if executor.phase == "Succeeded":
        return "succeeded"
    if executor.phase in _FAILED:
        return "running" if group and group.phase == "Running" and not group.ended else "failed"
    return "skipped"


def _executor_input(patch: str) -> dict[str, Any]:
    """Finds what the launcher is told to do in the patch that a driver makes for the executor's pod."""
    try:
        containers = json.loads(patch)["containers"]
        words = [*(containers[0].get("command") or []), *(containers[0].get("args") or [])]
        found: dict[str, Any] = json.loads(words[words.index("--executor_input") + 1])
    except (ValueError, LookupError, TypeError):
        return {}
    return found


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
