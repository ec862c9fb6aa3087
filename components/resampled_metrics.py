"""The metrics of a task for many groups of rows and many resamples at once.

Confidence intervals need every metric of every slice a hundred times. On 82,000 rows in 67 slices that is
70,000 small calls: one by one with scikit-learn, or as fairlearn's MetricFrame does it with `n_boot`, they
take minutes (measured: 0.8 s a resample for two metrics of 48 slices). Here a resample is the number of
times that each row was drawn, and a metric is computed from these counts for all groups together, in about
5 ms. The tests hold every number against scikit-learn's for the same rows, drawn one by one.
"""

from collections.abc import Callable

import numpy as np

from components.alert_budgets import alerts_of
from components.predictions import (
    CALIBRATION_BINS,
    SMALLEST_PROBABILITY,
    Array,
    Predictions,
    calibration_bins,
    shares_up_to,
)
from components.resampled_clusterings import Clustering, stacked

_BAND = 5
"""Standard deviations, about, by which a resample moves the edge of an alert budget: there every score counts."""

Statistic = Callable[[Array], Array]
"""Takes draws, row numbers [resamples, rows]; gives metrics [metrics, groups, resamples], NaN: undefined."""

EXACT = 2**62
"""As `resolution`: rows are tied only when their scores are equal."""


def statistic(predictions: Predictions, groups: Array, resolution: int = EXACT) -> Statistic:
    """Prepares the metrics of `metrics_of`, in that order, for resamples of these rows.

    Args:
        predictions: n rows.
        groups: int64 [n], the group of each row: 0, 1, … without gaps.
        resolution: of probabilities and scores: neighbouring scores of a group are tied until it has about so many.
    """
    match predictions.task.type:
        case "binary" | "anomaly_detection":
            return _Binary(predictions, groups, resolution)
        case "multiclass":
            return _Multiclass(predictions, groups, resolution)
        case "clustering":
            return Clustering(predictions, groups)
        case _:
            return _Regression(predictions, groups)


def points(predictions: Predictions, groups: Array) -> Array:
    """Computes each metric of each group over its own rows: [metrics, groups], NaN: undefined."""
    return statistic(predictions, groups)(np.arange(len(predictions))[np.newaxis])[..., 0]


class _Cells:
    """Rows of a group that have (nearly) the same score, in ascending order of group and score."""

    def __init__(
        self, groups: Array, scores: Array, predicted: Array, resolution: int, exact: Array | None = None
    ) -> None:
        # A cell lies on one side of the threshold and in one calibration bin.
        segments = (groups * CALIBRATION_BINS + calibration_bins(scores)) * 2 + predicted
        order = np.lexsort((scores, segments))
        new_segment = _changes(segments[order])
        new_score = new_segment | _changes(scores[order])
        rank = np.cumsum(new_score) - 1
        if resolution < EXACT:
            merged = new_segment | _changes(_merge(rank, groups[order], resolution))
            if exact is not None:
                merged |= new_score & (exact[order] | _changes(exact[order]))
            new_score = merged
            rank = np.cumsum(new_score) - 1
        self.of_row = np.empty(len(groups), dtype=np.int64)
        self.of_row[order] = rank
        first = order[new_score]
        self.count = len(first)
        self.group = groups[first]
        self.group_starts = np.flatnonzero(_changes(self.group))
        self.segment_starts = np.flatnonzero(_changes(segments[first] // 2))
        self.segment_groups = np.flatnonzero(_changes(self.group[self.segment_starts]))
        self.predicted = predicted[first]
        self.rows = np.bincount(self.of_row, minlength=self.count)

    def mean(self, values: Array) -> Array:
        """Averages a quantity of the rows over each cell."""
        return np.bincount(self.of_row, weights=values, minlength=self.count) / self.rows

    def total(self, values: Array) -> Array:
        """Sums a quantity of the cells [resamples, cells] over each group: [resamples, groups]."""
        return np.add.reduceat(values, self.group_starts, axis=1)

    def below(self, counts: Array, totals: Array) -> Array:
        """Sums counts over the cells of the same group with lower scores."""
        before = np.cumsum(totals, axis=1) - totals
        return np.cumsum(counts, axis=1) - counts - before[:, self.group]


def _changes(values: Array) -> Array:
    """Marks where a value differs from the one before; the first one does."""
    return np.concatenate(([True], values[1:] != values[:-1]))


def _merge(rank: Array, groups: Array, resolution: int) -> Array:
    """Ties neighbouring ranks so that a group keeps about `resolution` of them."""
    starts = np.flatnonzero(_changes(groups))
    group = np.cumsum(_changes(groups)) - 1
    first = rank[starts]
    sizes = np.diff(np.append(first, rank[-1] + 1))
    kept = np.minimum(sizes, resolution)
    return (rank - first[group]) * kept[group] // sizes[group]


class _Ranking:
    """AUC and average precision of one class against the rest, and what else follows from its scores."""

    def __init__(self, truth: Array, cells: _Cells) -> None:
        self.cells = cells
        # Half the width, so that more of it stays in the processor's cache: draws read it in random order.
        self._row_cells = (cells.of_row * 2 + truth).astype(np.int32)

    def counts(self, draws: Array) -> tuple[Array, Array]:
        """Counts negative and positive rows: each [resamples, cells]."""
        width = self.cells.count * 2
        counts = np.stack([np.bincount(self._row_cells.take(draw), minlength=width) for draw in draws]).astype(
            np.float64
        )
        return counts[:, 0::2], counts[:, 1::2]

    def areas(self, negative: Array, positive: Array) -> tuple[Array, Array]:
        """Computes AUC (ties count half) and average precision: each [resamples, groups]."""
        cells = self.cells
        negatives, positives = cells.total(negative), cells.total(positive)
        negative_below = cells.below(negative, negatives)
        won = cells.total(positive * (negative_below + negative / 2))
        positive_from_here = positives[:, cells.group] - cells.below(positive, positives)
        negative_from_here = negatives[:, cells.group] - negative_below
        precision = positive_from_here / np.maximum(positive_from_here + negative_from_here, 1)
        several = (negatives > 0) & (positives > 0)
        return (
            np.where(several, won / (negatives * positives), np.nan),
            np.where(several, cells.total(positive * precision) / positives, np.nan),
        )


class _Binary:
    def __init__(self, predictions: Predictions, groups: Array, resolution: int) -> None:
        scores = predictions.scores
        self._cells = _Cells(groups, scores, predictions.predicted, resolution)
        self._ranking = _Ranking(predictions.truth, self._cells)
        mean, wide = self._cells.mean, scores.astype(np.float64)
        clipped = [_clipped(1 - scores), _clipped(scores)]
        self._log_loss = [mean(-np.log(probability)) for probability in clipped]
        self._brier = [mean(wide**2), mean((1 - wide) ** 2)]
        self._score = mean(wide)
        self._names, self._quantiles = predictions.metrics, predictions.score_quantiles
        self._is_anomaly = predictions.task.type == "anomaly_detection"
        self._alerts = _Alerts(predictions, groups) if predictions.budget else None

    def __call__(self, draws: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            values = self._metrics(*self._ranking.counts(draws))
            if self._alerts:
                values |= self._alerts(draws)
            return stacked(self._names, values)

    def _metrics(self, negative: Array, positive: Array) -> dict[str, Array]:
        cells, total = self._cells, self._cells.total
        auc, pr_auc = self._ranking.areas(negative, positive)
        positives, rows = total(positive), total(negative + positive)
        hits, alarms = total(positive * cells.predicted), total(negative * cells.predicted)
        misses, negatives = positives - hits, rows - positives
        values = {
            "auc": auc,
            "pr_auc": pr_auc,
            "log_loss": total(negative * self._log_loss[0] + positive * self._log_loss[1]) / rows,
            "brier": total(negative * self._brier[0] + positive * self._brier[1]) / rows,
            "calibration_error": self._calibration_gaps(negative, positive) / rows,
            "accuracy": (rows - alarms - misses) / rows,
            "balanced_accuracy": (hits / positives + (negatives - alarms) / negatives) / 2,
            "precision": hits / (hits + alarms),
            "recall": hits / positives,
            "f1": 2 * hits / (2 * hits + alarms + misses),
        }
        if self._is_anomaly:
            values |= {"flagged": (hits + alarms) / rows, "score_shift": self._score_shift(negative + positive, rows)}
        return values

    def _score_shift(self, counts: Array, rows: Array) -> Array:
        """Computes the largest distance to the distribution of the rows learned from, [resamples, groups]."""
        if self._quantiles is None:
            return np.full(rows.shape, np.nan)
        at, below = shares_up_to(self._score, self._quantiles)
        of_cell = rows[:, self._cells.group]
        before = self._cells.below(counts, rows)
        drawn = counts > 0
        apart = np.maximum(np.abs((before + counts) / of_cell - at), np.abs(before / of_cell - below))
        largest = np.maximum.reduceat(np.where(drawn, apart, 0.0), self._cells.group_starts, axis=1)
        return np.where(rows > 0, largest, np.nan)

    def _calibration_gaps(self, negative: Array, positive: Array) -> Array:
        cells = self._cells
        gaps = np.add.reduceat(positive * (1 - self._score) - negative * self._score, cells.segment_starts, axis=1)
        return np.add.reduceat(np.abs(gaps), cells.segment_groups, axis=1)


class _Alerts:
    """Precision and recall of the rows with the highest scores of a group, or of each day of it."""

    def __init__(self, predictions: Predictions, groups: Array) -> None:
        assert predictions.budget is not None
        self._budget = predictions.budget
        days = (
            np.zeros(len(groups), np.int64) if predictions.days is None else predictions.days - predictions.days.min()
        )
        width = int(days.max(initial=0)) + 1
        pairs, pair = np.unique(groups * width + days, return_inverse=True)
        self._group_starts = np.flatnonzero(_changes(pairs // width))
        exact = self._near_the_edge(predictions.scores, pair)
        self._cells = _Cells(pair, predictions.scores, np.zeros(len(pair), np.int64), 1, exact)
        self._ranking = _Ranking(predictions.truth, self._cells)

    def __call__(self, draws: Array) -> dict[str, Array]:
        negative, positive = self._ranking.counts(draws)
        cells, counts = self._cells, negative + positive
        rows = cells.total(counts)
        above = rows[:, cells.group] - cells.below(counts, rows) - counts
        alerts = alerts_of(rows, self._budget)
        taken = np.clip(alerts[:, cells.group] - above, 0, counts)
        hits = self._sum(cells.total(positive * taken / np.maximum(counts, 1)))
        return {
            "precision_at_budget": hits / self._sum(alerts),
            "recall_at_budget": hits / self._sum(cells.total(positive)),
        }

    def _sum(self, values: Array) -> Array:
        """Sums a quantity of the days of each group: [resamples, groups]."""
        return np.add.reduceat(values, self._group_starts, axis=1)

    def _near_the_edge(self, scores: Array, pair: Array) -> Array:
        """Marks the rows among which a resample may find the edge: bool [rows]; rows of one score go together."""
        order = np.lexsort((-scores, pair))
        sizes = np.bincount(pair)
        starts = np.cumsum(sizes) - sizes
        alerts = alerts_of(sizes, self._budget)
        room = _BAND * np.sqrt(alerts) + 10
        highest, lowest = (
            scores[order[starts + np.clip(alerts + sign * room, 0, sizes - 1).astype(np.int64)]] for sign in (-1, 1)
        )
        result: Array = (scores <= highest[pair]) & (scores >= lowest[pair])
        return result


class _Multiclass:
    def __init__(self, predictions: Predictions, groups: Array, resolution: int) -> None:
        truth, scores, predicted = predictions.truth, predictions.scores, predictions.predicted
        self._classes, self._groups = len(predictions.classes), int(groups.max()) + 1
        self._names = predictions.metrics
        undecided = np.zeros(len(truth), dtype=bool)
        self._rankings = [
            _Ranking(truth == label, _Cells(groups, scores[:, label], undecided, resolution))
            for label in range(self._classes)
        ]
        confidence = scores.max(axis=1).astype(np.float64)
        right = truth == predicted
        of_truth = np.zeros(scores.shape)
        of_truth[np.arange(len(truth)), truth] = 1
        self._group = groups
        self._bin = groups * CALIBRATION_BINS + calibration_bins(scores.max(axis=1))
        self._gap = right - confidence
        self._log_loss = -np.log(_clipped(scores[np.arange(len(truth)), truth]))
        self._brier = ((scores - of_truth) ** 2).sum(axis=1)
        # A wrong prediction counts in the last, surplus class of its group.
        self._true = groups * self._classes + truth
        self._taken = groups * self._classes + predicted
        self._right = np.where(right, self._true, self._groups * self._classes)

    def __call__(self, draws: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._metrics(draws)

    def _metrics(self, draws: Array) -> Array:
        rows = self._sums(draws, self._group, self._groups)
        hits, true, taken = (
            self._sums(draws, key, self._groups * self._classes).reshape(len(draws), self._groups, self._classes)
            for key in (self._right, self._true, self._taken)
        )
        occurs = (true + taken) > 0
        recall = hits / true
        gaps = self._sums(draws, self._bin, self._groups * CALIBRATION_BINS, self._gap)
        areas = [ranking.areas(*ranking.counts(draws)) for ranking in self._rankings]
        values = {
            "auc": _nanmean(np.stack([auc for auc, _ in areas], axis=-1)),
            "pr_auc": _nanmean(np.stack([pr_auc for _, pr_auc in areas], axis=-1)),
            "log_loss": self._sums(draws, self._group, self._groups, self._log_loss) / rows,
            "brier": self._sums(draws, self._group, self._groups, self._brier) / rows,
            "calibration_error": np.abs(gaps).reshape(len(draws), self._groups, -1).sum(axis=-1) / rows,
            "accuracy": hits.sum(axis=-1) / rows,
            "balanced_accuracy": np.where((true > 0).sum(axis=-1) > 1, _nanmean(recall), np.nan),
            "precision": _macro(hits / np.maximum(taken, 1), occurs),
            "recall": _macro(hits / np.maximum(true, 1), occurs),
            "f1": _macro(2 * hits / np.maximum(true + taken, 1), occurs),
        }
        return stacked(self._names, values)

    @staticmethod
    def _sums(draws: Array, key: Array, width: int, values: Array | None = None) -> Array:
        """Counts the drawn rows, or sums a quantity of theirs, by key: [resamples, width]."""
        return np.stack(
            [
                np.bincount(key[draw], weights=None if values is None else values[draw], minlength=width)[:width]
                for draw in draws
            ]
        ).astype(np.float64)


class _Regression:
    def __init__(self, predictions: Predictions, groups: Array) -> None:
        self._names = predictions.metrics
        errors = predictions.truth - predictions.scores
        self._order = np.lexsort((np.abs(errors), groups))
        self._starts = np.flatnonzero(_changes(groups[self._order]))
        errors, truth = errors[self._order], predictions.truth[self._order]
        means = np.add.reduceat(truth, self._starts) / np.diff(np.append(self._starts, len(truth)))
        # Near its mean, a square keeps its digits.
        self._truth = truth - means[groups[self._order]]
        self._absolute, self._square = np.abs(errors), errors**2
        self._pinball = np.maximum(predictions.quantile * errors, (predictions.quantile - 1) * errors)
        self._constant = np.maximum.reduceat(truth, self._starts) == np.minimum.reduceat(truth, self._starts)

    def __call__(self, draws: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._metrics(self._counts(draws))

    def _counts(self, draws: Array) -> Array:
        width = len(self._order)
        return np.stack([np.bincount(draw, minlength=width)[self._order] for draw in draws])

    def _metrics(self, counts: Array) -> Array:
        rows = self._total(counts)
        squares = self._total(counts * self._square)
        truth = self._total(counts * self._truth)
        squared_truth = self._total(counts * self._truth**2)
        variation = squared_truth - truth**2 / rows
        # What rounding leaves of 0 is no variation.
        constant = self._constant | (variation <= 1e-12 * squared_truth)
        values = {
            "rmse": np.sqrt(squares / rows),
            "mae": self._total(counts * self._absolute) / rows,
            "r2": np.where(constant, np.nan, 1 - squares / variation),
            "median_absolute_error": self._medians(counts, rows),
            "quantile_loss": self._total(counts * self._pinball) / rows,
        }
        return stacked(self._names, values)

    def _total(self, values: Array) -> Array:
        return np.add.reduceat(values, self._starts, axis=1)

    def _medians(self, counts: Array, rows: Array) -> Array:
        drawn = np.cumsum(counts, axis=1)
        before = np.cumsum(rows, axis=1) - rows
        last = len(self._absolute) - 1
        middles = [
            np.stack([np.searchsorted(one, target) for one, target in zip(drawn, before + half, strict=True)])
            for half in ((rows - 1) // 2 + 1, rows // 2 + 1)
        ]
        low, high = (self._absolute[np.minimum(middle, last)] for middle in middles)
        return np.where(rows > 0, (low + high) / 2, np.nan)


def _clipped(probability: Array) -> Array:
    return np.clip(probability, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY).astype(np.float64)


def _nanmean(values: Array) -> Array:
    """Averages what is defined along the last axis; NaN where nothing is."""
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(axis=-1) / known.sum(axis=-1)


def _macro(values: Array, occurs: Array) -> Array:
    return np.where(occurs, values, 0).sum(axis=-1) / occurs.sum(axis=-1)
