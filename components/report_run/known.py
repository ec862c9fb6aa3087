"""What is known of a run's stages: from its records on this machine, or from the API of Kubeflow Pipelines."""

import json
import os
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from components.errors import InputError, LockgateError, UnavailableError
from components.run_records import StageRecord, in_order, read_record, record_files
from components.stage_logs import artifacts_in, find_cause, outputs_in, read_log, with_cause
from components.workflow import Step, planned_tasks, read_steps, stage_of

OWN = "report_run"
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
SERVICE = "ml-pipeline"
SHARED_NAMESPACE = "kubeflow"
"""Of the API where each team has a namespace of its own."""
TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
_PORT = 8888
_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 10.0
_ALL_SECONDS = 60.0
"""For all requests together: a page without the stages is better than a stage that hangs."""
_LAG_SECONDS = 10.0
"""How long the API's copy of the workflow may lag behind what has happened."""
_LARGEST = 64 * 2**20
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
        api = Api.of_this_pod()
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


def _manifest(api: "Api", run_id: str) -> str:
    """Reads the workflow once it knows of this very stage, which starts after all others have ended."""
    end = time.monotonic() + _LAG_SECONDS
    while True:
        # Only the old API hands out the workflow.
        run = api.get(f"/apis/v1beta1/runs/{quote(run_id, safe='')}")
        manifest = str(run["pipeline_runtime"]["workflow_manifest"])
        if any(step.stage == OWN for step in read_steps(manifest).values()) or time.monotonic() > end:
            return manifest
        time.sleep(1.0)


def _with_outputs(api: "Api", run_id: str, step: Step) -> StageRecord:
    """Adds what the stage's launcher printed: the API does not hand out metadata or output parameters."""
    record = step.record()
    if step.stage not in _TELL or step.state != "succeeded":
        return record
    try:
        log = read_log(api, run_id, step.pod)
    except LockgateError:
        return record
    return record.model_copy(update={"parameters": record.parameters | outputs_in(log), "artifacts": artifacts_in(log)})


class Api:
    """Reads from the API of Kubeflow Pipelines; gives up after a minute in all.

    Every method raises:
        InputError: the API refuses.
        UnavailableError: no answer, or not the API's.
    """

    def __init__(self, host: str, token: str = "") -> None:
        """Asks nothing yet.

        Args:
            host: URL before /apis.
            token: of a service account; empty: none.
        """
        import httpx2

        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = httpx2.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS)
        self._host = host
        self._end = time.monotonic() + _ALL_SECONDS
        # Without any proxy: it is in the same cluster.
        self._client = httpx2.Client(base_url=host, headers=headers, timeout=timeout, trust_env=False)

    @classmethod
    def of_this_pod(cls) -> "Api":
        """Finds the API, in the pod's namespace or Kubeflow's, and a token where the pod has one for it.

        Raises:
            UnavailableError: this is no pod of Kubernetes.
        """
        try:
            namespace = NAMESPACE.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise UnavailableError("this is no pod with a service account") from error
        path = Path(os.environ.get("KF_PIPELINES_SA_TOKEN_PATH", TOKEN))
        try:
            token = path.read_text(encoding="utf-8").strip()
        except OSError:
            token = ""
        host = f"{SERVICE}.{namespace if _is_known(f'{SERVICE}.{namespace}') else SHARED_NAMESPACE}"
        return cls(f"http://{host}:{_PORT}", token)

    def get(self, path: str) -> dict[str, Any]:
        """Reads an object."""
        try:
            found = json.loads(self._read(path))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise UnavailableError(f"what answers at {self._host} is not the API of Kubeflow Pipelines")
        return found

    def text(self, path: str) -> str:
        """Reads what is not JSON."""
        return self._read(path).decode("utf-8", "replace")

    def _read(self, path: str) -> bytes:
        import httpx2

        content = bytearray()
        if time.monotonic() > self._end:
            raise UnavailableError(f"{self._host} takes too long to answer")
        try:
            with self._client.stream("GET", path) as answer:
                for chunk in answer.iter_bytes():
                    content += chunk
                    if time.monotonic() > self._end or len(content) > _LARGEST:
                        raise UnavailableError(f"{self._host} takes too long to answer")
        except httpx2.HTTPError as error:
            raise UnavailableError(f"{self._host} does not answer: {error or type(error).__name__}") from error
        if answer.is_success:
            return bytes(content)
        refused = InputError if answer.status_code in (401, 403, 404) else UnavailableError
        raise refused(f"{self._host} answers {answer.status_code} {answer.reason_phrase}")


def _is_known(host: str) -> bool:
    try:
        socket.getaddrinfo(host, _PORT)
    except OSError:
        return False
    return True
