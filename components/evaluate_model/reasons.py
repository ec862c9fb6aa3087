"""Says in one line why a model passes or not."""

from collections.abc import Sequence

from components.evaluate_model.checks import figure, with_interval
from components.evaluate_model.metrics import Values
from components.evaluation_result import Check, Estimates
from components.settings import Task, gain_metric, lead_metric

_SHOWN = 3
_AT_BUDGET = "precision_at_budget"
_NEXT_STEP = {
    "threshold": "improve the features or the model, or change evaluation.thresholds in pipeline.yaml",
    "slices": "improve the features for these rows, or change evaluation.slice_thresholds in pipeline.yaml",
    "baseline": "add features that tell about the label, or train longer",
    "stability": "look for a change in the data or the model, or change evaluation.max_flagged_shift or "
    "evaluation.production.min_rank_agreement in pipeline.yaml",
    "production": "keep the model in production, or raise evaluation.production.tolerance in pipeline.yaml",
}

_UNSUPERVISED_STEP = {"baseline": "choose other features, or other hyperparameters of the model"}


def reason(task: Task, checks: Sequence[Check], metrics: Estimates, baseline: Values) -> str:
    """Writes the main metrics of a model that passed, or what failed and the next step."""
    failed = [check for check in checks if not check.ok]
    if not failed:
        return f"{_main_metrics(task, metrics, baseline)}; {len(checks)} of {len(checks)} checks passed"
    texts = [_failure(check, metrics) for check in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        texts.append(f"{len(failed) - _SHOWN} more checks failed")
    steps = _NEXT_STEP | (_UNSUPERVISED_STEP if task.is_unsupervised else {})
    step = next((steps[check.kind] for check in failed if check.kind in steps), "")
    # The detail of a data check holds its own next step, and makes the others' pointless.
    return "; ".join([*texts, step] if step and failed[0].kind != "data" else texts)


def _main_metrics(task: Task, metrics: Estimates, baseline: Values) -> str:
    lead, gain = lead_metric(task), gain_metric(task)
    if task.type == "anomaly_detection" and not task.label:
        return f"{with_interval('flagged', metrics)}, {with_interval('score_shift', metrics)}"
    trivial = f"(trivial {figure(baseline[gain])})"
    at_budget = f", {with_interval(_AT_BUDGET, metrics)}" if _AT_BUDGET in metrics else ""
    if lead == gain:
        return f"{with_interval(lead, metrics)} {trivial}{at_budget}"
    return f"{with_interval(lead, metrics)}, {gain} {figure(metrics[gain].value)} {trivial}{at_budget}"


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
