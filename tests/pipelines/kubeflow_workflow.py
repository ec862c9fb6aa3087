"""Workflows as Argo writes them for a pipeline of KFP 2.17.0."""

import json
from typing import Any

NAME = "training-x7k2p"
_ROOT = f"{NAME}.root"
_INSIDE = f"{_ROOT}.exit-handler-1"


def workflow(*nodes: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": NAME}, "status": {"nodes": {node["id"]: node for node in nodes}}}


def node(path: str, template: str, phase: str, start: int, end: int | None = None, **more: Any) -> dict[str, Any]:
    kind = "Pod" if template.endswith(("driver", "impl")) else "DAG"
    return {
        "id": f"{NAME}-{abs(hash(path)) % 10**9}",
        "name": path,
        "displayName": path.rpartition(".")[2],
        "type": kind,
        "templateName": template,
        "phase": phase,
        "startedAt": f"2026-01-01T10:00:{start:02}Z",
        "finishedAt": f"2026-01-01T10:00:{end:02}Z" if end is not None else None,
        **more,
    }


def task(
    name: str,
    start: int,
    phase: str = "Succeeded",
    *,
    cached: bool = False,
    inputs: dict[str, Any] | None = None,
    outputs: dict[str, str] | None = None,
    message: str = "",
    inside: str = _INSIDE,
) -> list[dict[str, Any]]:
    """A task that starts at that second: driver 2 s, executor 5 s."""
    request = {
        "inputs": {"parameterValues": inputs or {}},
        "outputs": {"artifacts": {key: {"artifacts": [{"uri": uri}]} for key, uri in (outputs or {}).items()}},
    }
    patch = {"containers": [{"command": ["/launcher", "--executor_input", json.dumps(request)]}]}
    decided = [
        {"name": "pod-spec-patch", "value": "" if cached else json.dumps(patch)},
        {"name": "cached-decision", "value": str(cached).lower()},
        {"name": "condition", "value": ""},
    ]
    driver = node(
        f"{inside}.{name}-driver(0)",
        "system-container-driver",
        "Succeeded",
        start,
        start + 2,
        outputs={"parameters": decided},
    )
    over = phase not in ("Running", "Pending")
    executor_phase = "Skipped" if cached else phase
    end = start + 7 if over else None
    group = node(f"{inside}.{name}", "system-container-executor", phase if over else "Running", start + 2, end)
    executor = node(
        f"{inside}.{name}.executor(0)", "system-container-impl", executor_phase, start + 2, end, message=message
    )
    if cached:
        executor |= {"type": "Skipped"}
    return [driver, group, executor]


def pod_of(made: dict[str, Any], name: str) -> str:
    """Gives the pod of a task's executor."""
    for one in made["status"]["nodes"].values():
        if one["name"].endswith(f".{name}.executor(0)"):
            return f"{NAME}-{one['templateName']}-{one['id'].rpartition('-')[2]}"
    raise LookupError(name)
