"""Window features as columns: of which type they are, and what they are made of."""

import difflib
from collections.abc import Iterator, Mapping

import pyarrow as pa

from components.schema import Column
from components.settings import WindowFeature, WindowFeatures

LATEST_MS = 253_402_300_799_999
"""The year 9999; what is further from 1970 is no time."""

_INTEGERS = ("count", "distinct")
_SPELLED = {pa.int64(): "INT", pa.float32(): "FLOAT", pa.string(): "BYTES"}

Location = tuple[int | str, ...]


def type_of(feature: WindowFeature) -> pa.DataType:
    """Gives the type of a feature's column: int64 or float32."""
    return pa.int64() if feature.of in _INTEGERS else pa.float32()


def schema_faults(windows: WindowFeatures, known: Mapping[str, Column]) -> Iterator[tuple[Location, str]]:
    """Yields where window features and the columns of a schema disagree: where, and what to do.

    Args:
        windows: the section.
        known: columns by name, features included.
    """
    for where, name in _named(windows):
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            meant = f"did you mean '{close[0]}'?" if close else "add it to the schema"
            yield where, f"{_setting(where)}: column '{name}' is not in the schema; {meant}"
    yield from input_faults(windows, known)
    for index, feature in enumerate(windows.features):
        here = ("window_features", "features", index, "name")
        wanted, found = type_of(feature), known.get(feature.name)
        if found is None:
            lines = f'feature {{ name: "{feature.name}" type: {_SPELLED[wanted]} }}'
            yield here, f"window feature '{feature.name}' is not in the schema; add {lines}"
        elif found.type != wanted or found.is_time:
            yield (
                here,
                f"window feature '{feature.name}' is {_SPELLED[found.type]}{' of a time' if found.is_time else ''} in "
                f"the schema, and {feature.of} gives {_SPELLED[wanted]}; change it there",
            )


def input_faults(windows: WindowFeatures, known: Mapping[str, Column]) -> Iterator[tuple[Location, str]]:
    """Yields the columns of which no window feature can be made, because of their types."""
    time = known.get(windows.time)
    if time is not None and pa.types.is_floating(time.type):
        yield (
            ("window_features", "time"),
            f"window_features.time: column '{time.name}' is FLOAT, too coarse for times; make it an INT of seconds or "
            "milliseconds, or text",
        )
    for where, name in _named(windows):
        column = known.get(name)
        if column is None:
            continue
        if "key" in where and pa.types.is_floating(column.type):
            yield where, f"{_setting(where)}: column '{name}' is FLOAT, and a key is INT or BYTES; take another column"
        if where[-1] == "column":
            of = windows.features[int(where[2])].of
            if of != "distinct" and (pa.types.is_string(column.type) or column.is_time):
                holds = "times" if column.is_time else "text"
                yield (
                    where,
                    f"{_setting(where)}: column '{name}' holds {holds}, of which there is no {of}; take numbers",
                )


def _named(windows: WindowFeatures) -> Iterator[tuple[Location, str]]:
    yield ("window_features", "time"), windows.time
    for index, name in enumerate(windows.key):
        yield ("window_features", "key", index), name
    for number, feature in enumerate(windows.features):
        for index, name in enumerate(feature.key):
            yield ("window_features", "features", number, "key", index), name
        if feature.column:
            yield ("window_features", "features", number, "column"), feature.column


def _setting(where: Location) -> str:
    spelled = ""
    for step in where:
        spelled += f"[{step}]" if isinstance(step, int) else f".{step}"
    return spelled.removeprefix(".")
