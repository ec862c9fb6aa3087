"""What a compiled pipeline looks like: its tasks, what each waits for, its arguments."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pipelines.compiled import documents


@dataclass(frozen=True)
class Task:
    """One step."""

    name: str
    label: str
    image: str
    after: tuple[str, ...]
    """Names of the tasks it waits for; without those that these wait for themselves."""
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
    import networkx as nx  # slow to import, and most commands need no graph

    spec = documents(compiled)[0]
    tasks = {task.name: task for task in _tasks(spec, spec["root"]["dag"])}
    waits = nx.DiGraph((before, task.name) for task in tasks.values() for before in task.after)
    waits.add_nodes_from(tasks)
    waits = nx.transitive_reduction(waits)
    order = sorted(nx.lexicographical_topological_sort(waits), key=lambda name: tasks[name].is_exit)
    ordered = [replace(tasks[name], after=tuple(sorted(waits.predecessors(name)))) for name in order]
    return Graph(ordered, list(_arguments(spec["root"].get("inputDefinitions", {}).get("parameters", {}))))


def _tasks(spec: dict[str, Any], dag: dict[str, Any], group_after: tuple[str, ...] = ()) -> Iterator[Task]:
    for name, task in dag["tasks"].items():
        component = spec["components"][task["componentRef"]["name"]]
        waits = [one for before in task.get("dependentTasks", []) for one in _members(spec, dag, before)]
        if "dag" in component:
            yield from _tasks(spec, component["dag"], (*group_after, *waits))
            continue
        image = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]["image"]
        is_exit = task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
        after = () if is_exit else (*group_after, *waits)
        yield Task(name, task["taskInfo"]["name"], image, after, is_exit)


def _members(spec: dict[str, Any], dag: dict[str, Any], name: str) -> Iterator[str]:
    """Yields the tasks that somebody waits for: one, or those of a loop or condition."""
    component = spec["components"][dag["tasks"][name]["componentRef"]["name"]]
    if "dag" not in component:
        yield name
        return
    for member in component["dag"]["tasks"]:
        yield from _members(spec, component["dag"], member)


def _arguments(parameters: dict[str, Any]) -> Iterator[Argument]:
    for name, parameter in parameters.items():
        default = json.dumps(parameter["defaultValue"]) if "defaultValue" in parameter else ""
        yield Argument(name, parameter["parameterType"].lower(), default)
