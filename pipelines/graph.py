"""What a compiled pipeline looks like: its tasks, what each waits for, its arguments."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True)
class Task:
    """One step."""

    name: str
    label: str
    image: str
    after: tuple[str, ...]
    """Names of the tasks it waits for."""
    is_exit: bool
    """Runs at the end, whatever happened."""


@dataclass(frozen=True)
class Argument:
    """One input of the pipeline."""

    name: str
    type: str
    default: str
    """As JSON; empty: it must be given."""


@dataclass(frozen=True)
class Graph:
    """A compiled pipeline, flattened: exit handlers and other groups are gone."""

    tasks: list[Task]
    """In an order in which they can run."""
    arguments: list[Argument]


def read_graph(compiled: str) -> Graph:
    """Reads a compiled pipeline's YAML."""
    spec = next(iter(yaml.safe_load_all(compiled)))
    tasks = sorted(_tasks(spec, spec["root"]["dag"]), key=lambda task: task.name)
    return Graph(_in_order(tasks), list(_arguments(spec["root"].get("inputDefinitions", {}).get("parameters", {}))))


def _tasks(spec: dict[str, Any], dag: dict[str, Any]) -> Iterator[Task]:
    for name, task in dag["tasks"].items():
        component = spec["components"][task["componentRef"]["name"]]
        if "dag" in component:
            yield from _tasks(spec, component["dag"])
            continue
        image = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]["image"]
        is_exit = task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
        after = () if is_exit else tuple(task.get("dependentTasks", []))
        yield Task(name, task["taskInfo"]["name"], image, after, is_exit)


def _in_order(tasks: list[Task]) -> list[Task]:
    placed: dict[str, Task] = {}
    while len(placed) < len(tasks):
        ready = [t for t in tasks if t.name not in placed and all(name in placed for name in t.after)]
        placed |= {task.name: task for task in sorted(ready, key=lambda t: t.is_exit)}
    return sorted(placed.values(), key=lambda t: t.is_exit)


def _arguments(parameters: dict[str, Any]) -> Iterator[Argument]:
    for name, parameter in parameters.items():
        default = json.dumps(parameter["defaultValue"]) if "defaultValue" in parameter else ""
        yield Argument(name, parameter["parameterType"].lower(), default)
