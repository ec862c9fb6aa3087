"""Says in one line why a model passes or not."""

from collections.abc import Sequence

from components.evaluate_model.checks import figure, with_interval
from components.evaluate_model.metrics import GAIN_METRIC, Values
from components.evaluation_result import Check, Estimates
from components.predictions import LEAD_METRIC
from components.settings import Task

_SHOWN = 3
_NEXT_STEP = {
    "threshold": "improve the features or the model, or change evaluation.thresholds in pipeline.yaml",
    "slices": "improve the features for these rows, or change evaluation.slice_thresholds in pipeline.yaml",
    "baseline": "add features that tell about the label, or train longer",
    "production": "keep the model in production, or raise evaluation.production.tolerance in pipeline.yaml",
}


def reason(task: Task, checks: Sequence[Check], metrics: Estimates, baseline: Values) -> str:
    """Writes the main metrics of a model that passed, or what failed and the next step."""
    failed = [check for check in checks if not check.ok]
    if not failed:
        return f"{_main_metrics(task, metrics, baseline)}; {len(checks)} of {len(checks)} checks passed"
    texts = [_failure(check, metrics) for check in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        texts.append(f"{len(failed) - _SHOWN} more checks failed")
    step = next((_NEXT_STEP[check.kind] for check in failed if check.kind in _NEXT_STEP), "")
    # The detail of a data check holds its own next step, and makes the others' pointless.
    return "; ".join([*texts, step] if step and failed[0].kind != "data" else texts)


def _main_metrics(task: Task, metrics: Estimates, baseline: Values) -> str:
    lead, gain = LEAD_METRIC[task.type], GAIN_METRIC[task.type]
    trivial = f"(trivial {figure(baseline[gain])})"
    if lead == gain:
        return f"{with_interval(lead, metrics)} {trivial}"
    return f"{with_interval(lead, metrics)}, {gain} {figure(metrics[gain].value)} {trivial}"


def _failure(check: Check, metrics: Estimates) -> str:
    match check.kind:
        case "threshold":
            return f"{with_interval(check.metric, metrics)} (needed: {check.bound})"
        case "slices":
            return f"{check.metric} of {check.detail} (needed: {check.bound})"
        case "baseline":
            return f"{check.metric} {check.detail}: gain {figure(check.value)} (needed: {check.bound})"
        case "production":
            return f"{check.metric} {check.detail}: gain {figure(check.value)} (needed: {check.bound})"
        case _:
            return f"{check.name}: {check.detail}"
