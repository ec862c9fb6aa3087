"""How right the model was, on rows whose label is known by now: with intervals, by slice, by version."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.monitor_model.observation import Labelled
from components.monitoring_record import CalibrationFacts, Estimate, QualityFacts
from components.predictions import HIGHER_IS_BETTER, Predictions
from components.resampled_metrics import points, statistic
from components.settings import Bootstrap, Task, metrics_of
from components.slices import Partition

_RESOLUTION = 2048
_RESAMPLED_ROWS = 50_000
"""Of more, intervals are those of so many drawn ones, made narrower by the root of the ratio."""
_VALUES_AT_ONCE = 500_000


class Quality:
    """The metrics of the labelled rows."""

    def __init__(
        self,
        labelled: Labelled,
        task: Task,
        classes: Sequence[str],
        threshold: float,
        quantile: float,
        bootstrap: Bootstrap,
    ) -> None:
        """Puts the rows into an order of their own, so that the order of the log decides nothing.

        Args:
            labelled: the rows.
            task: section `task`.
            classes: of the model, in its order.
            threshold: binary: from which probability on a row counts as positive.
            quantile: of quantile_loss.
            bootstrap: section `monitoring.bootstrap`.
        """
        self._task, self._classes, self._bootstrap = task, tuple(classes), bootstrap
        self._threshold, self._quantile = threshold, quantile
        flat = labelled.scores.reshape(len(labelled), -1)
        self._order = np.lexsort((*flat.T, labelled.truth, labelled.versions.astype(str)))
        self._labelled = labelled
        dtype = {"binary": bool, "multiclass": np.int64, "regression": np.float64}[task.type]
        self._truth = labelled.truth[self._order].astype(dtype)
        scores = labelled.scores[self._order]
        self._scores = scores.astype(np.float64) if task.type == "regression" else np.nan_to_num(np.clip(scores, 0, 1))

    def table(self) -> pa.Table:
        """The columns of the slices, in the order of the rows here."""
        return self._labelled.slices.take(pa.array(self._order))

    def of_version(self, version: str) -> npt.NDArray[np.bool_]:
        """Tells which rows a version answered."""
        return np.asarray(self._labelled.versions[self._order] == version, np.bool_)

    def all_rows(self) -> QualityFacts:
        """Measures all rows together."""
        return self.measure(np.ones(len(self._truth), np.bool_), "")

    def measure(self, chosen: npt.NDArray[np.bool_], name: str) -> QualityFacts:
        """Measures some rows together."""
        return self._groups(chosen, np.zeros(int(chosen.sum()), np.int64), [name], self._bootstrap.confidence)[0]

    def slices(self, partition: Partition, least: int) -> list[QualityFacts]:
        """Measures the groups of a partition of all rows that have enough of them.

        As many intervals are looked at, each is widened (Bonferroni).
        """
        rows = partition.rows
        large = np.flatnonzero(rows >= least)
        if not large.size:
            return []
        numbers = np.full(len(rows), -1)
        numbers[large] = np.arange(len(large))
        groups = numbers[partition.groups]
        names = [", ".join(f"{c}={v}" for c, v in partition.named(int(group)).items()) for group in large]
        confidence = 1 - (1 - self._bootstrap.confidence) / len(large)
        return self._groups(groups >= 0, groups[groups >= 0], names, confidence)

    def calibration(self) -> CalibrationFacts:
        """Compares means of predictions and of what came true, with a normal interval."""
        if self._task.type == "binary":
            gaps = self._scores.astype(np.float64) - self._truth
        elif self._task.type == "multiclass":
            hits = self._scores.argmax(axis=1) == self._truth
            gaps = self._scores.max(axis=1).astype(np.float64) - hits
        else:
            spread = float(self._truth.std()) or 1.0
            gaps = (self._scores - self._truth) / spread
        mean = float(gaps.mean())
        reach = _normal_quantile(self._bootstrap.confidence) * float(gaps.std(ddof=1)) / np.sqrt(len(gaps))
        return CalibrationFacts(gap=Estimate(value=mean, low=mean - float(reach), high=mean + float(reach)))

    def _groups(
        self, chosen: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64], names: Sequence[str], confidence: float
    ) -> list[QualityFacts]:
        predictions = self._predictions(self._truth[chosen], self._scores[chosen])
        values = points(predictions, groups)
        errors = self._standard_errors(predictions, groups, len(names))
        reach = _normal_quantile(confidence) * errors
        rows = np.bincount(groups, minlength=len(names))
        metrics = metrics_of(self._task)
        return [
            QualityFacts(
                name=name,
                rows=int(rows[index]),
                metrics={metric: _estimate(values[m, index], reach[m, index]) for m, metric in enumerate(metrics)},
            )
            for index, name in enumerate(names)
        ]

    def _standard_errors(
        self, predictions: Predictions, groups: npt.NDArray[np.int64], count: int
    ) -> npt.NDArray[np.float64]:
        """Gives the standard error of each metric of each group, by resampling rows (Efron 1979)."""
        generator = np.random.default_rng(self._bootstrap.seed)
        rows, wanted = len(predictions), self._bootstrap.resamples
        if wanted < 2:
            return np.full((len(metrics_of(self._task)), count), np.nan)
        factor = 1.0
        if rows > _RESAMPLED_ROWS:
            kept = np.sort(generator.choice(rows, _RESAMPLED_ROWS, replace=False))
            if len(np.unique(groups[kept])) == count:
                predictions = self._predictions(predictions.truth[kept], predictions.scores[kept])
                groups, factor, rows = groups[kept], float(np.sqrt(_RESAMPLED_ROWS / rows)), _RESAMPLED_ROWS
        compute = statistic(predictions, groups, _RESOLUTION)
        step = max(1, _VALUES_AT_ONCE // rows)
        parts = [
            compute(generator.integers(0, rows, (min(step, wanted - start), rows))) for start in range(0, wanted, step)
        ]
        drawn = np.concatenate(parts, axis=-1)
        known = ~np.isnan(drawn)
        enough = known.sum(axis=-1) > 1
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.where(known, drawn, 0).sum(axis=-1) / known.sum(axis=-1)
            squares = np.where(known, (drawn - means[..., None]) ** 2, 0).sum(axis=-1) / (known.sum(axis=-1) - 1)
        return np.asarray(np.where(enough, np.sqrt(squares), np.nan) * factor, np.float64)

    def _predictions(self, truth: npt.NDArray[np.generic], scores: npt.NDArray[np.generic]) -> Predictions:
        return Predictions(self._task, truth, scores, self._classes, self._threshold, self._quantile)


def loss(reference: Estimate, now: Estimate, metric: str) -> tuple[float, float] | None:
    """Tells how much worse a metric has become, and how much of that is certain: the lower end of its interval.

    None: one of the two is undefined.
    """
    if reference.value is None or now.value is None:
        return None
    worse = reference.value - now.value if metric in HIGHER_IS_BETTER else now.value - reference.value
    reach = float(np.hypot(_reach(reference), _reach(now)))
    return worse, worse - reach


def _reach(one: Estimate) -> float:
    return (one.high - one.low) / 2 if one.low is not None and one.high is not None else 0.0


def _estimate(value: float, reach: float) -> Estimate:
    if np.isnan(value):
        return Estimate(value=None)
    if np.isnan(reach):
        return Estimate(value=float(value))
    return Estimate(value=float(value), low=float(value - reach), high=float(value + reach))


def _normal_quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
