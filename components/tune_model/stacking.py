"""Several models added up, with weights learned from what each predicted of rows that it had not seen.

Sources: Wolpert, Stacked Generalization, Neural Networks 1992; Breiman, Stacked Regressions, Machine Learning 1996. Of
the logits of probabilities: Genest, Zidek, Combining Probability Distributions, Statistical Science 1986 (the
logarithmic opinion pool).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import optimize, special

from components.features import Label
from components.models.examples import Matrix
from components.settings import Model, StackModel, SupervisedModel
from components.tune_model.comparison import Comparison
from components.tune_model.ranking import Entry, contenders
from components.tune_model.records import TrialResult

_MOST_KINDS, _MOST_MEMBERS = 5, 3
_PARTS = 5
_LARGEST_WEIGHT = 10.0
_SMALLEST_PROBABILITY = 1e-7
"""The logit of what is nearer to 0 or 1 would be rounding."""


@dataclass(frozen=True)
class Stacked:
    """A sum of models, and how it would have fared."""

    result: TrialResult
    predictions: Matrix
    """As run_trial gives them; the weights that made each did not see its row."""


def stack(entries: Sequence[Entry], predictions: Callable[[Model], Matrix], comparison: Comparison) -> Stacked | None:
    """Adds up the best models of two or three kinds: those whose sum has the smallest loss.

    Args:
        entries: all trials.
        predictions: gives what a complete one predicted.
        comparison: of which rows.

    Returns:
        None: fewer than two kinds can be added up.
    """
    best: dict[str, TrialResult] = {}
    complete = [one for one in entries if one.measured and isinstance(one.result.model, SupervisedModel)]
    for contender in contenders(complete) if complete else []:
        best.setdefault(contender.result.model.kind, contender.result)
    results = list(best.values())[:_MOST_KINDS]
    if len(results) < 2:
        return None
    label, mean = comparison.spec.label, 0.0
    if label.kind == "regression":
        mean = comparison.labels.mean(dtype=np.float64)
    targets = comparison.labels - mean
    terms = np.stack([_terms(label, predictions(result.model), mean) for result in results])
    sums = {
        chosen: _cross_fitted(label, targets, terms[list(chosen)])
        for count in range(2, _MOST_MEMBERS + 1)
        for chosen in combinations(range(len(results)), count)
    }
    chosen = min(sums, key=lambda one: _loss(label, targets, sums[one]))
    weights = weights_of(label, targets, terms[list(chosen)])
    return Stacked(_result([results[index] for index in chosen], weights), _predictions(label, sums[chosen], mean))


def _terms(label: Label, predictions: Matrix, mean: float) -> Matrix:
    """Gives what is added up: float64 [rows, outputs], logits, or a regression's distances from the mean label."""
    if label.kind == "regression":
        return predictions.astype(np.float64) - mean
    probabilities = np.clip(predictions.astype(np.float64), _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
    return special.logit(probabilities) if label.kind == "binary" else np.log(probabilities)


def weights_of(label: Label, targets: Matrix, terms: Matrix) -> Matrix:
    """Learns the weights with which models, added up, have the smallest loss.

    None is negative. That all are equal and add up to 1 counts as one row does, so that few rows cannot say much.

    Args:
        label: its kind decides the loss.
        targets: [rows], 0 or 1, classes, or a regression's distances from the mean label.
        terms: [models, rows, outputs], logits or such distances.

    Returns:
        float64 [models].
    """
    equal = np.full(len(terms), 1 / len(terms))
    unit = targets.var(dtype=np.float64) if label.kind == "regression" else 1.0

    def penalized(weights: Matrix) -> float:
        penalty = np.square(weights - equal).sum() / len(targets)
        return _loss(label, targets, np.tensordot(weights, terms, 1)) / (unit or 1.0) + float(penalty)

    found = optimize.minimize(penalized, equal, method="L-BFGS-B", bounds=[(0, _LARGEST_WEIGHT)] * len(terms))
    weights: Matrix = found.x
    return weights


def _cross_fitted(label: Label, targets: Matrix, terms: Matrix) -> Matrix:
    """Adds up terms, [models, rows, outputs], a part of the rows at a time, with weights learned from the others."""
    sums = np.empty(terms.shape[1:])
    part_of = np.arange(len(targets)) % _PARTS
    for part in range(_PARTS):
        inside = part_of == part
        weights = weights_of(label, targets[~inside], terms[:, ~inside])
        sums[inside] = np.tensordot(weights, terms[:, inside], 1)
    return sums


def _loss(label: Label, targets: Matrix, sums: Matrix) -> float:
    if label.kind == "regression":
        return float(np.square(sums[:, 0] - targets).mean())
    if label.kind == "binary":
        return float(np.logaddexp(0, np.where(targets > 0, -1, 1) * sums[:, 0]).mean())
    true = np.take_along_axis(sums, targets.astype(np.int64)[:, None], 1)[:, 0]
    return float((special.logsumexp(sums, 1) - true).mean())


def _predictions(label: Label, sums: Matrix, mean: float) -> Matrix:
    if label.kind == "regression":
        return (sums + mean).astype(np.float32)
    probabilities = special.expit(sums) if label.kind == "binary" else special.softmax(sums, 1)
    return np.asarray(probabilities.astype(np.float32))


def _result(members: Sequence[TrialResult], weights: Matrix) -> TrialResult:
    models, rounded = [member.model for member in members], [round(float(weight), 4) for weight in weights]
    model = StackModel.model_validate({"kind": "stack", "members": models, "weights": rounded})
    latencies = [member.latency_ms for member in members]
    return TrialResult(
        model=model,
        state="complete",
        seconds=sum(member.seconds for member in members),
        parameters=sum(member.parameters for member in members) + len(members),
        # The call itself, which is most of what the quickest member takes, comes once.
        latency_ms=sum(latencies) - (len(latencies) - 1) * min(latencies),
    )
