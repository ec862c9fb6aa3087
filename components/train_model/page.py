"""The report: one page with learning curves, settings and inputs."""

from pathlib import Path
from typing import Any

from components.artifacts import write_whole
from components.features import FeatureSpec
from components.models.contract import Fit, FittedModel
from components.reports import render
from components.settings import CustomModel, Decision, Model, Training
from components.train_model.decision import Decided

_MAX_CLASSES = 50
_AT_ONCE = {"isolation_forest": "Mean score", "k_means": "Mean squared distance to the centre"}
"""By kind of model that learns in one step, what its loss is."""


def write_page(
    path: Path,
    result: dict[str, float],
    fitted: FittedModel,
    decided: Decided,
    spec: FeatureSpec,
    class_counts: list[tuple[str, int]],
    model: Model,
    training: Training,
) -> None:
    """Writes the page; a reader sees all of it or none.

    Args:
        path: of the page.
        result: what train returns.
        fitted: the model, which knows how fitting went.
        decided: calibration and threshold.
        spec: the features and the label.
        class_counts: train rows of each class, the most frequent first.
        model: section `model` of pipeline.yaml.
        training: section `training` of pipeline.yaml.
    """
    fit = fitted.fit
    series = _series(fit)
    heights = [loss for one in series for _, loss in one["points"]]
    page = render(
        Path(__file__).with_name("report.html.jinja"),
        result=result,
        series=series,
        epochs=fit.epochs,
        best=fit.best,
        unit=fit.unit,
        knows_held_out=fitted.knows_held_out,
        decided=decided,
        decided_by=_decided_by(training.decision, spec),
        judged_on="on the rows held out" if result["validation_rows"] else "on rows learned from, not on their labels",
        at_once=_AT_ONCE.get(model.kind, ""),
        reliability=_reliability(decided),
        losses=(min(heights), max(heights)),
        features=spec.features,
        label=spec.label,
        classes=class_counts[:_MAX_CLASSES],
        more_classes=max(0, len(class_counts) - _MAX_CLASSES),
        rows=sum(count for _, count in class_counts),
        kind=model.kind,
        model=model.options if isinstance(model, CustomModel) else _settings(model),
        training=_settings(training),
    )
    write_whole(path, page)


def _decided_by(decision: Decision, spec: FeatureSpec) -> str:
    if spec.label.kind == "anomaly_detection" and not (decision.by == "threshold" or decision.looks_at_labels):
        return f"contamination, {100 * decision.contamination:g} % of rows"
    if decision.by == "alert_budget":
        return f"alert_budget, {decision.alerts_per_1000_rows:g} of 1,000 rows"
    return decision.by or "threshold"


def _series(fit: Fit) -> list[dict[str, Any]]:
    fitted = {"name": "rows learned from", "points": [[epoch.number, epoch.loss] for epoch in fit.epochs]}
    held_out = [[epoch.number, epoch.validation_loss] for epoch in fit.epochs if epoch.validation_loss is not None]
    return [fitted, {"name": "rows held out", "points": held_out}] if held_out else [fitted]


def _reliability(decided: Decided) -> list[dict[str, Any]]:
    points = [[mean, share] for mean, share, _ in decided.bins or []]
    return [{"name": "rows held out", "points": points}] if points else []


def _settings(section: Any) -> dict[str, Any]:
    """Flattens a section to dotted names; `null` where a setting is switched off."""
    flat: dict[str, Any] = {}
    for name, value in section.model_dump(exclude={"kind"}).items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": leaf for inner, leaf in value.items()}
        else:
            flat[name] = "null" if value is None else value
    return flat
