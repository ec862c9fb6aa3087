"""The structure of a source against the schema: what must hold before anything heavier starts."""

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.errors import DataRejectedError, InputError
from components.ingest_data.conversions import column_of, fits
from components.ingest_data.readers import Reader, Shape, type_name
from components.schema import Column
from components.settings import Data, HashSplit, Task, WindowFeatures
from components.spans import SpanFile

if TYPE_CHECKING:
    from components.ingest_data.topics import TopicReader

_CONCURRENT_FILES = 16
_SHOWN = 5


@dataclass(frozen=True)
class Structure:
    """What is read from each file, and what of it is kept."""

    columns: list[Column]
    """All that are read, in the order in which they are written."""
    kept: list[str]
    """Those that are written, and window features; the rest only decides the split or what these are."""
    dropped: list[str]
    """Columns of the first file that the schema does not know."""


def check_structure(
    reader: "Reader | TopicReader",
    files: Sequence[SpanFile],
    task: Task,
    schema: dict[str, Column],
    to_learn: bool = True,
    windows: WindowFeatures | None = None,
) -> Structure:
    """Reads the headers and footers of all files and compares them with the schema.

    Args:
        reader: of the files.
        files: at least one.
        task: whose label, if it has one, must be among the columns.
        schema: columns by name; empty: they and their types are those of the first file.
        to_learn: from the rows, which need a label and are split; else the label is left out.
        windows: features that are computed of the rows, and not read.

    Raises:
        DataRejectedError: an unreadable file, no rows, a duplicate or missing column, a wrong type.
        InputError: the configuration names a column that nobody has.
    """
    with ThreadPoolExecutor(_CONCURRENT_FILES) as pool:
        shapes = list(pool.map(reader.shape, files))
    for shape in shapes:
        _check_unique(shape)
    _check_rows(shapes)
    structure = _structure(reader, files[0], shapes[0], task, schema, to_learn, windows)
    for shape in shapes:
        _check_columns(shape, structure.columns)
    return structure


def check_earlier(
    reader: "Reader | TopicReader", files: Sequence[SpanFile], structure: Structure, names: Sequence[str]
) -> None:
    """Reads the headers and footers of files before the window, and compares some columns with the window's.

    Raises:
        DataRejectedError: an unreadable file, a duplicate or missing column, a wrong type.
    """
    columns = [column for column in structure.columns if column.name in names]
    with ThreadPoolExecutor(_CONCURRENT_FILES) as pool:
        for shape in pool.map(reader.shape, files):
            _check_unique(shape)
            _check_columns(shape, columns)


def split_columns(data: Data) -> list[str]:
    """Lists the columns that decide the split."""
    return data.split.key if isinstance(data.split, HashSplit) else [data.split.column]


def nearest(name: str, names: Iterable[str]) -> str:
    """Writes "did you mean" for a name that is none of the given ones, or lists those."""
    known = list(names)
    close = difflib.get_close_matches(name, known, n=1) or [
        n for n in known if n.strip().lower() == name.strip().lower()
    ]
    return f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(known)}"


def _structure(
    reader: "Reader | TopicReader",
    first_file: SpanFile,
    first: Shape,
    task: Task,
    schema: dict[str, Column],
    to_learn: bool,
    windows: WindowFeatures | None,
) -> Structure:
    data = reader.data
    splitting = split_columns(data) if to_learn else []
    computed = windows.names if windows else []
    # Which of them are columns of the dataset, the schema tells, if there is one.
    features = [name for name in computed if not schema or name in schema]
    schema = {name: column for name, column in schema.items() if name not in computed}
    _check_not_given(computed, first)
    named = {
        "task.label": task.labels if to_learn else [],
        "data.key": data.key,
        "data.split": splitting,
        "window_features": windows.inputs if windows else [],
    }
    for setting, names in named.items():
        for name in names:
            _check_name(setting, name, schema, first)
    if not to_learn:
        schema = {name: column for name, column in schema.items() if name != task.label}
    if not schema:
        names = [name for name in first.names if to_learn or name != task.label]
        dropped = [name for name in first.names if name not in names]
        return Structure(_inferred(reader, first_file, names), [*names, *features], dropped)
    extra = [name for name in first.names if name not in schema]
    needed = [name for name in extra if name in {*data.key, *splitting, *named["window_features"]}]
    columns = [*schema.values(), *(_inferred(reader, first_file, needed) if needed else [])]
    kept = [column.name for column in columns if column.name in schema or column.name in data.key]
    return Structure(columns, [*kept, *features], [name for name in extra if name not in kept])


def _check_not_given(computed: Iterable[str], first: Shape) -> None:
    for name in computed:
        if name in first.names:
            raise InputError(
                f"window_features: '{name}' is a column of '{first.uri}' already; give the feature another name"
            )


def _inferred(reader: "Reader | TopicReader", file: SpanFile, names: Sequence[str]) -> list[Column]:
    """Gives columns that no schema describes, by a file's own types."""
    types = reader.inferred_types(file)
    columns = []
    for position, name in enumerate(names, 1):
        column = column_of(name, types[name])
        if not name:
            raise DataRejectedError(f"'{file.uri}': column {position} has no name; name it, or write no index")
        if column is None:
            raise DataRejectedError(
                f"'{file.uri}': column '{name}' is {types[name]}, which no table of ours can hold; drop it"
            )
        columns.append(column)
    return columns


def _check_name(setting: str, name: str, schema: dict[str, Column], first: Shape) -> None:
    if name in schema or (name in first.names and (not schema or setting != "task.label")):
        return
    where = "neither in the schema nor in the files" if schema else f"not in '{first.uri}'"
    if schema and name in first.names:
        where = "in the files but not in the schema; describe it there"
    raise InputError(f"{setting}: column '{name}' is {where}; {nearest(name, dict.fromkeys([*schema, *first.names]))}")


def _check_unique(shape: Shape) -> None:
    for name, count in Counter(shape.names).items():
        if count > 1:
            raise DataRejectedError(f"'{shape.uri}': column '{name}' is there {count} times; keep one")


def _check_rows(shapes: Sequence[Shape]) -> None:
    if not any(shape.has_rows for shape in shapes):
        raise DataRejectedError(
            f"no rows in '{shapes[0].uri}'{_and_others(len(shapes) - 1)}; supply data, or change data.window"
        )
    filled = {shape.span for shape in shapes if shape.has_rows}
    for shape in shapes:
        if shape.span not in filled:
            raise DataRejectedError(
                f"no rows in span {shape.span} ('{shape.uri}'); supply it again, or change data.window"
            )


def _and_others(count: int) -> str:
    return f" and {count} other file{'s' if count > 1 else ''}" if count else ""


def _check_columns(shape: Shape, columns: Sequence[Column]) -> None:
    missing = [column.name for column in columns if column.name not in shape.names]
    if missing:
        unknown = [name for name in shape.names if name not in {column.name for column in columns}]
        names = ", ".join(f"'{name}'" for name in missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
        hint = f"{nearest(missing[0], unknown)} " if unknown else ""
        raise DataRejectedError(
            f"'{shape.uri}': {len(missing)} of {len(columns)} columns missing: {names}; {hint}"
            "fix the source or the schema"
        )
    for column in columns:
        found = shape.types.get(column.name)
        if found is not None and not fits(found, column):
            raise DataRejectedError(
                f"'{shape.uri}': column '{column.name}' is {found}, not {type_name(column)} as the schema says; "
                "fix the source or the type in the schema"
            )
