"""What a model's output means: its probabilities calibrated, its threshold chosen, on the rows held out."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from sklearn.metrics import precision_score, recall_score

from components.models.calibration import Calibrator, Reliability, calibrate, choose_threshold, probabilities_of
from components.models.contract import FittedModel, Problem
from components.models.examples import Matrix
from components.models.outputs import graph_of, outputs_of

_BINS = 10
_QUANTILES = 101
_FEWEST = 5
"""Anomalies expected among the rows held out: with fewer, chance decides the threshold."""
_LARGEST = float(np.nextafter(np.float32(1), np.float32(0)))


@dataclass(frozen=True)
class Decided:
    """Of a model, on the rows held out."""

    calibrator: Calibrator | None = None
    reliability: Reliability | None = None
    """None: not calibrated."""
    threshold: float | None = None
    """None: the label is neither binary nor that of an anomaly detection."""
    score_quantiles: list[float] | None = None
    """anomaly_detection: see ModelSpec; None: there are no scores."""
    precision: float | None = None
    """At the threshold; None: no row was held out."""
    recall: float | None = None
    bins: list[tuple[float, float, int]] | None = None
    """Binary: mean probability, share of positives and rows of ten groups of equal size, as exported."""


def decide(fitted: FittedModel, problem: Problem) -> Decided:
    """Calibrates the model and chooses its threshold, as section `training` says.

    Raises:
        InputError: the calibration does not fit the label.
        DataRejectedError: the rows held out do not do for it.
    """
    training, label = problem.training, problem.label
    if label.kind == "anomaly_detection":
        return _decide_anomalies(fitted, problem)
    if label.kind == "clustering":
        return Decided()
    is_binary = label.kind == "binary"
    if not len(problem.held_out) or fitted.knows_held_out:
        return Decided(threshold=training.decision.threshold if is_binary else None)
    if training.calibration == "none" and not is_binary:
        return Decided()
    labels = problem.examples.labels[problem.held_out]
    logits = outputs_of(graph_of(fitted, problem.packing), problem.examples, problem.held_out)
    calibrator, reliability = None, None
    if training.calibration != "none":
        calibrator, reliability = calibrate(training.calibration, label, logits, labels)
        logits = calibrator(tf.constant(logits)).numpy()
    if not is_binary:
        return Decided(calibrator, reliability)
    # The graph computes in float32, and so does whoever compares with the threshold.
    probabilities = probabilities_of(label, logits).astype(np.float32)
    threshold = choose_threshold(training.decision, probabilities, labels)
    positive = probabilities >= np.float32(threshold)
    return Decided(
        calibrator,
        reliability,
        threshold,
        precision=float(precision_score(labels, positive, zero_division=0)),
        recall=float(recall_score(labels, positive, zero_division=0)),
        bins=_reliability_bins(probabilities, labels),
    )


def _decide_anomalies(fitted: FittedModel, problem: Problem) -> Decided:
    """Chooses the threshold of scores: by rows held out, if there are enough; else by all, as labels are not learned.

    Raises:
        DataRejectedError: no labels are known where they decide, or no threshold does.
    """
    decision, labels = problem.training.decision, problem.examples.labels
    predict = graph_of(fitted, problem.packing)
    every = np.sort(np.concatenate([problem.learned, problem.held_out]))
    scores = outputs_of(predict, problem.examples, every)[:, 0]
    held_out = np.isin(every, problem.held_out)
    tells = not fitted.knows_held_out and held_out.sum() * decision.contamination >= _FEWEST
    own = scores[held_out] if tells else scores
    quantiles = np.quantile(own, np.linspace(0, 1, _QUANTILES)).astype(np.float64).tolist()
    if decision.by == "threshold":
        return Decided(threshold=decision.threshold, score_quantiles=quantiles)
    if not decision.looks_at_labels:
        # From the next score on, so that rows at the quantile itself, often many, are not flagged.
        limit = np.float32(np.quantile(own, 1 - decision.contamination, method="lower"))
        threshold = float(np.nextafter(limit, np.float32(1)))
        return Decided(threshold=min(threshold, _LARGEST), score_quantiles=quantiles)
    known = ~np.isnan(labels[every])
    if not fitted.knows_held_out and (known & held_out).any():
        known &= held_out
    threshold = choose_threshold(decision, scores[known], labels[every][known])
    flagged, truth = scores[known] >= np.float32(threshold), labels[every][known]
    return Decided(
        threshold=threshold,
        precision=float(precision_score(truth, flagged, zero_division=0)),
        recall=float(recall_score(truth, flagged, zero_division=0)),
        score_quantiles=quantiles,
    )


def _reliability_bins(probabilities: Matrix, labels: Matrix) -> list[tuple[float, float, int]]:
    groups = np.array_split(np.argsort(probabilities, kind="stable"), min(_BINS, len(labels)))
    return [(float(probabilities[rows].mean()), float(labels[rows].mean()), len(rows)) for rows in groups]
