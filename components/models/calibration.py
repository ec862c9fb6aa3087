"""Calibrating a fitted model's probabilities, and choosing from which probability on a row counts as positive.

Both look at rows that the model did not learn from. A calibrator maps logits to logits, so that the order of the rows
stays the same and a probability is never exactly 0 or 1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize
import scipy.special
import tensorflow as tf
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, precision_recall_curve

from components.alert_budgets import alerts_of
from components.errors import DataRejectedError, InputError
from components.features import Label
from components.models.examples import Matrix
from components.settings import AlertBudget, Decision

_MOST_KNOTS = 200
_NO_PENALTY = 1e6


class Calibrator(tf.Module):  # type: ignore[misc]
    """Maps the logits of a model to calibrated ones, [rows, outputs]: piecewise linear, straight on beyond the ends."""

    def __init__(self, knots: Matrix, values: Matrix) -> None:
        """Args: knots, values: float [n], rising; where the lines meet."""
        super().__init__()
        self._knots = tf.constant(knots, tf.float32)
        self._values = tf.constant(values, tf.float32)

    def __call__(self, logits: Any) -> Any:
        """Calibrates, inside a graph."""
        flat = tf.reshape(logits, [-1])
        right = tf.clip_by_value(tf.searchsorted(self._knots, flat), 1, tf.size(self._knots) - 1)
        low, high = (tf.gather(self._knots, index) for index in (right - 1, right))
        start, end = (tf.gather(self._values, index) for index in (right - 1, right))
        calibrated = start + (flat - low) * tf.math.divide_no_nan(end - start, high - low)
        return tf.reshape(calibrated, tf.shape(logits))

    @property
    def weights(self) -> list[Matrix]:
        """All that decides its answers."""
        return [self._knots.numpy(), self._values.numpy()]


@dataclass(frozen=True)
class Reliability:
    """How far probabilities can be trusted, on the rows that the calibrator learned from."""

    rows: int
    before: float
    """Log loss as the model gives it."""
    after: float


def calibrate(method: str, label: Label, logits: Matrix, labels: Matrix) -> tuple[Calibrator, Reliability]:
    """Fits a calibrator.

    Sources: sigmoid, binary: Platt, Probabilistic Outputs for Support Vector Machines, 1999. sigmoid, multiclass:
    temperature scaling; Guo, Pleiss, Sun, Weinberger, On Calibration of Modern Neural Networks, ICML 2017. isotonic:
    Zadrozny, Elkan, Transforming Classifier Scores into Accurate Multiclass Probability Estimates, KDD 2002.

    Args:
        method: sigmoid or isotonic.
        label: binary or multiclass.
        logits: float [rows, outputs], of rows that the model did not learn from.
        labels: [rows], as in Examples.

    Raises:
        InputError: a regression has no probabilities; isotonic with more than two classes.
        DataRejectedError: the rows have one class only.
    """
    if label.kind == "regression":
        raise InputError("training.calibration is for probabilities, and a regression has none; set it to none")
    if label.kind == "multiclass" and method == "isotonic":
        raise InputError("training.calibration is isotonic, which is for two classes; set it to sigmoid")
    if (labels == labels[0]).all():
        raise DataRejectedError(
            f"all {len(labels):,} rows held out for calibration have the label '{label.classes[int(labels[0])]}' "
            "(needed: two classes); raise training.validation_fraction, or set training.calibration to none"
        )
    if label.kind == "multiclass":
        knots, values = _temperature(logits, labels)
    elif method == "sigmoid":
        knots, values = _sigmoid(logits[:, 0], labels)
    else:
        knots, values = _isotonic(logits[:, 0], labels)
    calibrator = Calibrator(knots, values)
    after = calibrator(tf.constant(logits)).numpy()
    return calibrator, Reliability(len(labels), _loss(label, logits, labels), _loss(label, after, labels))


def probabilities_of(label: Label, logits: Matrix) -> Matrix:
    """Turns logits into probabilities: [rows] of the positive class, or [rows, classes]."""
    result: Matrix = (
        scipy.special.expit(logits[:, 0]) if label.kind == "binary" else scipy.special.softmax(logits, axis=1)
    )
    return result


def choose_threshold(decision: Decision, probabilities: Matrix, labels: Matrix) -> float:
    """Chooses from which probability on a row counts as positive.

    Args:
        decision: section `training.decision`.
        probabilities: float [rows], of the positive class, of rows that the model did not learn from.
        labels: [rows], 1 is positive.

    Returns:
        float32's value, strictly between 0 and 1.

    Raises:
        DataRejectedError: no threshold reaches the target, or keeps to the budget.
    """
    if decision.by == "alert_budget":
        return _threshold_of_budget(decision, probabilities)
    if not decision.looks_at_labels:
        return decision.threshold
    if not len(labels):
        raise DataRejectedError(
            f"training.decision.by is {decision.by}, and no row of the train split has a label; supply some, or set it "
            "to contamination"
        )
    if not labels.any() or labels.all():
        raise DataRejectedError(
            f"all {len(labels):,} rows held out to choose the threshold have one label (needed: two); raise "
            "training.validation_fraction, or give training.decision.threshold"
        )
    precision, recall, thresholds = precision_recall_curve(labels, probabilities)
    precision, recall = precision[:-1], recall[:-1]
    positives = labels.sum()
    hits = recall * positives
    false_alarms = hits * (1 / np.maximum(precision, 1e-12) - 1)
    if decision.by == "max_f1":
        best = int((2 * hits / np.maximum(2 * hits + false_alarms + (positives - hits), 1e-12)).argmax())
    elif decision.by == "cost":
        cost = decision.false_positive_cost * false_alarms + decision.false_negative_cost * (positives - hits)
        best = int(cost.argmin())
    else:
        assert decision.target is not None  # the settings say so
        reached = precision >= decision.target if decision.by == "precision" else recall >= decision.target
        if not reached.any():
            best_value = (precision if decision.by == "precision" else recall).max()
            raise DataRejectedError(
                f"no threshold reaches {decision.by} {decision.target:g} on the {len(labels):,} rows held out (best: "
                f"{best_value:.3f}); lower training.decision.target"
            )
        # Of those that reach it: most recall for a precision, most precision for a recall.
        best = int(np.flatnonzero(reached)[0 if decision.by == "precision" else -1])
    return float(np.clip(thresholds[best], 1e-6, 1 - 1e-6))


def _threshold_of_budget(decision: Decision, probabilities: Matrix) -> float:
    """Gives the lowest threshold that no more rows reach than there are alerts for."""
    assert decision.alerts_per_1000_rows is not None  # the settings say so
    budget = AlertBudget(alerts=decision.alerts_per_1000_rows)
    most = int(alerts_of(np.array(len(probabilities)), budget))
    values, counts = np.unique(probabilities, return_counts=True)
    kept = values[np.cumsum(counts[::-1])[::-1] <= most]
    if not len(kept):
        raise DataRejectedError(
            f"{counts[-1]:,} of {len(probabilities):,} rows held out share the highest probability (needed: {most:,} "
            f"at most, {budget.described}); raise training.decision.alerts_per_1000_rows, or add features that tell "
            "rows apart"
        )
    return float(np.clip(kept[0], 1e-6, 1 - 1e-6))


def _sigmoid(logits: Matrix, labels: Matrix) -> tuple[Matrix, Matrix]:
    model = LogisticRegression(C=_NO_PENALTY).fit(logits[:, None], labels)
    slope = max(float(model.coef_[0, 0]), 1e-3)  # a falling one would turn the model's order round
    knots = np.array([-1.0, 1.0])
    return knots, slope * knots + float(model.intercept_[0])


def _temperature(logits: Matrix, labels: Matrix) -> tuple[Matrix, Matrix]:
    rows = np.arange(len(labels))

    def loss(log_scale: float) -> float:
        scaled = logits * np.exp(log_scale)
        return float(np.mean(scipy.special.logsumexp(scaled, axis=1) - scaled[rows, labels.astype(np.int64)]))

    scale = float(np.exp(scipy.optimize.minimize_scalar(loss, bounds=(-4, 4), method="bounded").x))
    knots = np.array([-1.0, 1.0])
    return knots, scale * knots


def _isotonic(logits: Matrix, labels: Matrix) -> tuple[Matrix, Matrix]:
    fitted = IsotonicRegression(out_of_bounds="clip").fit(logits, labels)
    knots, shares = fitted.X_thresholds_, fitted.y_thresholds_
    if len(knots) > _MOST_KNOTS:
        chosen = np.unique(np.linspace(0, len(knots) - 1, _MOST_KNOTS).round().astype(int))
        knots, shares = knots[chosen], shares[chosen]
    # As if one more row of each class had been seen: no probability is 0 or 1.
    edge = 1 / (len(labels) + 2)
    values = scipy.special.logit(np.clip(shares, edge, 1 - edge))
    # Flat beyond the ends.
    margin = 1.0
    return (
        np.concatenate([[knots[0] - margin], knots, [knots[-1] + margin]]),
        np.concatenate([values[:1], values, values[-1:]]),
    )


def _loss(label: Label, logits: Matrix, labels: Matrix) -> float:
    probabilities = probabilities_of(label, logits)
    return float(log_loss(labels, probabilities, labels=list(range(len(label.classes)))))
