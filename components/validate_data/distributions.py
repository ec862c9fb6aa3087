"""What the report shows of each column: figures of every split, and shapes on common axes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.data_statistics.statistics import FeatureStatistics, common
from components.validate_data.comparisons import shares
from components.validate_data.summaries import Summary

Numbers = npt.NDArray[np.float64]

_BINS = 24
_SINGLE_VALUES = 24
"""A whole number with at most so many distinct values gets a bar for each."""
_CATEGORIES = 8
_CLIPPED = 0.005
"""Share at each end that may lie outside the axis when it would stretch the axis a lot."""


@dataclass(frozen=True)
class Row:
    """One figure, in every split."""

    name: str
    cells: list[str]


@dataclass(frozen=True)
class Bars:
    """A histogram of numbers."""

    series: list[dict[str, object]]
    """As the macro `bars` takes them: `name` and `heights`, shares of the values in each bin."""
    labels: list[str]
    """Of each bin, or of both ends."""
    clipped: bool
    """Whether the outer bins also hold what lies beyond the axis."""


@dataclass(frozen=True)
class Category:
    """One value of a categorical column."""

    label: str
    shares: list[float]
    """In every split."""
    rest: bool = False
    """All other values together."""


@dataclass(frozen=True)
class Distribution:
    """One column."""

    name: str
    type: str
    figures: list[Row]
    bars: Bars | None
    """Of numbers."""
    categories: list[Category]
    """Of text and categorical integers, the most frequent first."""
    width: float
    """The largest share among the categories: the length of the longest bar."""
    note: str = "no values"
    """In place of a picture."""


def distributions(summaries: list[Summary], times: Iterable[str], names: Iterable[str]) -> list[Distribution]:
    """Describes the named columns.

    Args:
        summaries: of the splits, in the order of the series.
        times: columns that count seconds since 1970.
        names: the columns, in the order wanted.
    """
    instants = set(times)
    return [_distribution(name, summaries, name in instants) for name in names]


def _distribution(name: str, summaries: list[Summary], is_time: bool) -> Distribution:
    statistics = [summary.features.get(name) for summary in summaries]
    known = [one for one in statistics if one is not None]
    if any(one.HasField("string_stats") for one in known):
        figures = _text_figures(summaries, name, measured=any(one.type == one.STRING for one in known))
        if all(_mostly_unique(one) for one in known):
            return Distribution(name, "text", figures, None, [], 0.0, "nearly all values differ")
        categories = _categories(statistics)
        width = max((share for one in categories if not one.rest for share in one.shares), default=0.0)
        return Distribution(name, "category", figures, None, categories, width)
    write = _instant if is_time else _number
    figures = _number_figures(summaries, name, write, spread=not is_time)
    return Distribution(name, "time" if is_time else "number", figures, _bars(name, summaries, write), [], 0.0)


def _number_figures(summaries: list[Summary], name: str, write: Callable[[float], str], spread: bool) -> list[Row]:
    rows = [
        _row("missing", summaries, name, _missing),
        _row("mean", summaries, name, lambda one: write(one.num_stats.mean)),
        _row("std", summaries, name, lambda one: _number(one.num_stats.std_dev)) if spread else None,
        _row("min", summaries, name, lambda one: write(one.num_stats.min)),
        _row("median", summaries, name, lambda one: write(one.num_stats.median)),
        _row("max", summaries, name, lambda one: write(one.num_stats.max)),
    ]
    return [row for row in rows if row is not None]


def _text_figures(summaries: list[Summary], name: str, measured: bool) -> list[Row]:
    rows = [
        _row("missing", summaries, name, _missing),
        _row("distinct", summaries, name, lambda one: f"{one.string_stats.unique:,}"),
    ]
    if measured:
        rows.append(_row("mean length", summaries, name, lambda one: _number(round(one.string_stats.avg_length, 1))))
    return rows


def _mostly_unique(one: FeatureStatistics) -> bool:
    return bool(one.string_stats.unique > max(100, 0.9 * common(one).num_non_missing))


def _row(label: str, summaries: list[Summary], name: str, figure: Callable[[FeatureStatistics], str]) -> Row:
    cells = []
    for summary in summaries:
        one = summary.features.get(name)
        blank = one is None or (label != "missing" and not common(one).num_non_missing)
        cells.append("–" if one is None or blank else figure(one))
    return Row(label, cells)


def _missing(one: FeatureStatistics) -> str:
    counts = common(one)
    rows = counts.num_missing + counts.num_non_missing
    return f"{100 * counts.num_missing / rows:.1f} %" if rows else "–"


def _categories(statistics: list[FeatureStatistics | None]) -> list[Category]:
    by_split = [shares(one) if one is not None else {} for one in statistics]
    leading = dict.fromkeys(label for split in by_split for label in list(split)[:_CATEGORIES])
    frequent = sorted(leading, key=lambda label: -max(split.get(label, 0.0) for split in by_split))[:_CATEGORIES]
    shown = [Category(_short(label), [split.get(label, 0.0) for split in by_split]) for label in frequent]
    rest = [max(0.0, 1 - sum(split.get(label, 0.0) for label in frequent)) if split else 0.0 for split in by_split]
    return [*shown, Category("all others", rest, rest=True)] if max(rest, default=0) > 1e-6 else shown


def _bars(name: str, summaries: list[Summary], write: Callable[[float], str]) -> Bars | None:
    columns = [_finite(summary.sample, name) for summary in summaries]
    pooled = np.concatenate(columns)
    if not pooled.size:
        return None
    single = np.unique(pooled)
    if single.size <= _SINGLE_VALUES and (single == np.round(single)).all():
        heights = [[float((column == value).mean()) if column.size else 0.0 for value in single] for column in columns]
        # The macro cuts more than a dozen labels down to nothing.
        ends = single if single.size <= 12 else single[[0, -1]]
        return Bars(_series(summaries, heights), [write(float(value)) for value in ends], clipped=False)
    low, high = _axis(pooled)
    clipped = bool(low > pooled.min() or high < pooled.max())
    heights = [_histogram(column, low, high) for column in columns]
    return Bars(_series(summaries, heights), [write(low), write(high)], clipped)


def _series(summaries: list[Summary], heights: list[list[float]]) -> list[dict[str, object]]:
    return [{"name": summary.split.name, "heights": one} for summary, one in zip(summaries, heights, strict=True)]


def _histogram(column: Numbers, low: float, high: float) -> list[float]:
    counts, _ = np.histogram(np.clip(column, low, high), bins=_BINS, range=(low, high))
    return [float(share) for share in counts / max(column.size, 1)]


def _axis(values: Numbers) -> tuple[float, float]:
    """Gives the whole range, or its middle where a few outliers would leave one bar."""
    low, high = float(values.min()), float(values.max())
    near, far = (float(one) for one in np.quantile(values, [_CLIPPED, 1 - _CLIPPED]))
    return (near, far) if near < far and high - low > 4 * (far - near) else (low, high)


def _finite(sample: pa.Table, name: str) -> Numbers:
    if name not in sample.column_names:
        return np.empty(0)
    values = sample[name].cast(pa.float64(), safe=False).to_numpy()
    return np.asarray(values[np.isfinite(values)])


def _number(value: float) -> str:
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.4g}"


def _instant(value: float) -> str:
    try:
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d") if isfinite(value) else str(value)
    except (OverflowError, ValueError, OSError):
        return _number(value)


def _short(label: str) -> str:
    return label if len(label) <= 40 else f"{label[:39]}…"
