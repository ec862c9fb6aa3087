"""Finds the rows on which the model is weakest: conditions on one or two raw columns under which its loss is high.

As in Slice Finder (Chung et al., Automated Data Slicing for Model Validation, ICDE 2019), conditions are ranked by few
terms, then by effect size, and tested with a correction for many tests. Conditions are found on one half of the rows
and tested on the other, so that a difference that is chance in the first is not in the second.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import stats
from sklearn.tree import DecisionTreeRegressor

from components.explain_model.texts import MISSING, missing, text_of
from components.rows import Arrays
from components.shapley import Array

_HALF = 0.5
_SIGNIFICANCE = 0.01
_SMALLEST_EFFECT = 0.2
"""Difference of the means in standard deviations: what Cohen (1988) calls small."""
_MOST_TESTED = 20
_MOST_REPORTED = 10
_MOST_VALUES = 50
"""Values of a category that are conditions, the most frequent first."""
_MOST_EDGES = 7
_MOST_OVERLAP = 0.8
_LARGEST_SHARE = 0.5
"""Of the rows: more are no slice."""
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Condition:
    """A term on one column, and the rows that fulfil it."""

    feature: str
    text: str
    """E.g. `distance ≥ 500`."""
    holds: Array
    """bool [rows]."""


@dataclass(frozen=True)
class WeakSlice:
    """Rows on which the model's loss is high; loss, interval and effect come from the half that did not find it."""

    conditions: list[str]
    rows: int
    """All that fulfil the conditions."""
    loss: float
    low: float
    high: float
    """Ends of the 95 % interval of the loss."""
    rest: float
    """Mean loss of all other rows."""
    effect: float
    """Difference to the rest in standard deviations."""
    predicted: float | None
    """Mean prediction; None: there are several classes."""
    actual: float | None
    """Mean of what came true."""


@dataclass(frozen=True)
class Search:
    """What was found."""

    slices: list[WeakSlice]
    rows: int
    """That were searched."""
    loss: float
    """Mean over them."""
    too_few: bool
    """There are fewer rows than two slices in each half need."""


def find(
    arrays: Arrays,
    losses: Array,
    predicted: Array | None,
    actual: Array | None,
    min_rows: int,
    seed: int,
    times: Collection[str] = (),
) -> Search:
    """Looks for slices in which the loss is high.

    Args:
        arrays: raw rows.
        losses: float64 [rows].
        predicted: [rows], to tell a slice in which the model is biased from one that is hard; None: several classes.
        actual: [rows].
        min_rows: of a slice.
        seed: of the halves.
        times: columns that count seconds since 1970.
    """
    rows = len(losses)
    if rows < 4 * min_rows:
        return Search([], rows, float(losses.mean()) if rows else 0.0, too_few=True)
    finding = np.random.default_rng(seed).random(rows) < _HALF
    conditions = _conditions(arrays, losses, finding, max(1, min_rows // 2), times)
    candidates = _candidates(conditions, losses, finding, max(1, min_rows // 2))
    found: list[WeakSlice] = []
    told: list[tuple[list[Condition], Array]] = []
    for terms, holds in _confirmed(candidates, losses, ~finding):
        if len(found) < _MOST_REPORTED and not any(_same(terms, holds, *other) for other in told):
            told.append((terms, holds))
            found.append(_measured(terms, holds, losses, ~finding, predicted, actual))
    found.sort(key=lambda one: -one.effect)
    return Search(found, rows, float(losses.mean()), too_few=False)


def _conditions(
    arrays: Arrays, losses: Array, finding: Array, min_rows: int, times: Collection[str]
) -> list[Condition]:
    """Lists terms on each column that enough rows fulfil, but not most: then the others are the exception."""
    conditions: list[Condition] = []
    most = _LARGEST_SHARE * finding.sum()
    for name, values in arrays.items():
        if values.dtype == object:
            found = _of_category(name, values)
        else:
            found = _of_number(name, values, losses, finding, name in times)
        conditions += [one for one in found if min_rows <= one.holds[finding].sum() <= most]
    return conditions


def _of_category(name: str, values: Array) -> list[Condition]:
    present, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    frequent = np.argsort(-counts, kind="stable")[:_MOST_VALUES]
    return [Condition(name, f"{name} = {text_of(present[code])}", codes == code) for code in frequent.tolist()]


def _of_number(name: str, values: Array, losses: Array, finding: Array, is_time: bool) -> list[Condition]:
    """Cuts the column where a shallow tree would to set high losses apart; a few values are conditions themselves."""
    absent = missing(values)
    conditions = [Condition(name, f"{name} = {MISSING}", absent)]
    known = values[~absent & finding].astype(np.float64)
    distinct = np.unique(values[~absent & finding][:: max(1, len(known) // 10_000)])
    if len(distinct) <= _MOST_EDGES + 1:
        return conditions + [Condition(name, f"{name} = {text_of(one, is_time)}", values == one) for one in distinct]
    tree = DecisionTreeRegressor(max_leaf_nodes=_MOST_EDGES + 1, min_samples_leaf=max(1, len(known) // 50))
    tree.fit(known[:, None], losses[~absent & finding])
    cuts = tree.tree_.threshold[tree.tree_.feature >= 0].tolist()
    # Rounded up to what the text says: to whole numbers, whole minutes, or six digits.
    step = 60 if is_time else 1
    edges = sorted({math.ceil(cut / step) * step if values.dtype.kind == "i" else float(f"{cut:.6g}") for cut in cuts})
    texts = [text_of(edge, is_time) for edge in edges]
    for edge, text in zip(edges, texts, strict=True):
        conditions.append(Condition(name, f"{name} < {text}", ~absent & (values < edge)))
        conditions.append(Condition(name, f"{name} ≥ {text}", ~absent & (values >= edge)))
    for (low, low_text), (high, high_text) in pairwise(zip(edges, texts, strict=True)):
        inside = ~absent & (values >= low) & (values < high)
        conditions.append(Condition(name, f"{low_text} ≤ {name} < {high_text}", inside))
    return conditions


def _candidates(
    conditions: Sequence[Condition], losses: Array, finding: Array, min_rows: int
) -> list[tuple[list[Condition], Array]]:
    """Ranks slices by the half that finds: those of one term, then those of two that are worse than both terms."""
    if not conditions:
        return []
    matrix = np.stack([one.holds[finding] for one in conditions], axis=1).astype(np.float32)
    loss = losses[finding]
    loss = (loss - loss.mean()) / (loss.std() or 1)
    counts = (matrix.T @ matrix).astype(np.float64)
    sums = (matrix.T @ (matrix * loss[:, None].astype(np.float32))).astype(np.float64)
    squares = (matrix.T @ (matrix * (loss**2)[:, None].astype(np.float32))).astype(np.float64)
    effects = _effects(counts, sums, squares, len(loss), (loss**2).sum())
    means = sums / np.maximum(counts, 1)
    alone = np.diag(effects)
    singles = [i for i in np.argsort(-alone, kind="stable").tolist() if alone[i] >= _SMALLEST_EFFECT]
    worse = means - np.maximum.outer(np.diag(means), np.diag(means))
    fine = (counts >= min_rows) & (effects >= _SMALLEST_EFFECT) & (worse >= _SMALLEST_EFFECT)
    pairs = [
        (i, j) for i, j in np.argwhere(np.triu(fine, 1)).tolist() if conditions[i].feature != conditions[j].feature
    ]
    pairs.sort(key=lambda pair: -effects[pair])
    chosen: list[list[Condition]] = [[conditions[i]] for i in singles[: _MOST_TESTED // 2]]
    chosen += [[conditions[i], conditions[j]] for i, j in pairs[: _MOST_TESTED - len(chosen)]]
    return [(terms, np.logical_and.reduce([term.holds for term in terms])) for terms in chosen]


def _effects(counts: Array, sums: Array, squares: Array, rows: int, all_squares: float) -> Array:
    """Gives effect sizes against the rest, of losses whose sum is 0."""
    inside, outside = np.maximum(counts, 1), np.maximum(rows - counts, 1)
    means, rests = sums / inside, -sums / outside
    variances = np.maximum(squares / inside - means**2, 0)
    rest_variances = np.maximum((all_squares - squares) / outside - rests**2, 0)
    effects: Array = (means - rests) / np.sqrt(np.maximum((variances + rest_variances) / 2, 1e-12))
    return effects


def _confirmed(
    candidates: Sequence[tuple[list[Condition], Array]], losses: Array, testing: Array
) -> list[tuple[list[Condition], Array]]:
    """Keeps slices whose loss is higher in the other half, too: Welch's test, corrected by Holm's method.

    It must be higher than that of all other rows and, with two terms, of those that fulfil only one of them.
    """
    tested: list[tuple[float, int, list[Condition], Array]] = []
    for terms, holds in candidates:
        inside = losses[testing & holds]
        wider = [np.ones(len(losses), bool), *(term.holds for term in terms if len(terms) > 1)]
        others = [losses[testing & rows & ~holds] for rows in wider]
        if (
            min(len(inside), *map(len, others)) > 1
            and min(_effect(inside, rest) for rest in others) >= _SMALLEST_EFFECT
        ):
            p = max(stats.ttest_ind(inside, rest, equal_var=False, alternative="greater").pvalue for rest in others)
            tested.append((float(p), len(tested), terms, holds))
    confirmed = []
    for rank, (p, order, terms, holds) in enumerate(sorted(tested, key=lambda one: one[:2])):
        if not p <= _SIGNIFICANCE / (len(candidates) - rank):
            break
        confirmed.append((order, terms, holds))
    return [(terms, holds) for _, terms, holds in sorted(confirmed, key=lambda one: one[0])]


def _effect(inside: Array, rest: Array) -> float:
    spread = np.sqrt((inside.var() + rest.var()) / 2)
    return float((inside.mean() - rest.mean()) / max(spread, 1e-12))


def _measured(
    terms: Sequence[Condition],
    holds: Array,
    losses: Array,
    testing: Array,
    predicted: Array | None,
    actual: Array | None,
) -> WeakSlice:
    inside, rest = losses[testing & holds], losses[testing & ~holds]
    reach = stats.t.ppf((1 + _CONFIDENCE) / 2, len(inside) - 1) * inside.std(ddof=1) / np.sqrt(len(inside))
    return WeakSlice(
        conditions=[term.text for term in terms],
        rows=int(holds.sum()),
        loss=float(inside.mean()),
        low=float(inside.mean() - reach),
        high=float(inside.mean() + reach),
        rest=float(rest.mean()),
        effect=_effect(inside, rest),
        predicted=None if predicted is None else float(predicted[holds].mean()),
        actual=None if actual is None else float(actual[holds].mean()),
    )


def _same(terms: Sequence[Condition], holds: Array, other_terms: Sequence[Condition], other_holds: Array) -> bool:
    """Tells whether slices are hardly different: about the same rows, or values of the same columns that overlap."""
    both, either = int((holds & other_holds).sum()), int((holds | other_holds).sum())
    columns, other_columns = ({term.feature for term in of} for of in (terms, other_terms))
    return both > _MOST_OVERLAP * either or (columns == other_columns and both > 0)
