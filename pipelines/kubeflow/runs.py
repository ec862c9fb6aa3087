"""Runs: finding them, and what the API tells of them."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from components.errors import InputError
from components.run_records import StageRecord
from components.workflow import Step, read_steps, stage_of
from pipelines.graph import Graph, read_graph
from pipelines.kubeflow.api import Api, NotFoundError, Object, matching, quoted

RUNS = "/apis/v2beta1/runs"
LATEST = "latest"
STOPPED = ("FAILED", "CANCELED", "CANCELING")
_OVER = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TAG = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)=(.*)")
_SHOWN = 5


@dataclass(frozen=True)
class Run:
    """A run, without its stages."""

    id: str
    name: str
    state: str
    """As KFP calls it; a run that somebody stopped is CANCELED, whatever KFP calls it."""
    created: datetime
    finished: datetime | None
    tags: dict[str, str]
    experiment_id: str
    recurring_run_id: str
    pipeline_id: str
    version_id: str
    error: str
    source: Object = field(repr=False)
    """As the API gave it."""

    @property
    def is_over(self) -> bool:
        """Nothing happens to it any more."""
        return self.state in _OVER

    @property
    def seconds(self) -> float | None:
        """From its creation to its end."""
        return (self.finished - self.created).total_seconds() if self.finished else None


def read_run(source: Object) -> Run:
    """Understands a run of the API."""
    reference = source.get("pipeline_version_reference") or {}
    state = source.get("state") or "PENDING"
    history = [entry.get("state") for entry in source.get("state_history") or []]
    if state == "FAILED" and "CANCELING" in history:
        state = "CANCELED"
    finished = _time(source.get("finished_at"))
    return Run(
        id=source["run_id"],
        name=source.get("display_name", ""),
        state="PENDING" if state == "RUNTIME_STATE_UNSPECIFIED" else state,
        created=_time(source.get("created_at")) or datetime.fromisoformat("1970-01-01T00:00:00+00:00"),
        finished=finished if state in _OVER else None,
        tags=read_tags(source.get("description") or ""),
        experiment_id=source.get("experiment_id", ""),
        recurring_run_id=source.get("recurring_run_id") or "",
        pipeline_id=reference.get("pipeline_id", ""),
        version_id=reference.get("pipeline_version_id", ""),
        error=str((source.get("error") or {}).get("message") or ""),
        source=source,
    )


def write_tags(tags: Mapping[str, str]) -> str:
    """Writes tags as a description: KFP's runs have no tags, and a description can be searched."""
    return "\n".join(f"{name}={value}" for name, value in tags.items())


def read_tags(description: str) -> dict[str, str]:
    """Reads tags from a description; other lines are left out."""
    found = [_TAG.fullmatch(line.strip()) for line in description.splitlines()]
    return {match[1]: match[2] for match in found if match}


def parse_tags(given: list[str]) -> dict[str, str]:
    """Reads tags from options.

    Raises:
        InputError: one is not like team=ml.
    """
    matches = {text: _TAG.fullmatch(text) for text in given}
    for text, match in matches.items():
        if match is None or "\n" in text:
            raise InputError(f"--tag '{text}': not KEY=VALUE, such as team=ml")
    return {match[1]: match[2] for match in matches.values() if match}


def list_runs(api: Api, **wanted: str) -> Iterator[Run]:
    """Lists runs that are not archived, newest first.

    Args:
        api: to ask.
        wanted: values of fields, see `matching`; `experiment_id` is one of them.
    """
    query = {"experiment_id": wanted.pop("experiment_id")} if "experiment_id" in wanted else {}
    filters = matching(storage_state="AVAILABLE", **wanted)
    return (read_run(source) for source in api.everything(RUNS, "runs", filter=filters, **query))


def find_run(api: Api, name: str) -> Run:
    """Finds a run by its id or its name; `latest`: the newest of all.

    Raises:
        InputError: there is none, or several have the name.
    """
    if name == LATEST:
        newest = next(list_runs(api), None)
        if newest is None:
            raise InputError(f"{api.tried} has no run yet")
        return newest
    if _ID.fullmatch(name):
        try:
            return get_run(api, name)
        except NotFoundError as error:
            raise InputError(f"there is no run '{name}'; see `runs`") from error
    found = list(list_runs(api, display_name=name))
    if len(found) > 1:
        shown = "; ".join(f"{run.id} ({run.state.lower()}, {run.created:%Y-%m-%d %H:%M})" for run in found[:_SHOWN])
        raise InputError(f"{len(found)} runs are named '{name}': {shown}; give the id")
    if not found:
        names = [run.name for run, _ in zip(list_runs(api), range(100), strict=False)]
        close = difflib.get_close_matches(name, names, 1)
        raise InputError(f"there is no run '{name}'; " + (f"did you mean '{close[0]}'?" if close else "see `runs`"))
    return found[0]


def get_run(api: Api, run_id: str) -> Run:
    """Reads one run."""
    return read_run(api.get(f"{RUNS}/{quoted(run_id)}"))


def get_steps(api: Api, run_id: str) -> dict[str, Step]:
    """Reads how the tasks of a run stand."""
    # Only the old API hands out the workflow; it writes state and workflow in one go, the tasks of the new API later.
    details = api.get(f"/apis/v1beta1/runs/{quoted(run_id)}").get("pipeline_runtime") or {}
    return read_steps(details.get("workflow_manifest") or "")


def spec_of(api: Api, run: Run) -> Object:
    """Reads the compiled pipeline that a run runs."""
    if run.version_id:
        path = f"/apis/v2beta1/pipelines/{quoted(run.pipeline_id)}/versions/{quoted(run.version_id)}"
        spec: Object = api.get(path).get("pipeline_spec") or {}
    else:
        spec = run.source.get("pipeline_spec") or {}
    found: Object = spec.get("pipeline_spec", spec)
    return found


def graph_of(spec: Object) -> Graph | None:
    """Understands the stages of a compiled pipeline; None: it is not ours, and has parts that ours never have."""
    try:
        return read_graph(json.dumps(spec))
    except (KeyError, TypeError):
        return None


def records_of(graph: Graph | None, steps: Mapping[str, Step], over: bool) -> list[StageRecord]:
    """Gives a record for each stage that has started, or, at the end, for each; in the order of the pipeline."""
    images = {task.name: task.image for task in graph.tasks} if graph else {}
    order = [task for task in steps if task not in images] + list(images)
    records = []
    for task in order:
        step = steps.get(task)
        if step is None:
            if over:
                records.append(StageRecord(task=task, stage=stage_of(task), image=images[task], state="skipped"))
            continue
        records.append(step.record(images.get(task, "")))
    return records


def summary_of(run: Run) -> dict[str, Any]:
    """What a script wants to know of a run."""
    return {
        "id": run.id,
        "name": run.name,
        "state": run.state,
        "created": run.created.isoformat(),
        "finished": run.finished.isoformat() if run.finished else None,
        "seconds": run.seconds,
        "tags": run.tags,
        "experiment_id": run.experiment_id,
        "recurring_run_id": run.recurring_run_id,
    }


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text and not text.startswith(("0001", "1970")) else None
