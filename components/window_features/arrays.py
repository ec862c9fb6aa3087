"""Window features of many rows at once.

Rows are sorted by key and time; the events that one sees are then a range [first, end) of that order, and exact integer
sums of a range are differences of running sums.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.settings import WindowFeature, WindowFeatures
from components.window_features.columns import type_of

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_MANTISSA_BITS = 24
_EXACT_BITS = 62


def compute(windows: WindowFeatures, times: pa.Array, columns: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    """Computes all window features of some rows, of which each sees only those before it.

    Args:
        windows: which features.
        times: int64 [rows], milliseconds since 1970; missing: the row has no features and is seen by none.
        columns: keys and values, by name, [rows]: string, int64 or float32, or dictionaries of these.

    Returns:
        By feature, [rows], int64 or float32; missing where there is no value.
    """
    timelines: dict[tuple[str, ...], _Timeline] = {}
    values: dict[tuple[tuple[str, ...], str], _Values] = {}
    found = {}
    for feature in windows.features:
        key = tuple(windows.key_of(feature))
        if key not in timelines:
            timelines[key] = _Timeline(times, [columns[name] for name in key])
        timeline = timelines[key]
        of = (key, feature.column)
        if feature.column and of not in values:
            values[of] = _Values(columns[feature.column].take(timeline.order))
        found[feature.name] = timeline.in_rows(_feature(feature, timeline, values.get(of)), type_of(feature))
    return found


class _Timeline:
    """Rows in the order of their key and time; those without either are left out."""

    def __init__(self, times: pa.Array, keys: Sequence[pa.Array]) -> None:
        self._rows = len(times)
        valid = np.logical_and.reduce([_present(array) for array in (times, *keys)])
        rows = np.flatnonzero(valid)
        moments = pc.fill_null(times, 0).to_numpy()[rows]
        codes = _codes([array.take(rows) for array in keys])
        sorting = np.lexsort((moments, codes))
        self._sorted = rows[sorting]
        self.order = pa.array(self._sorted)
        """The rows, [events]."""
        self.times: Integers = moments[sorting]
        starts = np.diff(codes[sorting], prepend=-1) != 0
        self._starts = _last(starts)
        self.ends: Integers = _last(starts | (np.diff(self.times, prepend=0) != 0))
        """Where what each event sees ends: before the first event of its key at its time."""
        self._firsts: dict[int, Integers] = {}

    def firsts(self, window_ms: int) -> Integers:
        """Tells where what each event sees begins: behind the last event of its key that is a window old."""
        if window_ms not in self._firsts:
            self._firsts[window_ms] = _first_after(self.times, self.times - window_ms, self._starts, self.ends)
        return self._firsts[window_ms]

    def in_rows(self, found: tuple[npt.NDArray[Any], Flags], kind: pa.DataType) -> pa.Array:
        """Puts values of events, and whether there is one, into the order of the rows."""
        values, given = found
        result, missing = np.zeros(self._rows, kind.to_pandas_dtype()), np.ones(self._rows, bool)
        result[self._sorted], missing[self._sorted] = np.where(given, values, 0), ~given
        return pa.array(result, kind, mask=missing)


class _Values:
    """A column of the events of a timeline."""

    def __init__(self, array: pa.Array) -> None:
        self.array = array
        self.given = _present(array)
        if pa.types.is_floating(array.type):
            self.given &= np.isfinite(pc.fill_null(array, 0).to_numpy(zero_copy_only=False))

    def scaled(self, most: int) -> tuple[npt.NDArray[Any], int]:
        """Gives integers and the power of two by which they are larger than the values; 0 for missing ones.

        Args:
            most: so many of them are added up: they are int64 where that fits, and else Python's.
        """
        plain = np.where(self.given, pc.fill_null(self.array, 0).to_numpy(zero_copy_only=False), 0)
        if pa.types.is_integer(self.array.type):
            return (plain if _bits(plain) + most.bit_length() <= _EXACT_BITS else plain.astype(object)), 0
        fractions, exponents = np.frexp(plain.astype(np.float64))
        mantissas = np.ldexp(fractions, _MANTISSA_BITS).astype(np.int64)
        exponents = exponents.astype(np.int64) - _MANTISSA_BITS
        nonzero = mantissas != 0
        lowest = int(exponents[nonzero].min()) if nonzero.any() else 0
        shifts = np.where(nonzero, exponents - lowest, 0)
        if _MANTISSA_BITS + int(shifts.max(initial=0)) + most.bit_length() <= _EXACT_BITS:
            return mantissas << shifts, -lowest
        return mantissas.astype(object) << shifts.astype(object), -lowest


def _feature(feature: WindowFeature, timeline: _Timeline, values: _Values | None) -> tuple[npt.NDArray[Any], Flags]:
    firsts, ends = timeline.firsts(feature.window_ms), timeline.ends
    always = np.ones(len(ends), bool)
    match feature.of:
        case "count":
            return ends - firsts + 1, always
        case "time_since_last":
            seen = ends > firsts
            before = timeline.times[np.maximum(ends - 1, 0)] if len(ends) else timeline.times
            return ((timeline.times - before) / 1000).astype(np.float32), seen
    assert values is not None  # the settings ask for a column
    if feature.of == "distinct":
        return _distinct(values, firsts, ends), always
    sums = _sums(values, firsts, ends)
    if feature.of == "mean":
        counts = _ranges(values.given.astype(np.int64), firsts, ends)
        always = counts > 0
        sums = sums / np.maximum(counts, 1)
    with np.errstate(over="ignore"):
        narrow = sums.astype(np.float32)
    return narrow, always & np.isfinite(narrow)


def _sums(values: _Values, firsts: Integers, ends: Integers) -> Floats:
    """Adds up exactly, and rounds once."""
    scaled, bits = values.scaled(int((ends - firsts).max(initial=0)) + 1)
    return np.ldexp(_ranges(scaled, firsts, ends).astype(np.float64), -bits)


def _ranges(integers: npt.NDArray[Any], firsts: Integers, ends: Integers) -> npt.NDArray[Any]:
    """Adds up what each event sees, and itself. A running sum may wrap around: a difference of two is right again."""
    running = np.concatenate([np.zeros(1, integers.dtype), np.cumsum(integers)])
    return running[ends] - running[firsts] + integers


def _distinct(values: _Values, firsts: Integers, ends: Integers) -> Integers:
    """Counts different values.

    Of each value that an event sees, the last place counts. A place is that for a range of events, because what events
    see begins and ends later from event to event.
    """
    codes, count = _codes([_comparable(values.array)]), len(ends)
    places = np.flatnonzero(values.given)
    by_value = places[np.argsort(codes[places], kind="stable")]
    goes_on = np.diff(codes[by_value], prepend=-1) == 0
    following = np.full(count, count)
    following[by_value[:-1][goes_on[1:]]] = by_value[1:][goes_on[1:]]
    begins = np.searchsorted(ends, places, side="right")
    stops = np.minimum(
        np.searchsorted(ends, following[places], side="right"), np.searchsorted(firsts, places, side="right")
    )
    is_last = begins < stops
    steps = np.bincount(begins[is_last], minlength=count + 1) - np.bincount(stops[is_last], minlength=count + 1)
    # The event's own value counts where no place before has it.
    before = np.where(goes_on, np.roll(by_value, 1), -1)
    own = np.full(count, count)
    own[by_value] = before[_last(~goes_on | (np.diff(ends[by_value], prepend=-1) != 0))]
    return np.cumsum(steps)[:count] + (own < firsts)


def _last(flags: Flags) -> Integers:
    """Gives the place of the last flag that is set, up to each."""
    places: Integers = np.maximum.accumulate(np.where(flags, np.arange(len(flags)), 0))
    return places


def _first_after(times: Integers, limits: Integers, low: Integers, high: Integers) -> Integers:
    """Finds where times, which rise from low to high (excluded), are first above a limit; by bisection, all at once."""
    while (searched := low < high).any():
        middle = (low + high) // 2
        above = times[np.minimum(middle, len(times) - 1)] > limits
        high = np.where(searched & above, middle, high)
        low = np.where(searched & ~above, middle + 1, low)
    return low


def _comparable(array: pa.Array) -> pa.Array:
    # 0.0 and -0.0 are one value.
    return pc.add(array, pa.scalar(0, array.type)) if pa.types.is_floating(array.type) else array


def _codes(arrays: Sequence[pa.Array]) -> Integers:
    """Numbers the combinations of values, [rows]."""
    codes: Integers | None = None
    for array in arrays:
        encoded = array if pa.types.is_dictionary(array.type) else pc.dictionary_encode(array)
        own = pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False).astype(np.int64)
        if codes is None:
            codes = own
        else:
            codes = np.unique(codes * max(len(encoded.dictionary), 1) + own, return_inverse=True)[1].reshape(-1)
    assert codes is not None  # a key has at least one column
    return codes


def _present(array: pa.Array) -> Flags:
    flags: Flags = pc.is_valid(array).to_numpy(zero_copy_only=False)
    return flags


def _bits(integers: Integers) -> int:
    if not len(integers):
        return 0
    return max(int(integers.max()).bit_length(), int(integers.min()).bit_length())
