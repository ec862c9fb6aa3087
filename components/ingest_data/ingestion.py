"""Ingestion: one window of a source becomes a dataset: two splits to learn from, or one to predict."""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from components import spans
from components.artifacts import BATCH, Manifest, SourceFile, whole, write_manifest
from components.errors import DataRejectedError
from components.ingest_data.keys import UniqueKeys
from components.ingest_data.labels import LabelValues, LeakSample
from components.ingest_data.parts import PartWriter
from components.ingest_data.readers import Reader
from components.ingest_data.splits import EVAL, TRAIN, assignment, describe
from components.ingest_data.structure import Structure, check_earlier, check_structure
from components.ingest_data.windows import WindowedRows, check_windows, feature_types
from components.schema import Column, columns, format_schema, parse_schema
from components.settings import Data, Task, WindowFeatures
from components.spans import SpanFile

if TYPE_CHECKING:
    from components.ingest_data.topics import TopicReader

_SECONDS_BETWEEN_LINES = 2.0
_SHOWN = 5
_LAYOUT = 1
"""Of the dataset; part of its digest."""


def ingest(
    data: Data,
    task: Task,
    schema_text: str,
    output: str,
    serving_environment: str = "",
    windows: WindowFeatures | None = None,
) -> Manifest:
    """Reads one window of a source, checks its structure and splits the rows.

    Args:
        data: what is read, and how it is split.
        task: whose label is checked.
        schema_text: TFMD schema in text format; empty: columns and types are those of the first file.
        output: directory of the dataset; it appears whole or not at all.
        serving_environment: of rows that are only to be predicted; empty: rows to learn from.
        windows: features to compute of the rows and of those before the window.

    Returns:
        What the dataset holds; it is also written into it.

    Raises:
        InputError: the configuration, the schema or a path is wrong.
        DataRejectedError: the data is damaged, or not what the schema and the task ask for.
        UnavailableError: the storage does not answer.
    """
    schema = parse_schema(schema_text) if schema_text.strip() else None
    files = spans.resolve(data.source, data.window)
    is_topic = data.source.startswith(spans.KAFKA)
    reader = _topic_reader(data) if is_topic else Reader(data)
    to_learn = not serving_environment
    known = columns(schema, serving_environment) if schema else {}
    if windows and schema:
        check_windows(windows, columns(schema))
    structure = check_structure(reader, files, task, known, to_learn, windows)
    earlier = _before(data.source, files, windows) if windows else []
    if windows:
        check_earlier(reader, earlier, structure, windows.inputs)
    of_spans = f" of {spans.pinned_window(files)}" if files[0].span or is_topic else ""
    what, size = ("partition", _counted(sum(f.size for f in files), "offset")) if is_topic else ("file", _size(files))
    _print(f"{_counted(len(files), what)}{of_spans}, {size}: the structure is right")
    if structure.dropped:
        _print(f"not in the schema, left out: {', '.join(structure.dropped)}")
    with whole(output) as folder:
        rows = _Rows(data, task, structure, folder, to_learn, windows)
        sources, seen = rows.read(reader, files, earlier)
        digest = _digest(sources, data, format_schema(schema) if schema else "", serving_environment)
        if windows:
            digest = _windows_digest(digest, windows, seen)
        manifest = Manifest(splits=rows.counts, digest=digest, files=sources)
        write_manifest(folder, manifest)
    total = sum(manifest.splits.values())
    shares = ", ".join(f"{split} {count:,} ({count / total:.1%})" for split, count in manifest.splits.items())
    _print(f"{total:,} rows: {shares}; digest {digest[:12]}")
    return manifest


def _topic_reader(data: Data) -> "TopicReader":
    from components.ingest_data.topics import TopicReader  # Kafka's client is for those who need it

    return TopicReader(data)


def _before(source: str, files: Sequence[SpanFile], windows: WindowFeatures) -> list[SpanFile]:
    """Finds what holds the events that the first rows' window features see."""
    found, absent = spans.before(source, files, windows.look_back)
    if found:
        first, last = found[0].span, found[-1].span
        _print(
            f"window features look back into {_counted(len(found), 'file')}{f', {first} to {last}' if first else ''}"
        )
    if absent:
        _print(
            f"warning: {_counted(len(absent), 'span')} that window features look back into not there: "
            f"{', '.join(absent[:_SHOWN])}{', …' if len(absent) > _SHOWN else ''}; they count as without events"
        )
    return found


class _Rows:
    """The rows on their way from the files into the splits."""

    def __init__(
        self,
        data: Data,
        task: Task,
        structure: Structure,
        folder: Path,
        to_learn: bool,
        windows: WindowFeatures | None,
    ) -> None:
        self._data = data
        self._windows = windows
        self._columns = structure.columns
        self._kept = structure.kept
        self._is_eval = assignment(data.split, structure.columns) if to_learn else None
        self._splits = (TRAIN, EVAL) if to_learn else (BATCH,)
        self._folder = folder
        self._keys = UniqueKeys(data.key)
        self._leaks = LeakSample(task, data.key)
        self._is_unsupervised = task.is_unsupervised
        self._labels = {split: LabelValues(split, task) for split in self._splits if to_learn}
        self.counts: dict[str, int] = {}

    def read(
        self, reader: "Reader | TopicReader", files: Sequence[SpanFile], earlier: Sequence[SpanFile]
    ) -> tuple[list[SourceFile], list[SourceFile]]:
        """Reads all files into the splits, and checks what only all rows can tell.

        Args:
            reader: of the files.
            files: of the window.
            earlier: what window features look back into.

        Returns:
            What was read of the window, and what before it.
        """
        types = {column.name: column.type for column in self._columns}
        types |= feature_types(self._windows) if self._windows else {}
        schema = pa.schema([(name, types[name]) for name in self._kept])
        with contextlib.ExitStack() as stack:
            writers = {split: stack.enter_context(PartWriter(self._folder / split, schema)) for split in self._splits}

            def divide(batch: pa.RecordBatch) -> None:
                self._split(batch, writers)

            if self._windows:
                windowed = stack.enter_context(WindowedRows(self._windows, self._columns))
                seen = self._read_files(reader, earlier, windowed.add_earlier, windowed.inputs)
                sources = self._read_files(reader, files, windowed.add, self._columns)
                for batch in windowed.batches():
                    divide(batch)
            else:
                seen, sources = [], self._read_files(reader, files, divide, self._columns)
        self.counts = {split: writer.rows for split, writer in writers.items()}
        for split, count in self.counts.items():
            if not count:  # check_structure has refused a window without rows
                raise DataRejectedError(
                    f"split '{split}' is empty: all {sum(self.counts.values()):,} rows are on the other side of "
                    f"data.split ({describe(self._data.split)}); change it or data.window"
                )
        for split, label in self._labels.items():
            # What learns from no label is only judged by it.
            if not (self._is_unsupervised and split == TRAIN):
                label.check(varied=split == TRAIN)
        self._keys.check([writer.path for writer in writers.values()])
        for warning in self._leaks.warnings() if self._labels else ():
            _print(f"warning: {warning}")
        return sources, seen

    def _read_files(
        self,
        reader: "Reader | TopicReader",
        files: Sequence[SpanFile],
        take: Callable[[pa.RecordBatch], None],
        columns: list[Column],
    ) -> list[SourceFile]:
        sources = []
        total = 0
        last_line = time.monotonic()
        for number, file in enumerate(files, 1):
            rows = 0
            with reader.local_copy(file) as (path, digest):
                for batch in reader.batches(file, path, columns):
                    take(batch)
                    rows += batch.num_rows
                    if time.monotonic() - last_line > _SECONDS_BETWEEN_LINES:
                        _print(f"reading file {number} of {len(files)}: {total + rows:,} rows so far")
                        last_line = time.monotonic()
            total += rows
            sources.append(SourceFile(uri=file.uri, span=file.span, rows=rows, bytes=file.size, digest=digest))
        return sources

    def _split(self, batch: pa.RecordBatch, writers: dict[str, PartWriter]) -> None:
        self._keys.add(batch)
        kept = batch.select(self._kept)
        if self._is_eval is None:
            writers[BATCH].write(kept)
            return
        is_eval = self._is_eval(batch)
        for split, rows in ((TRAIN, kept.filter(pc.invert(is_eval))), (EVAL, kept.filter(is_eval))):
            self._labels[split].add(rows)
            writers[split].write(rows)
            if split == TRAIN:
                self._leaks.add(rows)


def _digest(sources: Sequence[SourceFile], data: Data, schema: str, serving_environment: str) -> str:
    """Gives a SHA-256, in hex, over the content and all that decides what became of it; not over names and places."""
    decisive: dict[str, object] = {
        "layout": _LAYOUT,
        "files": [source.digest for source in sources],
        "data": data.model_dump(mode="json", exclude={"source", "window"}),
        "schema": schema,
    }
    if serving_environment:
        decisive |= {"serving_environment": serving_environment}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _windows_digest(digest: str, windows: WindowFeatures, seen: Sequence[SourceFile]) -> str:
    """Gives a digest that also changes with window features, and with what they look back into."""
    decisive = [digest, windows.model_dump(mode="json", exclude={"lateness"}), [source.digest for source in seen]]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _print(line: str) -> None:
    print(f"ingest_data: {line}", flush=True)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _size(files: Sequence[SpanFile]) -> str:
    size = sum(file.size for file in files)
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"
