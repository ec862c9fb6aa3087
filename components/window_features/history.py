"""Window features of one event after another, of which a store keeps what windows still need.

A key's events lie in chunks, sorted by time, so that an event rewrites one chunk and reads those of its longest window.
"""

import math
from bisect import bisect_right, insort
from collections.abc import Sequence
from itertools import chain
from typing import Any, Protocol

from components.settings import WindowFeatures
from components.settings.window_features import milliseconds
from components.window_features.values import as_float32

_CHUNK_EVENTS = 64
_INDEX = "index"

Stored = list[Any]
"""An event: its time, then the values of `History.columns`."""


class Store(Protocol):
    """Keeps values of JSON by name, of one key of events."""

    def get(self, key: Any, default: Any = None) -> Any:
        """Gives a value."""
        ...

    def set(self, key: Any, value: Any) -> None:
        """Takes a value."""
        ...

    def delete(self, key: Any) -> None:
        """Forgets a value."""
        ...


class History:
    """The features that share their key's columns."""

    def __init__(self, windows: WindowFeatures, key: Sequence[str]) -> None:
        """Takes which features.

        Args:
            windows: the section.
            key: columns of the key, of at least one feature.
        """
        features = [feature for feature in windows.features if windows.key_of(feature) == list(key)]
        self.columns = list(dict.fromkeys(feature.column for feature in features if feature.column))
        """Of which an event's values are kept."""
        self.names = [feature.name for feature in features]
        self._features = [
            (feature.of, feature.window_ms, self.columns.index(feature.column) if feature.column else -1)
            for feature in features
        ]
        self._longest = max(feature.window_ms for feature in features)
        self._kept = self._longest + milliseconds(windows.lateness)

    def add(self, store: Store, time: int, values: Sequence[Any], now: int) -> list[Any]:
        """Gives the features of an event, and keeps it for those that come after it.

        Args:
            store: of the event's key.
            time: of the event, in milliseconds since 1970.
            values: of `columns`: integers, finite numbers that float32 has, text, or None.
            now: when the event was written. What is older than this, and than the event, by more than the longest
                window and the lateness is forgotten.

        Returns:
            By `names`: integers, numbers that float32 has, or None.
        """
        index: list[list[int]] = store.get(_INDEX) or []  # of each chunk: its name, first and last time
        low = time - self._longest
        chunks = {
            name: store.get(name) for name, first, last in index if last > low and first < time
        }  # in the order of time
        seen = [event for event in chain.from_iterable(chunks.values()) if low < event[0] < time]
        found = self._computed(time, values, seen)
        self._forget(store, index, min(time, now) - self._kept)
        self._keep(store, index, chunks, [time, *values])
        return found

    def missing(self) -> list[Any]:
        """Gives the features of an event without a key or a time."""
        return [None] * len(self._features)

    def _computed(self, time: int, values: Sequence[Any], seen: list[Stored]) -> list[Any]:
        times = [event[0] for event in seen]
        found: list[Any] = []
        for of, window_ms, place in self._features:
            first = bisect_right(times, time - window_ms)
            if of == "count":
                found.append(len(seen) - first + 1)
            elif of == "time_since_last":
                found.append(as_float32((time - times[-1]) / 1000) if first < len(seen) else None)
            else:
                given = [event[place + 1] for event in seen[first:]]
                given.append(values[place])
                found.append(_aggregated(of, [value for value in given if value is not None]))
        return found

    def _forget(self, store: Store, index: list[list[int]], before: int) -> None:
        while index and index[0][2] <= before:
            store.delete(index.pop(0)[0])

    def _keep(self, store: Store, index: list[list[int]], chunks: dict[int, list[Stored]], event: Stored) -> None:
        time = event[0]
        place = max(bisect_right([first for _, first, _ in index], time) - 1, 0)
        newest = max((name for name, *_ in index), default=-1)
        is_last = place >= len(index) - 1
        if not index or (is_last and index[place][2] <= time and self._is_full(store, index[place][0], chunks)):
            index.append([newest + 1, time, time])
            store.set(newest + 1, [event])
        else:
            name = index[place][0]
            events = chunks.get(name) or store.get(name)
            insort(events, event, key=_time)
            if len(events) >= 2 * _CHUNK_EVENTS:
                later = events[_CHUNK_EVENTS:]
                events = events[:_CHUNK_EVENTS]
                index.insert(place + 1, [newest + 1, later[0][0], later[-1][0]])
                store.set(newest + 1, later)
            index[place] = [name, events[0][0], events[-1][0]]
            store.set(name, events)
        store.set(_INDEX, index)

    def _is_full(self, store: Store, name: int, chunks: dict[int, list[Stored]]) -> bool:
        return len(chunks.get(name) or store.get(name)) >= _CHUNK_EVENTS


def _aggregated(of: str, values: list[Any]) -> Any:
    if of == "distinct":
        return len(set(values))
    # fsum adds exactly and rounds once, as integers do.
    total = float(sum(values)) if values and isinstance(values[0], int) else math.fsum(values)
    if of == "mean":
        return as_float32(total / len(values)) if values else None
    return as_float32(total)


def _time(event: Stored) -> Any:
    return event[0]
