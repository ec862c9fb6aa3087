"""Contributions to the predictions of any model: it is asked about mixes of the rows with rows to compare with."""

import time

import numpy as np
from sklearn.linear_model import Ridge

from components.errors import DataRejectedError
from components.explain_model.contributions import Contributions, Predict, of_classes
from components.rows import Arrays
from components.shapley import Array, Enumeration, Sample, mixed

_MOST_ENUMERATED = 3_000_000
"""Predictions up to which all coalitions are asked about."""
_MOST_CELLS = 1_000_000
"""Values in the rows that the model is asked about at once."""
_PROGRESS_SECONDS = 5.0
_LIME_SAMPLES = 500
_KERNEL_WIDTH = 0.75


def shapley_values(
    predict: Predict, rows: Arrays, classes: Array, background: Arrays, max_seconds: float, seed: int
) -> Contributions:
    """Gives Shapley values, the mean over games against each row of the background (Lundberg and Lee 2017).

    What a feature contributes is measured with the others' values left as they are in either row: interventional
    Shapley values (Janzing et al., Feature relevance quantification in explainable AI, AISTATS 2020).

    Args:
        predict: the model.
        rows: to explain.
        classes: of each row, the number of the class, or cluster, that is asked about; one output has only number 0.
        background: to compare with, in random order; each takes two orders of the features, or all of them.
        max_seconds: after which no further row of the background is taken.
        seed: of the orders.

    Raises:
        DataRejectedError: the model gives something that is not finite.
    """
    started = printed = time.monotonic()
    features, count, compared = list(rows), _rows(rows), _rows(background)
    own, usual = predict(rows), predict(background)
    exact = count * compared * (2 ** len(features) - 2) <= _MOST_ENUMERATED
    totals, squares = np.zeros((2, count, len(features)))
    references = np.zeros(count)
    done = 0
    while done < compared and (done < 2 or time.monotonic() - started < max_seconds):
        game = Enumeration(len(features)) if exact else Sample(len(features), 2, seed + done)
        other = {name: values[done : done + 1] for name, values in background.items()}
        values = np.empty((len(game.coalitions), count))
        values[0], values[-1] = usual[done, classes], of_classes(own, classes)
        values[1:-1] = _asked(predict, rows, other, game.coalitions[1:-1], classes)
        shares = game.shares(values).T
        totals += shares
        squares += shares**2
        references += values[0]
        done += 1
        if time.monotonic() - printed > _PROGRESS_SECONDS:
            printed = time.monotonic()
            _print(done, compared, printed - started)
    if done < compared:
        print(
            f"explain_model: compared with {done} of {compared} rows; more take longer than explanation.max_seconds "
            f"({max_seconds:g})",
            flush=True,
        )
    variance = np.maximum(squares / done - (totals / done) ** 2, 0)
    return Contributions(
        method="exact_shap" if exact else "sampled_shap",
        features=features,
        shares=totals / done,
        values=of_classes(own, classes),
        references=references / done,
        compared_rows=done,
        errors=np.sqrt(variance / max(done - 1, 1)),
    )


def lime(predict: Predict, rows: Arrays, classes: Array, background: Arrays, seed: int) -> Contributions:
    """Fits a linear model around each row (Ribeiro et al., Why Should I Trust You?, KDD 2016).

    A neighbour has some features of the row, and the others of a row of the background. The linear model is told
    which are the row's own; neighbours with more of them weigh more. Own code, as the package lime has had no release
    since 2020.

    Args:
        predict: the model.
        rows: to explain.
        classes: as for shapley_values.
        background: from which neighbours take their other values.
        seed: of the drawing.

    Raises:
        DataRejectedError: the model gives something that is not finite.
    """
    features, count = list(rows), _rows(rows)
    generator = np.random.default_rng(seed)
    samples = max(_LIME_SAMPLES, 10 * len(features))
    kept = generator.random((samples, len(features))) < 0.5
    kept[0] = True
    drawn = generator.integers(0, _rows(background), samples)
    others = {name: values[drawn, None] for name, values in background.items()}
    values = _asked(predict, rows, others, kept, classes)
    # The width that the authors' tabular explainer has, at the distance of two 0/1 vectors.
    nearness = np.exp(-(~kept).sum(1) / (_KERNEL_WIDTH**2 * len(features)))
    ridge = Ridge(alpha=1.0).fit(kept, values, sample_weight=nearness)
    mean = np.average(values, axis=0, weights=nearness)
    unexplained = np.average((values - ridge.predict(kept).reshape(values.shape)) ** 2, axis=0, weights=nearness)
    spread = np.average((values - mean) ** 2, axis=0, weights=nearness)
    return Contributions(
        method="lime",
        features=features,
        shares=np.asarray(ridge.coef_).reshape(count, len(features)),
        values=values[0],
        references=np.asarray(ridge.intercept_).reshape(count),
        compared_rows=_rows(background),
        fit=1 - unexplained / np.maximum(spread, np.finfo(float).tiny),
    )


def _asked(predict: Predict, rows: Arrays, others: Arrays, coalitions: Array, classes: Array) -> Array:
    """Asks the model about all rows in some coalitions, a few coalitions at a time.

    Args:
        predict: the model.
        rows: whose features join coalitions.
        others: from which the other features' values come: one row, or one a coalition, [coalitions, 1].
        coalitions: bool [coalitions, features].
        classes: of each row, the number of the class that is asked about.

    Returns:
        float64 [coalitions, rows].

    Raises:
        DataRejectedError: an answer is not finite.
    """
    values = np.empty((len(coalitions), len(classes)))
    step = max(1, _MOST_CELLS // (len(classes) * len(rows)))
    for start in range(0, len(coalitions), step):
        some = coalitions[start : start + step]
        reference = {n: other[start : start + step] if len(other) > 1 else other for n, other in others.items()}
        scores = predict(mixed(rows, reference, some))
        values[start : start + step] = of_classes(scores, np.tile(classes, len(some))).reshape(len(some), -1)
    if not np.isfinite(values).all():
        raise DataRejectedError(
            "the model gives no finite number for a mix of two rows, so its predictions cannot be explained; look at "
            "the extremes of its features"
        )
    return values


def _rows(arrays: Arrays) -> int:
    return len(next(iter(arrays.values())))


def _print(done: int, of: int, seconds: float) -> None:
    print(f"explain_model: compared with {done} of {of} rows, {seconds:.0f} s", flush=True)
