"""Predictions in a folder of the local disk: a span's files appear all at once, in place of those before.

<target>/<name>/span=2013-12/part-00000.parquet, _record.json
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote, unquote

import pyarrow as pa

from components.json_files import parse_record
from components.settings import BatchOutput
from components.storage import reaching
from components.write_predictions.files import write_files
from components.write_predictions.record import RECORD, SpanRecord

PREFIX = "span="
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


class FolderTarget:
    """The spans of one project below a local path."""

    def __init__(self, target: str, name: str, output: BatchOutput) -> None:
        """Names the folder; it need not be there."""
        self._root = Path(target.removeprefix("file://")) / name
        self._output = output

    def place(self, spans: list[str]) -> str:
        """Says where the predictions of some spans are."""
        return str(self._root / span_folder(spans[0])) if len(spans) == 1 else str(self._root)

    def spans(self) -> list[str]:
        """Lists the spans that are there."""
        with reaching(str(self._root)):
            found = list(self._root.iterdir()) if self._root.is_dir() else []
        return [unquote(path.name.removeprefix(PREFIX)) for path in found if path.name.startswith(PREFIX)]

    def record(self, span: str) -> SpanRecord | None:
        """Reads the record of a span; None: there is none."""
        path = self._root / span_folder(span) / RECORD
        if not path.is_file():
            return None
        with reaching(str(path)):
            return parse_record(SpanRecord, path.read_bytes(), path, "write the span again")

    def replace(self, record: SpanRecord, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
        """Writes a span aside, then puts it in place of what was there.

        Runs on one span take turns: the last one stays, whole.
        """
        folder = self._root / span_folder(record.span)
        with reaching(str(folder)):
            self._root.mkdir(parents=True, exist_ok=True)
            with _alone(self._root / f".{folder.name}.lock"):
                for left in self._root.glob(f".{_escaped(folder.name)}.*.partial"):  # of runs that were killed
                    shutil.rmtree(left)
                aside = self._root / f".{folder.name}.{uuid.uuid4().hex}.partial"
                aside.mkdir()
                try:
                    files = write_files(aside, tables, schema, self._output)
                    complete = record.model_copy(update={"files": files})
                    (aside / RECORD).write_text(complete.model_dump_json(indent=1), encoding="utf-8")
                    _exchange(aside, folder)
                finally:
                    shutil.rmtree(aside, ignore_errors=True)


def span_folder(span: str) -> str:
    """Gives the name of a span's folder."""
    return f"{PREFIX}{quote(span, safe='')}"


def _escaped(name: str) -> str:
    return name.replace("[", "[[]")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _exchange(new: Path, old: Path) -> None:
    """Lets two folders change places at once, so that there is no moment without the span."""
    if not old.exists():
        new.rename(old)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE):
        code = ctypes.get_errno()
        if code not in _UNSUPPORTED:
            raise OSError(code, os.strerror(code), str(old))
        # A file system without exchange, such as NFS: for a moment the span is not there.
        before = old.with_name(f".{old.name}.{uuid.uuid4().hex}.partial")
        old.rename(before)
        new.rename(old)
        shutil.rmtree(before)
