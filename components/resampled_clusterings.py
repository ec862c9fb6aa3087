"""The metrics of clusterings, for many groups of rows and many resamples at once; see resampled_metrics.py."""

from collections.abc import Mapping, Sequence

import numpy as np

from components.predictions import Array, Predictions


class Clustering:
    """Metrics by labels, from counts of label and cluster, and by distances, from the rows drawn for them.

    A silhouette is the row's own among all of these, also in a group and in a resample.
    """

    def __init__(self, predictions: Predictions, groups: Array) -> None:
        """Args: groups: int64 [n], the group of each row: 0, 1, … without gaps."""
        self._names = predictions.metrics
        self._groups, self._clusters = int(groups.max()) + 1, predictions.clusters
        self._of_cluster = groups * self._clusters + predictions.scores
        self._table = _Table(groups, predictions.truth, predictions.scores) if predictions.task.label else None
        self._geometry = _Geometry(predictions, groups) if predictions.sampled is not None else None

    def __call__(self, draws: Array) -> Array:
        """See Statistic."""
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = [self._metrics(draw) for draw in draws]
        return np.stack(parts, axis=-1)

    def _metrics(self, draw: Array) -> Array:
        """Gives [metrics, groups]."""
        sizes = np.bincount(self._of_cluster[draw], minlength=self._groups * self._clusters).astype(np.float64)
        shares = sizes.reshape(self._groups, -1)
        shares = shares / shares.sum(axis=1, keepdims=True)
        values = {"largest_cluster": shares.max(axis=1), "smallest_cluster": shares.min(axis=1)}
        if self._table:
            values |= self._table.metrics(draw)
        if self._geometry:
            values |= self._geometry.metrics(draw)
        unknown = np.full(self._groups, np.nan)
        return np.stack([values.get(name, unknown) for name in self._names])


class _Table:
    """How often each label meets each cluster, in each group; only what occurs."""

    def __init__(self, groups: Array, truth: Array, clusters: Array) -> None:
        self._width = int(groups.max()) + 1
        keys = np.stack([groups, truth, clusters], axis=1)
        cells, self._of_row = np.unique(keys, axis=0, return_inverse=True)
        self._of_row = self._of_row.ravel()
        self._group = cells[:, 0]
        self._class, self._of_class = _numbered(cells[:, :2])
        self._cluster, self._of_cluster = _numbered(cells[:, [0, 2]])

    def metrics(self, draw: Array) -> dict[str, Array]:
        """Gives each metric, [groups]."""
        cells = np.bincount(self._of_row[draw], minlength=len(self._group)).astype(np.float64)
        classes = np.bincount(self._class, weights=cells, minlength=len(self._of_class))
        clusters = np.bincount(self._cluster, weights=cells, minlength=len(self._of_cluster))
        rows = self._total(cells, self._group)
        squares = [
            self._total(counts**2, group)
            for counts, group in ((cells, self._group), (classes, self._of_class), (clusters, self._of_cluster))
        ]
        joint, of_class, of_cluster = (
            self._total(_n_log_n(counts), group)
            for counts, group in ((cells, self._group), (classes, self._of_class), (clusters, self._of_cluster))
        )
        whole = _n_log_n(rows)
        homogeneity = _ratio(joint - of_class - of_cluster + whole, whole - of_class)
        completeness = _ratio(joint - of_class - of_cluster + whole, whole - of_cluster)
        both = homogeneity + completeness
        found = {
            "adjusted_rand": _adjusted_rand(rows, *squares),
            "homogeneity": homogeneity,
            "completeness": completeness,
            "v_measure": np.where(both > 0, 2 * homogeneity * completeness / np.where(both > 0, both, 1), 0.0),
        }
        return {name: np.where(rows > 0, values, np.nan) for name, values in found.items()}

    def _total(self, values: Array, groups: Array) -> Array:
        return np.bincount(groups, weights=values, minlength=self._width)


def _numbered(pairs: Array) -> tuple[Array, Array]:
    """Numbers distinct pairs: of each cell its number, and of each number its group."""
    distinct, numbers = np.unique(pairs, axis=0, return_inverse=True)
    return numbers.ravel(), distinct[:, 0]


def _adjusted_rand(rows: Array, joint: Array, classes: Array, clusters: Array) -> Array:
    """Computes Hubert and Arabie's index (Comparing Partitions, 1985) from sums of squared counts."""
    together = joint - rows
    only_class, only_cluster = classes - joint, clusters - joint
    apart = rows**2 - classes - clusters + joint
    over = (together + only_class) * (only_class + apart) + (together + only_cluster) * (only_cluster + apart)
    same = (only_class == 0) & (only_cluster == 0)
    return np.where(same, 1.0, 2 * (together * apart - only_class * only_cluster) / np.where(same, 1, over))


def _n_log_n(counts: Array) -> Array:
    return counts * np.log(np.maximum(counts, 1))


def _ratio(information: Array, entropy: Array) -> Array:
    """Divides; where nothing varies, all is told."""
    # What rounding leaves of an entropy of 0 is none.
    varies = entropy > 1e-9
    return np.where(varies, np.clip(information / np.where(varies, entropy, 1), 0, 1), 1.0)


class _Geometry:
    """The rows drawn, as points."""

    def __init__(self, predictions: Predictions, groups: Array) -> None:
        sampled = predictions.sampled
        assert sampled is not None  # the caller looked
        self._rows, self._points, self._fits = sampled.rows, sampled.points.astype(np.float64), sampled.fits
        self._total_rows = len(groups)
        self._groups, self._clusters = int(groups.max()) + 1, predictions.clusters
        self._group = groups[sampled.rows]
        self._key = self._group * self._clusters + predictions.scores[sampled.rows]
        ones, places = np.ones(len(self._key)), np.arange(len(self._key))
        # Not above: monitoring, which measures no clusters, runs where TFDV does, on an older libc without SciPy.
        from scipy import sparse

        self._of_key = sparse.csr_matrix(
            (ones, (self._key, places)), shape=(self._groups * self._clusters, len(self._key))
        )

    def metrics(self, draw: Array) -> dict[str, Array]:
        """Gives each metric, [groups]."""
        weights = np.bincount(draw, minlength=self._total_rows)[self._rows].astype(np.float64)
        sums, shape = self._of_key, (self._groups, self._clusters)
        counts = sums @ weights
        points = self._points * weights[:, None]
        centres = (sums @ points) / np.maximum(counts, 1)[:, None]
        squares = np.square(self._points - centres[self._key]).sum(axis=1)
        spread = ((sums @ (weights * np.sqrt(squares))) / np.maximum(counts, 1)).reshape(shape)
        within = (sums @ (weights * squares)).reshape(shape).sum(axis=1)
        counts, centres = counts.reshape(shape), centres.reshape(*shape, -1)
        rows, used = counts.sum(axis=1), (counts > 0).sum(axis=1)
        middle = (counts[..., None] * centres).sum(axis=1) / rows[:, None]
        between = (counts * np.square(centres - middle[:, None]).sum(axis=2)).sum(axis=1)
        several = (used > 1) & (used < rows)
        fits = np.bincount(self._group, weights=weights * self._fits, minlength=self._groups)
        ratio = np.where(within > 0, between * (rows - used) / (within * (used - 1)), 1.0)
        return {
            "silhouette": fits / rows,
            "calinski_harabasz": np.where(several, ratio, np.nan),
            "davies_bouldin": np.where(
                several, [_davies_bouldin(*one) for one in zip(counts, centres, spread, strict=True)], np.nan
            ),
        }


def _davies_bouldin(counts: Array, centres: Array, spread: Array) -> float:
    """Computes the mean, over clusters, of the largest ratio of spreads to distance (Davies, Bouldin, 1979)."""
    used = counts > 0
    centres, spread = centres[used], spread[used]
    if len(centres) < 2:
        return np.nan
    apart = np.sqrt(np.square(centres[:, None] - centres).sum(axis=2))
    ratios = np.where(apart > 0, (spread[:, None] + spread) / np.where(apart > 0, apart, 1), 0.0)
    return float(ratios.max(axis=1).mean())


def stacked(names: Sequence[str], values: Mapping[str, Array]) -> Array:
    """Puts the metrics in their order: from [resamples, groups] each to [metrics, groups, resamples]."""
    return np.stack([values[name].T for name in names])
