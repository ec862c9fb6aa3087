"""How a run ended, for people, scripts and pull requests."""

from dataclasses import dataclass
from typing import Any

from components.errors import LockgateError, UnavailableError
from components.run_records import StageRecord
from components.stage_logs import Cause, find_cause, outputs_in, read_log, with_cause
from pipelines.kubeflow.api import Api
from pipelines.kubeflow.pod_logs import WithPods
from pipelines.kubeflow.runs import Run, summary_of
from pipelines.kubeflow.watching import Seen

_PUBLISHES, _WRITES = "publish_model", "write_predictions"
_MARKS = {"succeeded": "✅", "cached": "✅", "failed": "❌", "skipped": "➖", "running": "⏳"}


@dataclass(frozen=True)
class Outcome:
    """A run as it stands or ended, with its cause where it failed."""

    run: Run
    labels: dict[str, str]
    records: list[StageRecord]
    cause: Cause | None
    waiting: dict[str, str]
    """Why pods wait, by task."""

    @property
    def verdict(self) -> str:
        """PASSED, FAILED, CANCELED, or the state of a run that is not over."""
        return {"SUCCEEDED": "PASSED"}.get(self.run.state, self.run.state)

    @property
    def text(self) -> str:
        """Why it did not pass, or will not; empty: it did, or it may."""
        if self.run.state == "CANCELED":
            return "somebody stopped it"
        if self.cause:
            return self.cause.text
        return self.run.error or "no stage failed; see the run in Kubeflow" if self.run.state == "FAILED" else ""

    @property
    def exit_code(self) -> int:
        """That of the local command line."""
        match self.run.state:
            case "FAILED":
                return self.cause.exit_code if self.cause else LockgateError.exit_code
            case "CANCELED":
                return UnavailableError.exit_code
        return 0

    @property
    def model(self) -> str:
        """URI of the model that was published; empty: none, or nobody knows any more."""
        return self._output(_PUBLISHES, "uri")

    @property
    def registries(self) -> str:
        """Which model registries were told of it, or why not; empty: none is configured, or nobody knows any more."""
        return self._output(_PUBLISHES, "registries")

    @property
    def predictions(self) -> str:
        """Where predictions were written; empty: nowhere, or nobody knows any more."""
        return self._output(_WRITES, "uri")

    def _output(self, stage: str, name: str) -> str:
        found = (str(r.parameters[name]) for r in self.records if r.stage == stage and r.parameters.get(name))
        return next(found, "")

    @property
    def reasons(self) -> dict[str, str]:
        """What the gates that let the run through were told, by their labels."""
        reasons = {self.labels.get(r.task, r.task): str(r.parameters.get("reason", "")) for r in self.records}
        return {label: reason for label, reason in reasons.items() if reason and reason not in self.text}


def outcome_of(api: Api, seen: Seen) -> Outcome:
    """Finds what a run's state means: the cause of a failure, the model that was published."""
    cause = find_cause(WithPods(api), seen.run.id, seen.steps) if seen.run.state != "CANCELED" else None
    records = [_with_outputs(api, seen, record) for record in with_cause(seen.records, cause)]
    return Outcome(seen.run, seen.labels, records, cause, seen.waiting())


def _with_outputs(api: Api, seen: Seen, record: StageRecord) -> StageRecord:
    if record.stage not in (_PUBLISHES, _WRITES) or record.state != "succeeded":
        return record
    try:
        outputs = outputs_in(read_log(WithPods(api), seen.run.id, seen.steps[record.task].pod))
    except LockgateError:
        return record
    return record.model_copy(update={"parameters": record.parameters | outputs})


def to_json(outcome: Outcome) -> dict[str, Any]:
    """What a script wants to know."""
    return {
        **summary_of(outcome.run),
        "verdict": outcome.verdict,
        "cause": outcome.text,
        "model": outcome.model,
        "registries": outcome.registries,
        "predictions": outcome.predictions,
        "exit_code": outcome.exit_code if outcome.run.is_over else None,
        "stages": [
            {
                "task": record.task,
                "label": outcome.labels.get(record.task, record.task),
                "state": record.state,
                "seconds": record.wall_seconds,
                "error": record.error,
                "waiting": outcome.waiting.get(record.task, ""),
                "parameters": record.parameters,
            }
            for record in outcome.records
        ],
    }


def to_markdown(outcome: Outcome) -> str:
    """Writes a summary for a pull request or a CI job."""
    lines = [f"## {outcome.verdict}: {outcome.run.name}", ""]
    if outcome.text:
        lines += [f"> {_escaped(outcome.text)}", ""]
    lines += [f"- **{label}**: {_escaped(reason)}" for label, reason in outcome.reasons.items()]
    lines += [f"- **model**: `{outcome.model}`"] if outcome.model else []
    lines += [f"- **registries**: {_escaped(outcome.registries)}"] if outcome.registries else []
    lines += [f"- **predictions**: `{outcome.predictions}`"] if outcome.predictions else []
    lines += [f"- **{name}**: {_escaped(value)}" for name, value in outcome.run.tags.items()]
    lines += [f"- **run**: `{outcome.run.id}`", "", "| | stage | time | |", "|---|---|---:|---|"]
    for record in outcome.records:
        seconds = f"{record.wall_seconds:.0f} s" if record.state in ("succeeded", "failed") else record.state
        label = outcome.labels.get(record.task, record.task)
        note = record.error or str(record.parameters.get("reason", ""))
        lines.append(f"| {_MARKS[record.state]} | {_escaped(label)} | {seconds} | {_escaped(note)} |")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
