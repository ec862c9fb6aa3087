"""The rows that are written: span by span, predictions with the decision, the reasons and who predicted them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.artifacts import BATCH, REJECTED, Manifest, split_files
from components.errors import InputError
from components.json_files import parse_record
from components.model_spec import ModelSpec, read_spec
from components.parquet_files import open_parquet
from components.reason_codes import REASON_TYPE
from components.settings import Batch

WHOLE = "all"
"""The span of a source that tells none."""
SPAN, TIME, MODEL_NAME, MODEL_VERSION = "span", "request_time", "model_name", "model_version"
"""As in the model server's request log, so that monitoring reads both."""
DECISION, REASONS = "decision", "reasons"
TOP, CHALLENGERS = "top", "challengers"

_REMEDY = "run predict_batch again"
_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Stamp:
    """What all rows of a run share."""

    time: datetime
    name: str
    version: str


@dataclass(frozen=True)
class Stretch:
    """The rows of one span, by their positions among the predicted ones."""

    span: str
    start: int
    stop: int
    rejected: int


class Predictions:
    """The dataset that predict_batch wrote."""

    def __init__(self, folder: Path, manifest: Manifest, batch: Batch, stamp: Stamp) -> None:
        """Opens it.

        Raises:
            InputError: a raw column has the name of one that is added.
        """
        self.manifest = manifest
        self.specs = {"": read_spec(folder), **_challengers(folder)}
        self._batch = batch
        self._stamp = stamp
        self._folder = folder
        # A dataset of which every row was rejected may have no part at all.
        self._files = split_files(folder, BATCH) if any((folder / BATCH).glob("*.parquet")) else []
        self._top = _reasons_by_place(folder / TOP)
        self.schema = self._decided(self._empty(), 0, 0).schema if self._files else pa.schema([])
        self._check_names()

    def stretches(self) -> list[Stretch]:
        """Lists the spans in order, each once."""
        refused = np.sort(np.concatenate([np.zeros(0, np.int64), *self._rejected_rows()]))
        ends: dict[str, int] = {}
        row = 0
        for file in self.manifest.files:
            row += file.rows
            ends[file.span or WHOLE] = row
        stretches, begin = [], 0
        for span, end in ends.items():
            before, until = (int(one) for one in np.searchsorted(refused, [begin, end]))
            stretches.append(Stretch(span, begin - before, end - until, until - before))
            begin = end
        return stretches

    def tables(self, stretch: Stretch) -> Iterator[pa.Table]:
        """Yields the rows of a span in order; only what holds some of them is read."""
        begin = 0
        for file in self._files:
            opened = open_parquet(file, _REMEDY)
            part, end = int(file.stem.removeprefix("part-")), begin + opened.metadata.num_rows
            if begin < stretch.stop and end > stretch.start:
                for position, table in _overlapping(opened, stretch.start - begin, stretch.stop - begin):
                    yield self._decided(table, part, position)
            begin = end

    def rejected(self, most: int) -> tuple[dict[str, int], pa.Table | None]:
        """Counts the rejected rows by reason (values left out), and gives some of them."""
        counts: dict[str, int] = {}
        shown: list[pa.Table] = []
        for file in sorted((self._folder / REJECTED).glob("*.parquet")):
            for batch in open_parquet(file, _REMEDY).iter_batches(_BATCH_ROWS):
                for one in pc.value_counts(batch.column("reason")):
                    reason = re.sub(r"(cannot be \w+): .*", r"\1", one["values"].as_py(), flags=re.DOTALL)
                    counts[reason] = counts.get(reason, 0) + one["counts"].as_py()
                if sum(table.num_rows for table in shown) < most:
                    shown.append(pa.Table.from_batches([batch]).slice(0, most))
        table = pa.concat_tables(shown).slice(0, most) if shown else None
        return dict(sorted(counts.items(), key=lambda item: -item[1])), table

    def top(self, most: int) -> pa.Table | None:
        """Gives the rows with the highest predictions, as they are written; None: none were asked for."""
        files = sorted((self._folder / TOP).glob("*.parquet"))
        if not files:
            return None
        table = open_parquet(files[0], _REMEDY).read().slice(0, most).combine_chunks()
        rows = pa.Table.from_struct_array(table["data"].combine_chunks())
        return rows.append_column(REASONS, table[REASONS])

    def decision_of(self, name: str) -> str | None:
        """Names the column of a model's decision; None: its task has none."""
        return column_of(name, DECISION) if self._threshold(self.specs[name]) is not None else None

    def _rejected_rows(self) -> Iterator[np.ndarray]:  # type: ignore[type-arg]
        for file in sorted((self._folder / REJECTED).glob("*.parquet")):
            yield open_parquet(file, _REMEDY).read(["row"])["row"].to_numpy()

    def _empty(self) -> pa.Table:
        return open_parquet(self._files[0], _REMEDY).schema_arrow.empty_table()

    def _decided(self, table: pa.Table, part: int, position: int) -> pa.Table:
        """Adds what is not the models' own: decisions, reasons of the top rows, time and version."""
        for name, spec in self.specs.items():
            threshold = self._threshold(spec)
            if threshold is not None:
                column = self._decisions(table[column_of(name, spec.outputs[0].name)], threshold)
                table = table.append_column(column_of(name, DECISION), column)
        if self._batch.reasons and REASONS not in table.column_names:
            table = table.append_column(REASONS, self._reasons(table.num_rows, part, position))
        stamps = {
            TIME: pa.scalar(self._stamp.time, pa.timestamp("us", "UTC")),
            MODEL_NAME: pa.scalar(self._stamp.name),
            MODEL_VERSION: pa.scalar(self._stamp.version),
        }
        for column_name, value in stamps.items():
            table = table.append_column(column_name, pa.repeat(value, table.num_rows))
        return table

    def _threshold(self, spec: ModelSpec) -> float | None:
        if spec.outputs[0].name not in ("probability", "anomaly_score"):
            return None
        return spec.decision_threshold if self._batch.threshold == "model" else self._batch.threshold

    def _decisions(self, values: pa.ChunkedArray, threshold: float) -> pa.ChunkedArray:
        positive = pc.greater_equal(values, pa.scalar(np.float32(threshold)))
        if not self._batch.labels:
            return positive
        return pc.if_else(positive, pa.scalar(self._batch.labels[1]), pa.scalar(self._batch.labels[0]))

    def _reasons(self, rows: int, part: int, position: int) -> pa.Array:
        found = {p - position: reasons for p, reasons in self._top.get(part, {}).items() if 0 <= p - position < rows}
        if not found:
            return pa.nulls(rows, REASON_TYPE)
        return pa.array([found.get(row) for row in range(rows)], REASON_TYPE)

    def _check_names(self) -> None:
        names = [*self.schema.names, SPAN]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise InputError(
                f"column '{twice}' of the rows has the name of one that is written beside the predictions; rename it "
                "in the source, or leave it out of batch.columns"
            )
        partition = self._batch.output.partition_by
        if partition and self._files and partition not in self.schema.names:
            raise InputError(
                f"batch.output.partition_by: '{partition}' is no column of the predictions "
                f"(they have: {', '.join(self.schema.names)})"
            )


def _overlapping(file: pq.ParquetFile, start: int, stop: int) -> Iterator[tuple[int, pa.Table]]:
    """Yields the rows of a file from one position to another, with the position of each table's first row."""
    groups: list[int] = []
    begin = end = 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if end + rows <= start or end >= stop:
            begin = end = end + rows
            continue
        groups.append(group)
        end += rows
        if end - begin >= _BATCH_ROWS or end >= stop or group == file.metadata.num_row_groups - 1:
            first = max(start, begin)
            yield first, file.read_row_groups(groups).slice(first - begin, min(stop, end) - first)
            groups, begin = [], end


def column_of(model: str, name: str) -> str:
    """Gives the name of a model's column, as predict_batch does."""
    return f"{model}_{name}" if model else name


def versions_of(models: Mapping[str, str]) -> dict[str, str]:
    """Gives the version of each model: the last part of its URI."""
    return {name: uri.rstrip("/").rpartition("/")[2] for name, uri in models.items()}


def _challengers(folder: Path) -> dict[str, ModelSpec]:
    files: Sequence[Path] = sorted((folder / CHALLENGERS).glob("*.json"))
    return {file.stem: parse_record(ModelSpec, file.read_bytes(), file, _REMEDY) for file in files}


def _reasons_by_place(folder: Path) -> dict[int, dict[int, list[dict[str, object]]]]:
    """Gives the reasons of the top rows by part, then by position in it."""
    found: dict[int, dict[int, list[dict[str, object]]]] = {}
    for file in sorted(folder.glob("*.parquet")):
        for row in pq.ParquetFile(file).read(["part", "position", "reasons"]).to_pylist():
            found.setdefault(row["part"], {})[row["position"]] = row["reasons"]
    return found
