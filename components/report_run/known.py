"""What is known of a run's stages: from its records on this machine, or from the API of Kubeflow Pipelines."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from components.errors import InputError, LockgateError
from components.pipelines_api import PipelinesApi
from components.run_records import StageRecord, in_order, read_record, record_files
from components.stage_logs import artifacts_in, find_cause, outputs_in, read_log, with_cause
from components.workflow import Step, planned_tasks, read_steps, stage_of

OWN = "report_run"
_LAG_SECONDS = 10.0
"""How long the API's copy of the workflow may lag behind what has happened."""
_TELL = (
    "ingest_data",
    "validate_data",
    "transform_data",
    "evaluate_model",
    "check_serving",
    "publish_model",
    "deploy_model",
    "monitor_model",
    "write_predictions",
    "respond_to_verdict",
)
"""Stages whose outputs the page shows."""


@dataclass(frozen=True)
class Known:
    """What is known of a run."""

    records: list[StageRecord]
    """In the order in which the stages started, without the one that runs this."""
    faults: list[str] = field(default_factory=list)
    """What could not be read, one line each."""


def on_this_machine(root: Path, run_name: str) -> Known:
    """Reads the records that a local run keeps."""
    records, faults = [], []
    for file in record_files(root, run_name):
        try:
            records.append(read_record(file))
        except InputError as error:
            faults.append(str(error))
    return Known(_others(records), faults)


def on_the_cluster(run_id: str) -> Known:
    """Asks the API of the Kubeflow Pipelines that this pod is a part of."""
    try:
        if not run_id:
            raise InputError("the pipeline does not pass `run_id`")
        api = PipelinesApi.of_this_pod()
        manifest = _manifest(api, run_id)
        steps = {task: step for task, step in read_steps(manifest).items() if step.stage != OWN}
        records = [_with_outputs(api, run_id, step) for step in steps.values()]
        skipped = [task for task in planned_tasks(manifest) if task not in steps]
        records = with_cause(records, find_cause(api, run_id, steps))
        records += [StageRecord(task=task, stage=stage_of(task), state="skipped") for task in skipped]
        return Known(_others(records))
    except (LockgateError, ValueError, LookupError, TypeError, AttributeError) as error:
        # What answers may be another version of the API, or something else.
        said = error if isinstance(error, LockgateError) else f"what the API answers is not understood: {error!r}"
        return Known([], [f"The stages are not shown here, but where the run is: {said}"])


def _others(records: list[StageRecord]) -> list[StageRecord]:
    return in_order([record for record in records if record.stage != OWN])


def _manifest(api: PipelinesApi, run_id: str) -> str:
    """Reads the workflow once it knows of this very stage, which starts after all others have ended."""
    end = time.monotonic() + _LAG_SECONDS
    while True:
        # Only the old API hands out the workflow.
        run = api.get(f"/apis/v1beta1/runs/{quote(run_id, safe='')}")
        manifest = str(run["pipeline_runtime"]["workflow_manifest"])
        if any(step.stage == OWN for step in read_steps(manifest).values()) or time.monotonic() > end:
            return manifest
        time.sleep(1.0)


def _with_outputs(api: PipelinesApi, run_id: str, step: Step) -> StageRecord:
    """Adds what the stage's launcher printed: the API does not hand out metadata or output parameters."""
    record = step.record()
    if step.stage not in _TELL or step.state != "succeeded":
        return record
    try:
        log = read_log(api, run_id, step.pod)
    except LockgateError:
        return record
    return record.model_copy(update={"parameters": record.parameters | outputs_in(log), "artifacts": artifacts_in(log)})
