"""What the pods of a run printed, and what it says about a failure."""

import base64
import json
import re
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from components.errors import DataRejectedError, InputError, LockgateError, UnavailableError
from components.run_records import ArtifactRecord, StageRecord
from components.workflow import Step, first_failed

_CLASSES = {error.label: error for error in (InputError, DataRejectedError, UnavailableError)}
_CAUSE = re.compile(rf"[\w ]+: ({'|'.join(_CLASSES)}): .*")
# Lines of KFP's launcher and executor, and of Argo: not what the stage printed.
_NOISE = re.compile(
    r'[IWEF]\d{4} \d\d:|time=|\[KFP|\{|\}|"|\]|main: |Error: exit status|exit status|WARNING: All log messages'
)
_STATUS = re.compile(r"failed to execute component: exit status (\d+)")
# The launcher cuts what it prints after 15,000 bytes; parameters come first.
_PARAMETERS = re.compile(r'ExecutorOutput: \{\s*"parameterValues":\s*(?=\{)')
_OUTPUT = re.compile(r"ExecutorOutput: (\{.*?^\})", re.DOTALL | re.MULTILINE)
_FAULT = re.compile(r'\{"error_message":.*\Z', re.DOTALL)
_INTERRUPTED = {
    ("OOMKilled", "exit code 137"): "out of memory? raise {profile}.memory_limit",
    ("active on the node longer than",): "raise {profile}.timeout_seconds",
    ("exceeded its deadline",): "the run took too long or waited for a node; raise cluster.timeout_seconds",
    ("deleted", "evicted", "Evicted", "exit code 143", "node "): "start the same run again",
}
"""What to do when a stage was ended from outside, by words of Argo's message."""


class Api(Protocol):
    """What reads from the API of Kubeflow Pipelines."""

    def get(self, path: str) -> dict[str, Any]:
        """Reads an object."""

    def text(self, path: str) -> str:
        """Reads what is not JSON."""


@dataclass(frozen=True)
class Cause:
    """Why a run failed."""

    task: str
    text: str
    exit_code: int
    tail: list[str]
    """The last lines of the stage's own."""


def read_log(api: Api, run_id: str, pod: str) -> str:
    """Reads what a pod printed: of the pod itself, or, when it is gone, of the archive.

    Raises:
        InputError: there is neither, or the API refuses.
        UnavailableError: no answer.
    """
    path = f"{quote(run_id, safe='')}/nodes/{quote(pod, safe='')}"
    text = api.text(f"/apis/v1alpha1/runs/{path}/log")
    # The API has said 200 before it finds that there is no log.
    fault = _FAULT.search(text)
    if fault is None:
        return text
    if text[: fault.start()].strip():
        return text[: fault.start()]
    archived = api.get(f"/apis/v2beta1/runs/{path}/artifacts/main-logs:read")
    return base64.b64decode(archived.get("data", "")).decode("utf-8", "replace")


def own_lines(log: str) -> list[str]:
    """Leaves out what KFP and Argo printed."""
    lines, in_json = [], False
    for line in map(str.rstrip, log.splitlines()):
        is_noise = bool(_NOISE.match(line.lstrip()))
        if line == "{" or (is_noise and line.endswith("{")):
            in_json = True
        elif line == "}":
            in_json = False
        elif line.strip() and not is_noise and not (in_json and line.startswith(" ")):
            lines.append(line)
    return lines


def outputs_in(log: str) -> dict[str, Any]:
    """Finds the output parameters that a stage's launcher printed: the API does not hand them out."""
    begins = list(_PARAMETERS.finditer(log))
    try:
        found, _ = json.JSONDecoder().raw_decode(log, begins[-1].end())
    except (IndexError, ValueError):
        return {}
    return dict(found)


def artifacts_in(log: str) -> dict[str, ArtifactRecord]:
    """Finds the output artifacts that a stage's launcher printed, with their metadata."""
    try:
        found = {name: artifacts["artifacts"][0] for name, artifacts in _printed(log)["artifacts"].items()}
        return {
            name: ArtifactRecord(uri=artifact["uri"], metadata=artifact.get("metadata", {}))
            for name, artifact in found.items()
        }
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        return {}


def _printed(log: str) -> dict[str, Any]:
    """Finds the last outputs that a launcher printed; a log may be cut off, or hold anything."""
    found = _OUTPUT.findall(log)
    try:
        outputs = json.loads(found[-1]) if found else {}
    except ValueError:
        return {}
    return outputs if isinstance(outputs, dict) else {}


def cause_of(step: Step, log: str, tail: int = 20) -> Cause:
    """Finds why a stage failed, and of which class that is."""
    lines = own_lines(log)
    said = next((line for line in reversed(lines) if _CAUSE.fullmatch(line)), None)
    if said:
        label = _CAUSE.fullmatch(said)[1]  # type: ignore[index]
        return Cause(step.task, said, _CLASSES[label].exit_code, lines[-tail:])
    for words, advice in _INTERRUPTED.items():
        if any(word in step.message for word in words):
            text = f"{step.message}; {advice.format(profile=f'cluster.stages.{step.stage}')}"
            return Cause(step.task, text, UnavailableError.exit_code, lines[-tail:])
    # The launcher ends with 1 whatever the stage ended with.
    status = _STATUS.findall(log)
    code = int(status[-1]) if status else LockgateError.exit_code
    known = code in {error.exit_code for error in _CLASSES.values()}
    message = f"exit status {code}" if status else step.message
    text = "; ".join(part for part in (lines[-1] if lines else "", message) if part)
    return Cause(step.task, text or "it said nothing", code if known else LockgateError.exit_code, lines[-tail:])


def find_cause(api: Api, run_id: str, steps: dict[str, Step]) -> Cause | None:
    """Finds why a run failed: the reason of the stage that failed first."""
    first = first_failed(steps)
    return explain(api, run_id, first) if first else None


def explain(api: Api, run_id: str, step: Step) -> Cause:
    """Finds why a stage failed; what Argo says where its log cannot be read."""
    try:
        log = read_log(api, run_id, step.pod)
    except LockgateError:
        log = ""
    return cause_of(step, log)


def with_cause(records: list[StageRecord], cause: Cause | None) -> list[StageRecord]:
    """Puts the cause into the record of its stage."""
    return [
        record.model_copy(update={"error": cause.text, "exit_code": cause.exit_code})
        if cause and record.task == cause.task
        else record
        for record in records
    ]
