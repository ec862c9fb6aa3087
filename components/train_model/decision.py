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


@dataclass(frozen=True)
class Decided:
    """Of a model, on the rows held out."""

    calibrator: Calibrator | None = None
    reliability: Reliability | None = None
    """None: not calibrated."""
    threshold: float | None = None
    """None: the label is not binary."""
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
        float(precision_score(labels, positive, zero_division=0)),
        float(recall_score(labels, positive, zero_division=0)),
        _reliability_bins(probabilities, labels),
    )


def _reliability_bins(probabilities: Matrix, labels: Matrix) -> list[tuple[float, float, int]]:
    groups = np.array_split(np.argsort(probabilities, kind="stable"), min(_BINS, len(labels)))
    return [(float(probabilities[rows].mean()), float(labels[rows].mean()), len(rows)) for rows in groups]
