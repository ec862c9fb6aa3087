"""How predictions are distributed: counted while they stream by, compared with those of another span."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.model_spec import ModelSpec
from components.write_predictions.record import Distribution

_BINS = 40
_MOST_CLASSES = 1000
_TAIL = 0.005
"""Share of a number's first rows that the outer bins hold on each side."""


class Counting:
    """Counts the predictions of one model."""

    def __init__(self, column: str, edges: Sequence[float] | None) -> None:
        """Starts with nothing.

        Args:
            column: that is counted: numbers, or classes.
            edges: of the bins of a number; None: those of the first rows.
        """
        self.column = column
        self._edges = None if edges is None else np.asarray(edges, float)
        self._counts = np.zeros(0, np.int64)
        self._classes: Counter[str] = Counter()
        self._sum = 0.0
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        """Takes rows; those without a prediction (a challenger refused them) do not count."""
        values = table[self.column].drop_null()
        if not len(values):
            return
        if pa.types.is_string(values.type):
            for one in pc.value_counts(values):
                if one["values"].as_py() in self._classes or len(self._classes) < _MOST_CLASSES:
                    self._classes[one["values"].as_py()] += one["counts"].as_py()
            return
        numbers = values.to_numpy().astype(float)
        if self._edges is None:
            self._edges = _edges_of(numbers)
        if not len(self._counts):
            self._counts = np.zeros(len(self._edges) - 1, np.int64)
        inside = np.clip(numbers, self._edges[0], self._edges[-1])
        self._counts += np.histogram(inside, self._edges)[0]
        self._sum += float(numbers.sum())
        self._rows += len(numbers)

    def result(self) -> Distribution:
        """Gives what was counted."""
        return Distribution(
            edges=[] if self._edges is None else self._edges.tolist(),
            counts=self._counts.tolist(),
            classes=dict(self._classes.most_common()),
            mean=self._sum / self._rows if self._rows else None,
        )


def predicted_column(spec: ModelSpec) -> str:
    """Names the output that is counted: the class where there is one, else the number."""
    return next((output.name for output in spec.outputs if output.dtype == "string"), spec.outputs[0].name)


def edges_for(spec: ModelSpec, before: Distribution | None) -> Sequence[float] | None:
    """Gives the edges of the bins: those of the span before, so that both compare; of a probability, 0 to 1."""
    if before is not None and before.edges:
        return before.edges
    if spec.outputs[0].name in ("probability", "anomaly_score"):
        return [float(edge) for edge in np.linspace(0, 1, _BINS + 1)]
    return None


def distance(one: Distribution, other: Distribution) -> float | None:
    """Gives how far two distributions are apart, 0 to 1; None: they do not compare.

    Numbers: the Kolmogorov-Smirnov distance at the edges; classes: the largest difference of one's share.
    """
    if one.classes and other.classes:
        totals = sum(one.classes.values()), sum(other.classes.values())
        names = one.classes | other.classes
        return max(abs(one.classes.get(n, 0) / totals[0] - other.classes.get(n, 0) / totals[1]) for n in names)
    if not (sum(one.counts) and sum(other.counts)) or one.edges != other.edges:
        return None
    first, second = (np.cumsum(counts) / sum(counts) for counts in (one.counts, other.counts))
    return float(np.abs(first - second).max())


def _edges_of(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    low, high = np.quantile(values, [_TAIL, 1 - _TAIL])
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, _BINS + 1)
