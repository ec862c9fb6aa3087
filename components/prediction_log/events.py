"""What KServe's logger leaves: an event for each request and one for its answer, with the same id.

Events come as CloudEvents in JSON (what an HTTP sink keeps of them, one a line or a list), or as the logger itself
stores them in a bucket, in JSON, CSV or Parquet (kserve/kserve, pkg/logger/marshaller; since 0.16). A stored event has
no time: that of its file stands for it.
"""

import base64
import binascii
import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from components.prediction_log.files import LogFile
from components.prediction_log.form import Form, LogCounts, conformed
from components.request_columns import MODEL_VERSION, REQUEST_ID, REQUEST_ROW, TIME

REQUEST, RESPONSE = "org.kubeflow.serving.inference.request", "org.kubeflow.serving.inference.response"
_VERSION_ANNOTATION = "model-version"
"""Of a pod, when the logger's metadataAnnotations name it: protocol v1 tells no version."""
_BATCH_ROWS = 20_000
_FIELD_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class Event:
    """A request, or an answer."""

    id: str
    type: str
    time: datetime | None
    version: str | None
    body: Any
    """Of the request or the answer, parsed JSON."""


class Pairs:
    """Finds the answer of each request, across files."""

    def __init__(self, form: Form, counts: LogCounts) -> None:
        self._form = form
        self._counts = counts
        self._waiting: dict[str, Event] = {}
        self._done: set[str] = set()
        self._rows: list[dict[str, Any]] = []

    def read(self, file: LogFile) -> Iterator[pa.RecordBatch]:
        """Yields the rows of requests that are complete, when there are enough of them.

        Raises:
            pyarrow.ArrowException, OSError, UnicodeError: the file is damaged.
        """
        for event in _events(file, self._counts):
            self._take(event)
            if len(self._rows) >= _BATCH_ROWS:
                yield self._batch()

    def rest(self) -> Iterator[pa.RecordBatch]:
        """Yields what is left at the end, and counts requests without an answer."""
        self._counts.unanswered += len(self._waiting)
        if self._rows:
            yield self._batch()

    def _take(self, event: Event) -> None:
        if event.id in self._done:
            self._counts.duplicates += event.type == RESPONSE
            return
        other = self._waiting.get(event.id)
        if other is None:
            self._waiting[event.id] = event
            return
        if other.type == event.type:  # delivered twice
            return
        del self._waiting[event.id]
        self._done.add(event.id)
        request, answer = (event, other) if event.type == REQUEST else (other, event)
        try:
            self._rows += _rows(request, answer, self._form)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            self._counts.malformed += 1

    def _batch(self) -> pa.RecordBatch:
        rows, self._rows = self._rows, []
        columns = {
            name: column
            for name in self._form.schema.names
            if (column := _column([row.get(name) for row in rows])) is not None
        }
        return conformed(columns, len(rows), self._form, self._counts)


def _column(values: Sequence[Any]) -> pa.Array | None:
    """Makes an array of what JSON held; None: no row has a value. Values of several types become text."""
    if all(value is None for value in values):
        return None
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeError):
        return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _text(value: Any) -> str:
    """Writes a value as text; half of a surrogate pair, which JSON may hold, is no text."""
    return str(value).encode("utf-8", "replace").decode()


# ------------------------------------------------------------------------------------------------------ events


def _events(file: LogFile, counts: LogCounts) -> Iterator[Event]:
    for raw in _records(file):
        event = _event(raw, file.modified)
        if event is None:
            counts.malformed += 1
        else:
            yield event


def _records(file: LogFile) -> Iterator[Any]:
    """Yields the records of a file: objects of JSON, or rows."""
    if file.path.endswith((".parquet", ".pq")):
        for batch in file.open_parquet().iter_batches(1000):
            yield from batch.to_pylist()
        return
    text = file.content().decode("utf-8-sig")
    if file.path.endswith(".csv"):
        csv.field_size_limit(_FIELD_LIMIT)
        yield from csv.DictReader(io.StringIO(text))
        return
    try:
        parsed = json.loads(text)
    except ValueError:
        for line in text.splitlines():
            if line.strip():
                yield _parsed(line)
        return
    yield from parsed if isinstance(parsed, list) else [parsed]


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _event(raw: Any, modified: datetime | None) -> Event | None:
    """Reads a record; None: it is no event of the logger."""
    if not isinstance(raw, Mapping):
        return None
    # Go names fields in capitals in JSON and CSV, in snake case in Parquet; a CloudEvent has lower case.
    fields = {str(name).lower().replace("_", ""): value for name, value in raw.items() if name is not None}
    kind = str(fields.get("type") or fields.get("reqtype") or fields.get("cetype") or "")
    identity = fields.get("id") or fields.get("ceid")
    body = _body(fields)
    if kind not in (REQUEST, RESPONSE) or not isinstance(identity, str) or body is None:
        return None
    told = fields.get("time") or fields.get("recordedtime") or fields.get("cetime")
    return Event(identity, kind, _time(told) or modified, _annotated(fields.get("annotations")), body)


def _body(fields: Mapping[str, Any]) -> Any:
    """Gives the JSON that was sent; None: it is not JSON."""
    data = fields.get("data")
    if data is not None:
        return _parsed(data) if isinstance(data, str | bytes) else data
    encoded = fields.get("database64") or fields.get("bytes")
    if isinstance(encoded, bytes):  # Parquet holds the bytes themselves
        return _parsed(encoded)
    if not isinstance(encoded, str):
        return None
    try:
        return _parsed(base64.b64decode(encoded.strip('"'), validate=True))
    except (binascii.Error, ValueError):
        return _parsed(encoded)


def _time(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if not isinstance(value, str):
        return None
    try:
        # Go writes nanoseconds, of which Python reads six digits.
        head, dot, tail = value.replace("Z", "+00:00").partition(".")
        digits = len(tail) - len(tail.lstrip("0123456789"))
        micros = tail[: min(digits, 6)].ljust(6, "0")
        moment = datetime.fromisoformat(f"{head}.{micros}{tail[digits:]}" if dot else head)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _annotated(value: Any) -> str | None:
    found = _parsed(value) if isinstance(value, str) and value else value
    if isinstance(found, list):  # a map in Parquet
        found = dict(found)
    version = found.get(_VERSION_ANNOTATION) if isinstance(found, dict) else None
    return version if isinstance(version, str) else None


# -------------------------------------------------------------------------------------------------------- rows


def _rows(request: Event, answer: Event, form: Form) -> list[dict[str, Any]]:
    """Makes rows of a request and its answer, in protocol v1 or v2.

    Raises:
        ValueError, TypeError, KeyError: they are not of these, or do not belong together.
    """
    features = _asked(request.body)
    outputs = _answered(answer.body, form)
    if len(features) != len(outputs):
        raise ValueError(f"{len(features)} rows asked, {len(outputs)} answered")
    version = answer.body.get("model_version") or answer.version or request.version
    shared = {TIME: request.time, REQUEST_ID: request.id, MODEL_VERSION: version}
    return [
        {**asked, **answered, **shared, REQUEST_ROW: place}
        for place, (asked, answered) in enumerate(zip(features, outputs, strict=True))
    ]


def _asked(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    if "instances" in body:
        rows = [dict(row) for row in body["instances"]]
        if any(row.keys() == {"b64"} for row in rows):
            raise ValueError("serialized tf.Examples")
        return rows
    return _transposed(body["inputs"])


def _answered(body: Mapping[str, Any], form: Form) -> list[dict[str, Any]]:
    if "predictions" not in body:
        return _transposed(body["outputs"])
    rows = body["predictions"]
    if all(isinstance(row, Mapping) for row in rows):
        return [dict(row) for row in rows]
    # A server of one output gives its values alone, in a list of their own or not.
    name = next(iter(form.outputs))
    wide = pa.types.is_fixed_size_list(form.outputs[name])
    return [{name: row[0] if isinstance(row, list) and not wide and len(row) == 1 else row} for row in rows]


def _transposed(tensors: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Makes rows of the tensors of protocol v2."""
    columns = {}
    for tensor in tensors:
        data, shape = tensor["data"], tensor["shape"]
        rows = int(shape[0])
        width = 1
        for size in shape[1:]:
            width *= int(size)
        flat = _flat(data)
        if len(flat) != rows * width:
            raise ValueError("shape and data differ")
        wide = len(shape) > 1 and width > 1
        columns[str(tensor["name"])] = [flat[i * width : (i + 1) * width] for i in range(rows)] if wide else flat
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise ValueError("tensors of several lengths")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _flat(data: Any) -> list[Any]:
    if isinstance(data, list) and any(isinstance(one, list) for one in data):
        return [value for one in data for value in _flat(one)]
    return list(data)
