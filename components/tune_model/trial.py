"""One trial: a candidate is fitted, and predicts the rows that it is compared on."""

import gc
import statistics
import time
import traceback
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.errors import LockgateError
from components.features import Label
from components.models.calibration import calibrate, probabilities_of
from components.models.contract import Epoch, Fit
from components.models.examples import Examples, Matrix
from components.models.kinds import kind_of
from components.models.outputs import graph_of, outputs_of, tensors_of
from components.tune_model.comparison import Comparison, Fold
from components.tune_model.records import Experiment, Step, Trial, TrialResult

_WARM_UP_CALLS, _TIMED_CALLS = 30, 300


class _Lagging(Exception):  # noqa: N818  (the usual end of a trial, not an error)
    """A trial is given up."""


def run_trial(experiment: Experiment, trial: Trial, comparison: Comparison) -> tuple[TrialResult, Matrix | None]:
    """Runs a trial; what goes wrong is in its result, so that others can go on.

    Returns:
        How it went, and what a complete one predicted of the rows compared on, fold by fold: float32 [rows, 1], the
        probability of the positive class, the value or the score, or [rows, classes or clusters].
    """
    started = time.monotonic()
    curves: list[list[Step]] = []
    try:
        return _complete(experiment, trial, comparison, curves)
    except _Lagging as lagging:
        return _ended(trial, "pruned", started, str(lagging), curves=curves), None
    except LockgateError as error:
        return _ended(trial, "failed", started, str(error), error=error.label), None
    except Exception as error:
        # Not foreseen: the trace says where, and the other candidates go on.
        traceback.print_exc()
        message = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return _ended(trial, "failed", started, message, error="error"), None
    finally:
        # What Keras and TensorFlow know of a model would otherwise stay for all further trials.
        keras.backend.clear_session()
        gc.collect()


def is_lagging(curve: list[Step], limits: dict[int, float]) -> bool:
    """Tells whether a trial falls behind at some step of its curve."""
    best = np.inf
    for step in curve:
        best = min(best, np.inf if step.validation_loss is None else step.validation_loss)
        if best > limits.get(step.number, np.inf):
            return True
    return False


def baseline(comparison: Comparison) -> Matrix:
    """Predicts, as run_trial does, by the same answer for every row: the mean, the classes' shares, or one cluster."""
    label = comparison.spec.label
    if not label.is_learned:
        return np.zeros((len(comparison.labels), 1), np.float32)
    parts = []
    for fold in comparison.folds:
        known = comparison.examples.labels[fold.known]
        answer = np.array([known.mean(dtype=np.float64)])
        if label.kind == "multiclass":
            answer = np.bincount(known, minlength=len(label.classes)) / len(known)
        parts.append(np.tile(answer.astype(np.float32), (len(fold.compared), 1)))
    return np.concatenate(parts)


def _complete(
    experiment: Experiment, trial: Trial, comparison: Comparison, curves: list[list[Step]]
) -> tuple[TrialResult, Matrix]:
    predictions: list[Matrix] = []
    fits: list[Fit] = []
    seconds, parameters, latency = 0.0, 0, 0.0
    for fold in comparison.folds:
        problem, mean, scale = comparison.problem(fold, experiment)
        curves.append([])
        watch = _Watch(trial, curves)
        started = time.monotonic()
        fitted = kind_of(trial.model).fit(trial.model, problem, watch)
        seconds += time.monotonic() - started
        # Trees tell of some steps only; the one that was kept may not be one of them.
        curves[-1] = [_step(epoch) for epoch in fitted.fit.epochs]
        predict = graph_of(fitted, comparison.packing)
        outputs = outputs_of(predict, comparison.examples, fold.compared)
        if experiment.training.calibration != "none" and not fitted.knows_held_out:
            held_out = outputs_of(predict, comparison.examples, fold.held_out)
            labels = comparison.examples.labels[fold.held_out]
            calibrator, _ = calibrate(experiment.training.calibration, comparison.spec.label, held_out, labels)
            outputs = calibrator(tf.constant(outputs)).numpy()
        predictions.append(_in_the_labels_terms(comparison.spec.label, outputs, mean, scale))
        if not fits:
            parameters, latency = fitted.parameters, _latency_ms(predict, comparison.examples, fold)
        fits.append(fitted.fit)
    result = TrialResult(
        model=trial.model,
        state="complete",
        seconds=seconds,
        unit=fits[0].unit,
        curves=curves,
        kept=[fit.best.number for fit in fits],
        parameters=parameters,
        latency_ms=latency,
    )
    return result, np.concatenate(predictions).astype(np.float32)


class _Watch:
    """Keeps the curve of a fold, and ends a trial that falls behind in its first one."""

    def __init__(self, trial: Trial, curves: list[list[Step]]) -> None:
        self._limits = trial.limits if len(curves) == 1 else {}
        self._curve = curves[-1]
        self._best = np.inf

    def __call__(self, epoch: Epoch) -> None:
        loss = epoch.validation_loss
        self._curve.append(_step(epoch))
        self._best = self._best if loss is None else min(self._best, loss)
        limit = self._limits.get(epoch.number, np.inf)
        if self._best > limit:
            raise _Lagging(f"its validation loss, {self._best:.4f}, is above {limit:.4f} at step {epoch.number}")


def _step(epoch: Epoch) -> Step:
    return Step(number=epoch.number, loss=epoch.loss, validation_loss=epoch.validation_loss)


def _in_the_labels_terms(label: Label, outputs: Matrix, mean: float, scale: float) -> Matrix:
    if not label.is_learned:
        return outputs
    if label.kind == "regression":
        return outputs * np.float32(scale) + np.float32(mean)
    return probabilities_of(label, outputs).reshape(len(outputs), -1)


def _latency_ms(predict: Any, examples: Examples, fold: Fold) -> float:
    row = tensors_of(examples, fold.compared[:1])
    times = []
    for _ in range(_WARM_UP_CALLS + _TIMED_CALLS):
        started = time.perf_counter()
        predict(*row)
        times.append(time.perf_counter() - started)
    return statistics.median(times[_WARM_UP_CALLS:]) * 1000


def _ended(trial: Trial, state: Any, started: float, reason: str, **more: Any) -> TrialResult:
    return TrialResult(model=trial.model, state=state, seconds=time.monotonic() - started, reason=reason, **more)
