"""The records of all windows: one JSON file each, in a folder on the local disk, gs:// or s3://.

<history>/<project>/<window>.json        e.g. 2013-10.json; a later judgement of the window takes its place
"""

from datetime import datetime

from components import storage
from components.artifacts import write_whole
from components.errors import InputError
from components.json_files import parse_record
from components.monitoring_record import MonitoringRecord

FOLDER = "monitoring"
"""Beside the models of a model store, where no history is named."""


def history_of(configured: str, store: str) -> str:
    """Gives the URI of the history: the configured one, or a folder in the model store."""
    return configured or f"{store.rstrip('/')}/{FOLDER}"


class MonitoringHistory:
    """The records of one project.

    Every method raises:
        InputError: the storage refuses, or a file is no record.
        UnavailableError: the storage does not answer or is full.
    """

    def __init__(self, uri: str, project: str) -> None:
        """Names the place; it needs not exist."""
        self._fs, root = storage.filesystem(uri)
        self._is_local = not storage.is_remote(uri)
        self.uri = f"{uri.rstrip('/')}/{project}"
        self._root = f"{root.rstrip('/')}/{project}"

    def records(self) -> list[MonitoringRecord]:
        """Reads all records, the earliest window first."""
        with storage.reaching(self.uri):
            try:
                paths = [str(path) for path in self._fs.ls(self._root, detail=False)]
            except FileNotFoundError:
                return []
            paths = [p for p in paths if p.endswith(".json") and not p.rpartition("/")[2].startswith(".")]
            contents = self._fs.cat_ranges(paths, None, None, on_error="raise") if paths else []
        found = [_parse(content, path) for path, content in zip(paths, contents, strict=True)]
        return sorted(found, key=lambda record: (record.start, record.end))

    def before(self, start: datetime, seconds: float) -> list[MonitoringRecord]:
        """Reads the records of windows that end before a time and are about as long, the earliest first.

        Judging a window late, or again, must not depend on windows behind it.
        """
        return [
            record
            for record in self.records()
            if record.end <= start and 0.5 <= (record.end - record.start).total_seconds() / seconds <= 2
        ]

    def read(self, file: str) -> MonitoringRecord | None:
        """Reads the record of a window, by the name of its file without ending; None: there is none."""
        path = f"{self._root}/{file}.json"
        with storage.reaching(self.uri):
            try:
                content = self._fs.cat_file(path)
            except FileNotFoundError:
                return None
        return _parse(content, path)

    def write(self, file: str, record: MonitoringRecord) -> str:
        """Puts a record in place of the window's earlier one; a reader sees the old or the new.

        Returns:
            The URI.
        """
        path, content = f"{self._root}/{file}.json", record.model_dump_json(indent=1)
        with storage.reaching(self.uri):
            if self._is_local:
                write_whole(path, content)
            else:
                self._fs.pipe_file(path, content.encode())
        return f"{self.uri}/{file}.json"


def _parse(content: bytes, path: str) -> MonitoringRecord:
    try:
        return parse_record(MonitoringRecord, content, path, "remove the file, then judge its window again")
    except UnicodeDecodeError as error:
        raise InputError(f"'{path}' is not UTF-8; remove the file, then judge its window again") from error
