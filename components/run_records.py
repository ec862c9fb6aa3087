"""What a run leaves behind about each of its tasks: one JSON file a task.

A local run writes them as tasks end; `report_run` reads them. They lie in
`<pipeline_root>/<run_name>/stages/<task>.json`. On a cluster nobody writes them: KFP keeps its own books.
"""

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from components.artifacts import write_whole
from components.json_files import parse_record

FOLDER = "stages"

State = Literal["running", "succeeded", "cached", "failed", "skipped"]
Parameter = str | int | float | bool | list[Any] | dict[str, Any] | None


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArtifactRecord(_Record):
    """One artifact that a task wrote."""

    uri: str
    """Where it lies: a local path, or a URI. For a cached task: in the folder of the run that made it."""
    type: str = "system.Artifact"
    """As KFP names it, e.g. system.Dataset, system.HTML, system.Metrics."""
    metadata: dict[str, Any] = {}


class StageRecord(_Record):
    """How one task of a run went."""

    task: Annotated[str, Field(min_length=1)]
    """Its name in the pipeline, e.g. predict-batch-2."""
    stage: str
    """The component's name, e.g. predict_batch."""
    image: str = ""
    state: State
    started: AwareDatetime | None = None
    """UTC. None: never started."""
    ended: AwareDatetime | None = None
    """UTC. None: not yet, or never."""
    wall_seconds: Annotated[float, Field(ge=0)] = 0.0
    cpu_seconds: Annotated[float, Field(ge=0)] = 0.0
    """User and system time of the task's process tree."""
    peak_rss_bytes: Annotated[int, Field(ge=0)] = 0
    """Largest resident set of the task's process tree."""
    exit_code: int | None = None
    """None: no process ran, or it has not ended."""
    error: str = ""
    """The one-line message of a failure."""
    folder: str = ""
    """Where its outputs lie; for a cached task, the folder of the run that made them."""
    log: str = ""
    """Path of what it printed."""
    parameters: dict[str, Parameter] = {}
    """Output parameters, e.g. verdict and reason."""
    artifacts: dict[str, ArtifactRecord] = {}
    """Output artifacts, by their name in the component."""


def records_folder(pipeline_root: str | Path, run_name: str) -> Path:
    """Gives the folder that holds a run's records; it may not exist."""
    return Path(pipeline_root) / run_name / FOLDER


def write_record(pipeline_root: str | Path, run_name: str, record: StageRecord) -> Path:
    """Writes a task's record in place of any earlier one; a reader sees the old or the new, never a part.

    Returns:
        The file.
    """
    path = records_folder(pipeline_root, run_name) / f"{re.sub(r'[^A-Za-z0-9._-]', '_', record.task)}.json"
    write_whole(path, record.model_dump_json(indent=1))
    return path


def read_record(path: Path) -> StageRecord:
    """Reads one record.

    Raises:
        InputError: the file is not a record, with the first fault.
    """
    return parse_record(StageRecord, path.read_bytes(), path, "delete it or run again")


def record_files(pipeline_root: str | Path, run_name: str) -> list[Path]:
    """Lists the files of a run's records, by name; none for a run that left none."""
    return sorted(records_folder(pipeline_root, run_name).glob("[!.]*.json"))


def read_records(pipeline_root: str | Path, run_name: str) -> list[StageRecord]:
    """Reads all records of a run, in the order in which its tasks started; those that never did come last.

    Raises:
        InputError: a file is not a record.
    """
    return in_order([read_record(path) for path in record_files(pipeline_root, run_name)])


def in_order(records: list[StageRecord]) -> list[StageRecord]:
    """Sorts records by start; tasks that never started come last."""
    return sorted(records, key=lambda r: (r.started is None, r.started or datetime.min, r.task))
