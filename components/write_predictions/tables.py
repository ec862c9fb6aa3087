"""Predictions in a table of PostgreSQL or SQLite, by ADBC: Arrow's own way into databases.

A span is deleted and inserted in one transaction, which also writes its record into `<table>_spans`. User and password
are the environment's, as libpq reads it: PGUSER, PGPASSWORD, PGPASSFILE, PGSSLMODE.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from components.errors import InputError, LockgateError, UnavailableError
from components.json_files import parse_record
from components.settings import BatchOutput
from components.write_predictions.files import plain
from components.write_predictions.record import SpanRecord
from components.write_predictions.rows import SPAN

_REFUSED = ("28", "42", "3D", "3F", "25006")
"""SQLSTATE: authentication, access rights and names, no such database, no such schema, read-only."""
_BUSY_MS = 600_000
_REFUSALS = (
    "unable to open",
    "failed to open",
    "readonly",
    "not a database",
    "no such",
    "does not exist",
    "authentication",
    "denied",
)
"""Words of errors without a code, such as those of connecting."""


class TableTarget:
    """The spans of one table."""

    def __init__(self, target: str, name: str, output: BatchOutput) -> None:
        """Names database and table; the table need not be there."""
        self._uri = target
        self._is_sqlite = target.startswith("sqlite:")
        table = output.table or f"{name.replace('-', '_')}_predictions"
        self._schema, _, self._table = table.rpartition(".")

    def place(self, spans: list[str]) -> str:
        """Says where the predictions of some spans are."""
        del spans
        return f"{self._uri}#{f'{self._schema}.' if self._schema else ''}{self._table}"

    def spans(self) -> list[str]:
        """Lists the spans that are there."""
        with self._connected() as connection:
            return self._spans(connection)

    def record(self, span: str) -> SpanRecord | None:
        """Reads the record of a span; None: there is none."""
        with self._connected() as connection:
            if span not in self._spans(connection):
                return None
            (text,) = _query(connection, f"SELECT record FROM {self._records} WHERE span = {self._mark}", (span,))[0]
        return parse_record(SpanRecord, text.encode(), self._records, "write the span again")

    def replace(self, record: SpanRecord, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
        """Deletes and inserts a span, or leaves all as it was; runs on one table take turns."""
        columns = pa.schema([pa.field(SPAN, pa.string()), *plain(schema.empty_table()).schema])
        with self._connected() as connection:
            self._lock(connection)
            _execute(
                connection, f"CREATE TABLE IF NOT EXISTS {self._records} (span TEXT PRIMARY KEY, record TEXT NOT NULL)"
            )
            there = self._columns(connection)
            if there is not None:
                _require_same(self._table, there, columns.names)
                _execute(connection, f"DELETE FROM {self._name} WHERE {_quoted(SPAN)} = {self._mark}", (record.span,))
            batches = _batches(record.span, tables, columns)
            with connection.cursor() as cursor:
                cursor.adbc_ingest(
                    self._table,
                    pa.RecordBatchReader.from_batches(columns, batches),
                    mode="append" if there is not None else "create",
                    db_schema_name=self._schema or None,
                )
            if there is None:
                index = _quoted(f"{self._table}_span")
                _execute(connection, f"CREATE INDEX {index} ON {self._name} ({_quoted(SPAN)})")
            _execute(connection, f"DELETE FROM {self._records} WHERE span = {self._mark}", (record.span,))
            values = (record.span, record.model_dump_json())
            _execute(connection, f"INSERT INTO {self._records} VALUES ({self._mark_of(1)}, {self._mark_of(2)})", values)
            connection.commit()

    @property
    def _name(self) -> str:
        return f"{_quoted(self._schema)}.{_quoted(self._table)}" if self._schema else _quoted(self._table)

    @property
    def _records(self) -> str:
        name = _quoted(f"{self._table}_spans")
        return f"{_quoted(self._schema)}.{name}" if self._schema else name

    @property
    def _mark(self) -> str:
        return self._mark_of(1)

    def _mark_of(self, number: int) -> str:
        return "?" if self._is_sqlite else f"${number}"

    def _lock(self, connection: Any) -> None:
        if self._is_sqlite:
            # The driver begins a transaction that takes the lock when it first writes; if somebody else wrote after it
            # had read, SQLite refuses at once, whatever the timeout. This one takes it now, and waits for it.
            _execute(connection, "ROLLBACK")
            _execute(connection, "BEGIN IMMEDIATE")
            return
        _query(connection, "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))::text", (f"lockgate {self._name}",))

    def _spans(self, connection: Any) -> list[str]:
        tables = "sqlite_master" if self._is_sqlite else "information_schema.tables"
        name = "name" if self._is_sqlite else "table_name"
        query, values = f"SELECT {name} FROM {tables} WHERE {name} = {self._mark}", [f"{self._table}_spans"]
        if not self._is_sqlite:
            query += " AND table_schema = " + ("$2" if self._schema else "current_schema()")
            values += [self._schema] if self._schema else []
        if not _query(connection, query, tuple(values)):
            return []
        return [span for (span,) in _query(connection, f"SELECT span FROM {self._records}")]

    def _columns(self, connection: Any) -> list[str] | None:
        """Lists the columns of the table; None: there is no table."""
        if self._is_sqlite:
            found = _query(connection, f"SELECT name FROM pragma_table_info('{self._table}')")
        else:
            where = "table_schema = " + ("$2" if self._schema else "current_schema()")
            values = (self._table, self._schema) if self._schema else (self._table,)
            query = f"SELECT column_name::text FROM information_schema.columns WHERE table_name = $1 AND {where}"
            found = _query(connection, query, values)
        return [name for (name,) in found] or None

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        """Gives a connection; what is not committed is undone.

        Raises:
            InputError: the database refuses: password, rights, names, types.
            UnavailableError: it does not answer.
        """
        import adbc_driver_manager

        try:
            with self._connect() as connection:
                yield connection
        except LockgateError:
            raise
        except adbc_driver_manager.Error as error:
            text = " ".join(str(error).split())[:300]
            state = str(getattr(error, "sqlstate", "") or "")
            refused = state.startswith(_REFUSED) or any(words in text for words in _REFUSALS)
            if refused or isinstance(error, adbc_driver_manager.ProgrammingError):
                raise InputError(
                    f"'{self._uri}': {text}; check batch.output, and PGUSER and PGPASSWORD in the environment"
                ) from error
            raise UnavailableError(f"'{self._uri}': {text}; check that the database is reachable") from error

    def _connect(self) -> Any:
        if self._is_sqlite:
            import adbc_driver_sqlite.dbapi as sqlite

            connection = sqlite.connect(self._uri.removeprefix("sqlite://"))
            connection.adbc_connection.set_autocommit(True)
            _query(connection, f"PRAGMA busy_timeout = {_BUSY_MS}")
            connection.adbc_connection.set_autocommit(False)
            return connection
        import adbc_driver_postgresql.dbapi as postgresql

        return postgresql.connect(self._uri)


def _batches(span: str, tables: Iterable[pa.Table], columns: pa.Schema) -> Iterator[pa.RecordBatch]:
    for table in tables:
        with_span = plain(table).add_column(0, SPAN, pa.repeat(pa.scalar(span), table.num_rows))
        yield from with_span.cast(columns).to_batches()


def _require_same(table: str, there: list[str], wanted: list[str]) -> None:
    missing = [name for name in wanted if name not in there]
    extra = [name for name in there if name not in wanted]
    if missing or extra:
        said = f"lacks {', '.join(missing[:5])}" if missing else f"has {', '.join(extra[:5])} besides"
        raise InputError(
            f"table '{table}' has other columns than the predictions: it {said}; alter it, set batch.columns, or name "
            "another under batch.output.table"
        )


def _execute(connection: Any, statement: str, values: tuple[object, ...] = ()) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)


def _query(connection: Any, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return list(cursor.fetchall())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
