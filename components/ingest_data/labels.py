"""What a label must be so that something can be learnt, and columns that give it away."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from components.errors import DataRejectedError
from components.ingest_data.readers import shown
from components.settings import Task

_ENOUGH_VALUES = 3
_SAMPLE_ROWS = 16_384
_LEAST_ROWS = 200
_ROWS_A_VALUE = 20
_LEAK_CORRELATION = 0.9999


class LabelValues:
    """The label's values in one split, as far as they must be known: up to three."""

    def __init__(self, split: str, task: Task) -> None:
        self._split = split
        self._task = task
        self._values: list[object] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Takes note of the label's values in some rows."""
        if self._task.label is not None and len(self._values) < _ENOUGH_VALUES:
            found = pc.unique(pc.drop_null(batch.column(self._task.label)))[: 2 * _ENOUGH_VALUES].to_pylist()
            self._values = list(dict.fromkeys([*self._values, *found]))

    def check(self, *, varied: bool) -> None:
        """Refuses a label that nothing can be learnt from.

        Args:
            varied: whether there must be at least two values.

        Raises:
            DataRejectedError: no value, one value, or more than two for a binary or anomaly_detection task.
        """
        if self._task.label is None:
            return
        label = f"task.label '{self._task.label}'"
        if not self._values:
            way_out = ", or leave task.label out" if self._task.is_unsupervised else ""
            raise DataRejectedError(
                f"{label} is missing in every row of split '{self._split}'; supply labelled rows{way_out}"
            )
        if varied and len(self._values) == 1:
            raise DataRejectedError(
                f"{label} has one value in split '{self._split}', {shown(self._values[0])}; two are needed to learn "
                "anything: check the label, data.window and data.split"
            )
        if self._task.type in ("binary", "anomaly_detection") and len(self._values) > 2:
            values = ", ".join(shown(value) for value in self._values[:_ENOUGH_VALUES])
            way_out = "" if self._task.is_unsupervised else "set task.type to multiclass or regression, or "
            raise DataRejectedError(
                f"{label} has more than two values in split '{self._split}', e.g. {values}; {way_out}fix the label"
            )


class LeakSample:
    """The first rows of the train split, to look for columns that give the label away."""

    def __init__(self, task: Task, keys: Sequence[str]) -> None:
        self._task = task
        self._keys = keys
        self._batches: list[pa.RecordBatch] = []
        self._rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Takes note of some rows, until there are enough."""
        if self._rows < _SAMPLE_ROWS:
            self._batches.append(batch.slice(0, _SAMPLE_ROWS - self._rows))
            self._rows += self._batches[-1].num_rows

    def warnings(self) -> list[str]:
        """Says for each suspicious column why; it is a hint, not a proof. What learns from no label needs none."""
        if self._rows < _LEAST_ROWS or self._task.label is None or self._task.is_unsupervised:
            return []
        sample = pa.Table.from_batches(self._batches)
        label = sample.column(self._task.label)
        found = []
        for name in sample.column_names:
            if name == self._task.label or name in self._keys:
                continue
            reason = _reason(sample.column(name), label, self._task)
            if reason:
                found.append(
                    f"label leak? In the first {self._rows:,} train rows, column '{name}' {reason}; remove it from the "
                    "features unless it is known before the prediction"
                )
        return found


def _reason(values: pa.ChunkedArray, label: pa.ChunkedArray, task: Task) -> str | None:
    if task.type == "regression":
        return "is a linear function of the label" if _correlates(values, label) else None
    pairs = pa.table({"value": values, "label": label}).drop_null()
    labels_a_value = pairs.group_by("value").aggregate([("label", "count_distinct")]).column("label_count_distinct")
    pure = len(labels_a_value) > 1 and pc.max(labels_a_value).as_py() == 1
    if pure and len(labels_a_value) * _ROWS_A_VALUE <= len(pairs):
        return "determines the label: each of its values goes with one label"
    if pa.types.is_string(values.type):
        return None
    bounds = pairs.group_by("label").aggregate([("value", "min"), ("value", "max")]).sort_by("value_min")
    lows, highs = bounds.column("value_min").to_pylist(), bounds.column("value_max").to_pylist()
    if len(lows) > 1 and all(high < low for high, low in zip(highs, lows[1:], strict=False)):
        return "determines the label: its values for each label do not overlap"
    return None


def _correlates(values: pa.ChunkedArray, label: pa.ChunkedArray) -> bool:
    """Tells whether two numeric columns correlate perfectly (Pearson), where neither is constant."""
    if pa.types.is_string(values.type) or pa.types.is_string(label.type):
        return False
    pairs = pa.table({"x": values.cast(pa.float64()), "y": label.cast(pa.float64())}).drop_null()
    x, y = (pc.subtract(column, pc.mean(column)) for column in pairs.columns)
    xx, yy, xy = (pc.sum(pc.multiply(a, b)).as_py() for a, b in ((x, x), (y, y), (x, y)))
    return bool(xx and yy and xy * xy >= _LEAK_CORRELATION**2 * xx * yy)
