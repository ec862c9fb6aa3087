"""Predictions in a bucket: a span's files are under a fresh prefix until an entry of its log names them.

    <target>/<name>/span=2013-12/attempt=20131231T040000Z-1a2b3c4d/part-00000.parquet
    <target>/<name>/span=2013-12/_log/000001.json     the newest one names the attempt that counts
    <target>/<name>/span=2013-12/_SUCCESS

An entry is created by a request that fails when somebody else was faster, so that concurrent runs put themselves into
one order and the last one counts. Then the attempts of the entries before are removed, and those that were left behind
by killed runs, once they are old.
"""

import contextlib
import tempfile
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa

from components import storage
from components.json_files import parse_record
from components.settings import BatchOutput
from components.storage import reaching
from components.write_predictions.files import write_files
from components.write_predictions.folders import PREFIX, span_folder
from components.write_predictions.record import SpanRecord

LOG, SUCCESS, ATTEMPT = "_log", "_SUCCESS", "attempt="
_TIME = "%Y%m%dT%H%M%SZ"
_ABANDONED = timedelta(days=2)
"""No run takes so long."""


class BucketTarget:
    """The spans of one project below a gs:// or s3:// URI."""

    def __init__(self, target: str, name: str, output: BatchOutput) -> None:
        """Names the prefix; nothing need be there."""
        self._uri = f"{target.rstrip('/')}/{name}"
        self._fs, root = storage.filesystem(self._uri)
        self._root = root.rstrip("/")
        self._output = output

    def place(self, spans: list[str]) -> str:
        """Says where the predictions of some spans are."""
        return f"{self._uri}/{span_folder(spans[0])}" if len(spans) == 1 else self._uri

    def spans(self) -> list[str]:
        """Lists the spans that are there."""
        found = [name for name in self._names(self._root) if name.startswith(PREFIX)]
        return [span for name in found if self.record(span := unquote(name.removeprefix(PREFIX)))]

    def record(self, span: str) -> SpanRecord | None:
        """Reads the record of a span; None: there is none."""
        folder = f"{self._root}/{span_folder(span)}"
        entries = self._entries(folder)
        return self._read(folder, entries[-1]) if entries else None

    def replace(self, record: SpanRecord, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
        """Writes a span under a fresh prefix, then makes it the one that counts."""
        folder = f"{self._root}/{span_folder(record.span)}"
        attempt = f"{ATTEMPT}{datetime.now(UTC):{_TIME}}-{uuid.uuid4().hex[:8]}"
        with tempfile.TemporaryDirectory(prefix="write_predictions-") as name, reaching(self._uri):
            local = Path(name)
            files = write_files(local, tables, schema, self._output)
            self._fs.put([str(local / file) for file in files], [f"{folder}/{attempt}/{file}" for file in files])
            complete = record.model_copy(update={"files": [f"{attempt}/{file}" for file in files]})
            self._append(folder, complete.model_dump_json(indent=1).encode())
            self._fs.pipe_file(f"{folder}/{SUCCESS}", b"")
            self._sweep(folder)

    def _append(self, folder: str, content: bytes) -> None:
        while True:
            entries = self._entries(folder)
            number = int(entries[-1].removesuffix(".json")) + 1 if entries else 1
            path = f"{folder}/{LOG}/{number:06d}.json"
            try:
                self._fs.pipe_file(path, content, mode="create")
            except FileExistsError:
                # A client that repeats a request whose answer was lost meets its own entry.
                if self._fs.cat_file(path) != content:
                    continue
            return

    def _sweep(self, folder: str) -> None:
        """Removes the attempts of earlier entries, and those that no entry names and nobody can be writing."""
        entries = self._entries(folder)
        counts = _attempts(self._read(folder, entries[-1]))
        over = {one for entry in entries[:-1] for one in _attempts(self._read(folder, entry))}
        for name in self._names(folder):
            if not name.startswith(ATTEMPT) or name in counts:
                continue
            if name in over or _age(name) > _ABANDONED:
                with contextlib.suppress(FileNotFoundError):  # another run sweeps, too
                    self._fs.rm(f"{folder}/{name}", recursive=True)

    def _entries(self, folder: str) -> list[str]:
        return [name for name in self._names(f"{folder}/{LOG}") if name.endswith(".json")]

    def _read(self, folder: str, entry: str) -> SpanRecord:
        path = f"{folder}/{LOG}/{entry}"
        with reaching(self._uri):
            return parse_record(SpanRecord, self._fs.cat_file(path), path, "write the span again")

    def _names(self, folder: str) -> list[str]:
        with reaching(self._uri):
            try:
                found = self._fs.ls(folder, detail=False)
            except FileNotFoundError:
                return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)


def _attempts(record: SpanRecord) -> set[str]:
    return {file.partition("/")[0] for file in record.files}


def _age(attempt: str) -> timedelta:
    try:
        begun = datetime.strptime(attempt.removeprefix(ATTEMPT).partition("-")[0], _TIME).replace(tzinfo=UTC)
    except ValueError:  # not of ours
        return timedelta()
    return datetime.now(UTC) - begun
