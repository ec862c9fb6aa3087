"""Files of a log: which lie in a window, and their content."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow.parquet as pq
from fsspec.spec import AbstractFileSystem

from components import storage
from components.errors import InputError
from components.prediction_log.windows import Window
from components.spans import overlapping


@dataclass(frozen=True)
class LogFile:
    """One file."""

    uri: str
    path: str
    """On its file system."""
    fs: AbstractFileSystem
    modified: datetime | None = None
    """UTC; None: the storage does not tell."""

    def open_parquet(self, dictionaries: list[str] | None = None) -> pq.ParquetFile:
        """Opens it as Parquet; a remote file is fetched, once.

        Args:
            dictionaries: text columns that are to be read as dictionaries, where they are there.

        Raises:
            pyarrow.ArrowException, OSError: it is none.
        """
        content = io.BytesIO(self.content()) if storage.is_remote(self.uri) else None
        file = pq.ParquetFile(content or self.path, memory_map=content is None)
        there = [name for name in dictionaries or [] if name in file.schema_arrow.names]
        return pq.ParquetFile(content or self.path, memory_map=content is None, read_dictionary=there)

    def content(self) -> bytes:
        """Reads all of it.

        Raises:
            InputError, UnavailableError: the storage refuses, or does not answer.
        """
        with storage.reaching(self.uri):
            return bytes(self.fs.cat_file(self.path))


def daily_files(source: str, window: Window) -> Iterator[LogFile]:
    """Lists the files of the server's request log that may hold rows of a window.

    These are those of its days and of the day before, as a file lies under the day of its first row.

    Raises:
        InputError: the folder does not exist, or may not be read.
        UnavailableError: the storage does not answer.
    """
    fs, root = storage.filesystem(source)
    root = root.rstrip("/")
    with storage.reaching(source):
        there = {str(path).rstrip("/").rpartition("/")[2] for path in fs.ls(root, detail=False)}
    day = window.start.date() - timedelta(days=1)
    while datetime(day.year, day.month, day.day, tzinfo=UTC) < window.end:
        if str(day) in there:
            with storage.reaching(source):
                found = fs.ls(f"{root}/{day}", detail=True)
            yield from _files(fs, source, [info for info in found if str(info["name"]).endswith(".parquet")])
        day += timedelta(days=1)


def spanned_files(source: str, window: Window) -> Iterator[LogFile]:
    """Lists the files of a pattern whose spans overlap a window; without placeholders, all of them.

    Raises:
        InputError: the pattern makes no sense, or may not be read.
        UnavailableError: the storage does not answer.
    """
    fs, path = storage.filesystem(source)
    if not any(character in path for character in "*?[{"):
        with storage.reaching(source):
            if fs.isdir(path):
                raise InputError(f"monitoring.log.source '{source}' is a folder; add a pattern, e.g. '{source}/**'")
    found, _ = overlapping(source, window.start, window.end)
    for file in found:
        if not file.uri.rpartition("/")[2].startswith("."):
            yield located(file.uri)


def located(uri: str) -> LogFile:
    """Finds one file.

    Raises:
        InputError: it does not exist, or may not be read.
        UnavailableError: the storage does not answer.
    """
    fs, path = storage.filesystem(uri)
    with storage.reaching(uri):
        return LogFile(uri, path, fs, _modified(fs.info(path)))


def _files(fs: AbstractFileSystem, source: str, infos: list[dict[str, Any]]) -> Iterator[LogFile]:
    for info in sorted(infos, key=lambda one: str(one["name"])):
        # A file that is being written, or that its writer was killed over.
        name = str(info["name"])
        if info["type"] != "file" or name.rpartition("/")[2].startswith("."):
            continue
        uri = str(fs.unstrip_protocol(name)) if storage.is_remote(source) else name
        yield LogFile(uri, name, fs, _modified(info))


def _modified(info: dict[str, Any]) -> datetime | None:
    for key in ("LastModified", "updated", "mtime"):
        value = info.get(key)
        if isinstance(value, datetime):
            return value.astimezone(UTC)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            return datetime.fromisoformat(value.replace("Z", "+00:00")).astimezone(UTC)
    return None
