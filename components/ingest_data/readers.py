"""Files of a source as Arrow record batches, CSV and Parquet alike."""

import codecs
import contextlib
import csv
import difflib
import encodings.aliases
import hashlib
import io
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from fsspec.core import strip_protocol

from components import storage
from components.errors import DataRejectedError, InputError
from components.ingest_data.conversions import UnfitValueError, conform
from components.parquet_files import local_parquet
from components.schema import Column
from components.settings import CsvOptions, Data
from components.spans import SpanFile

BATCH_ROWS = 65_536

_CSV_NAMES = (".csv", ".tsv", ".txt")
_PARQUET_NAMES = (".parquet", ".pq")
_COMPRESSIONS: dict[str, Literal["gzip", "zstd"]] = {".gz": "gzip", ".zst": "zstd"}
_MAGIC = {
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "gzip data",
    b"\x28\xb5\x2f\xfd": "Zstandard data",
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"ARROW1": "an Arrow file",
    b"ORC": "an ORC file",
    b"Obj\x01": "an Avro file",
    b"%PDF": "a PDF",
    b"SQLite format 3": "an SQLite database",
}
_SHOWN_CHARACTERS = 120
_HEADER_BLOCK = 1 << 18
_CONVERSION = re.compile(r"In CSV column #(\d+): .*CSV conversion error to (\w+)")


@dataclass(frozen=True)
class Shape:
    """What a file's header or footer tells."""

    uri: str
    span: str
    names: list[str]
    types: dict[str, pa.DataType]
    """By column; empty for CSV, whose cells are text until they are read."""
    has_rows: bool


@dataclass(frozen=True)
class FileFormat:
    """How a file is to be read."""

    kind: Literal["csv", "parquet"]
    compression: Literal["gzip", "zstd"] | None = None


class Reader:
    """Reads the files of one source."""

    def __init__(self, data: Data) -> None:
        _check_options(data.csv)
        self.data = data
        # One file system for all files and threads: fsspec would make, and log in, another for each thread.
        self._fs, _ = storage.filesystem(data.source)
        self._as_text: set[str] = set()
        """CSV columns with cells that Arrow's own conversion refused, e.g. 1.0 in an integer column."""

    def shape(self, file: SpanFile) -> Shape:
        """Reads a file's header or footer.

        Raises:
            DataRejectedError: the file is empty, truncated or of another type.
            InputError: its name tells no format.
        """
        form = file_format(file.uri, self.data)
        if not file.size:
            raise DataRejectedError(f"'{file.uri}' is empty (0 bytes); supply it again")
        with self._open(file) as stream:
            _check_magic(file.uri, stream.read(16), form)
            stream.seek(0)
            if form.kind == "parquet":
                return _parquet_shape(file, stream)
            return _csv_shape(file, stream, form, self.data.csv)

    def inferred_types(self, file: SpanFile) -> dict[str, pa.DataType]:
        """Gives the types that a file's columns have: Parquet's own, or those of the first block of a CSV."""
        form = file_format(file.uri, self.data)
        with self._open(file) as stream, _rejecting(file.uri, self.data.csv):
            if form.kind == "parquet":
                schema = pq.ParquetFile(stream).schema_arrow
            else:
                opened = _decompressed(pa.PythonFile(stream, "r"), form)
                schema = pa.csv.open_csv(opened, *_csv_options(self.data.csv, {}, None)).schema
        return {name: schema.field(name).type for name in schema.names}

    @contextlib.contextmanager
    def local_copy(self, file: SpanFile) -> Iterator[tuple[Path, str]]:
        """Gives a file on the local disk and the SHA-256 of its content, in hex. A remote file is fetched, once."""
        source = strip_protocol(file.uri)
        if not storage.is_remote(file.uri):
            yield Path(source), _digest(Path(source))
            return
        with tempfile.TemporaryDirectory(prefix="ingest_data-") as folder:
            copy = Path(folder) / "copy"
            with storage.reaching(file.uri):
                self._fs.get_file(source, str(copy))
            yield copy, _digest(copy)

    @contextlib.contextmanager
    def _open(self, file: SpanFile) -> Iterator[IO[bytes]]:
        path = strip_protocol(file.uri)
        with storage.reaching(file.uri), self._fs.open(path, "rb", block_size=_HEADER_BLOCK) as stream:
            yield stream

    def batches(self, file: SpanFile, path: Path, columns: list[Column]) -> Iterator[pa.RecordBatch]:
        """Streams a local copy of a file, with these columns in this order and of these types.

        Raises:
            DataRejectedError: the content is damaged, or a value does not fit its column.
        """
        form = file_format(file.uri, self.data)
        raw = self._parquet(path, columns) if form.kind == "parquet" else self._csv(file.uri, path, form, columns)
        first_row = 1
        with _rejecting(file.uri, self.data.csv):
            for batch in raw:
                yield conformed(batch, columns, file.uri, first_row)
                first_row += batch.num_rows

    def _parquet(self, path: Path, columns: list[Column]) -> Iterator[pa.RecordBatch]:
        with local_parquet(path) as file:
            yield from file.iter_batches(BATCH_ROWS, columns=[column.name for column in columns])

    def _csv(self, uri: str, path: Path, form: FileFormat, columns: list[Column]) -> Iterator[pa.RecordBatch]:
        """Streams CSV; starts over, after the rows already given, when a column must be read as text instead."""
        with path.open("rb") as stream:
            header = _first_lines(stream, form, self.data.csv)[0]
        given = 0
        last: pa.RecordBatch | None = None
        while True:
            try:
                for batch in _after(given, self._csv_once(path, form, columns, header[-1])):
                    yield batch
                    given += batch.num_rows
                    last = batch
            except pa.ArrowInvalid as error:
                if not self._reads_as_text(error, header):
                    raise
            else:
                break
        # Arrow takes all that follows a quote that is never closed for one value, without a word.
        if last is not None and "\n" in str(last.column(header[-1])[-1]):
            _check_quotes(uri, path, form, self.data.csv)

    def _csv_once(self, path: Path, form: FileFormat, columns: list[Column], last: str) -> Iterator[pa.RecordBatch]:
        types = {last: pa.string()} | {column.name: self._cell_type(column) for column in columns}
        options = _csv_options(self.data.csv, types, list(types))
        with pa.OSFile(str(path)) as file, pa.csv.open_csv(_decompressed(file, form), *options) as stream:
            yield from stream

    def _cell_type(self, column: Column) -> pa.DataType:
        if column.is_time or column.name in self._as_text or pa.types.is_string(column.type):
            return pa.string()
        return pa.int64() if pa.types.is_integer(column.type) else pa.float64()

    def _reads_as_text(self, error: pa.ArrowInvalid, header: list[str]) -> bool:
        match = _CONVERSION.search(str(error))
        if match is None or match[2] == "string":
            return False
        self._as_text.add(header[int(match[1])])
        return True


def file_format(uri: str, data: Data) -> FileFormat:
    """Tells a file's format by the configuration, else by its name.

    Raises:
        InputError: the name tells no format.
    """
    name = uri.lower()
    suffix = next((suffix for suffix in _COMPRESSIONS if name.endswith(suffix)), "")
    compression = _COMPRESSIONS.get(suffix)
    if data.format == "parquet" or (data.format == "auto" and name.endswith(_PARQUET_NAMES)):
        return FileFormat("parquet")
    if data.format == "csv" or name.removesuffix(suffix).endswith(_CSV_NAMES):
        return FileFormat("csv", compression)
    raise InputError(
        f"'{uri}': the name tells no format ({', '.join(_CSV_NAMES + _PARQUET_NAMES)}; with .gz or .zst); "
        "set data.format to csv or parquet"
    )


def conformed(batch: pa.RecordBatch, columns: list[Column], uri: str, first_row: int) -> pa.RecordBatch:
    """Turns a batch into these columns, in this order and of these types.

    Raises:
        DataRejectedError: a value does not fit.
    """
    arrays = []
    for column in columns:
        try:
            arrays.append(conform(batch.column(column.name), column))
        except UnfitValueError as unfit:
            raise DataRejectedError(
                f"'{uri}' row {first_row + unfit.row:,}: column '{column.name}': {shown(unfit.value)} does not fit "
                f"type {type_name(column)}; fix the source or the type in the schema"
            ) from unfit
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])


def shown(value: object) -> str:
    """Writes a value into a message, at bearable length."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}… ({len(text):,} characters)"


def type_name(column: Column) -> str:
    """Names a column's type as a schema does."""
    if column.is_time:
        return "INT with time_domain (a time)"
    return {"string": "BYTES", "int64": "INT", "float": "FLOAT"}[str(column.type)]


def _parquet_shape(file: SpanFile, stream: IO[bytes]) -> Shape:
    with _rejecting(file.uri, None):
        parquet = pq.ParquetFile(stream)
    schema = parquet.schema_arrow
    types = dict(zip(schema.names, schema.types, strict=True))
    return Shape(file.uri, file.span, schema.names, types, has_rows=parquet.metadata.num_rows > 0)


def _csv_shape(file: SpanFile, stream: IO[bytes], form: FileFormat, options: CsvOptions) -> Shape:
    with _rejecting(file.uri, options):
        lines = _first_lines(stream, form, options)
    if not lines:
        raise DataRejectedError(f"'{file.uri}' holds no header; the first line must name the columns")
    if "\0" in "".join(lines[0]):
        raise DataRejectedError(
            f"'{file.uri}' is binary or of another encoding than {options.encoding}; check its type"
        )
    return Shape(file.uri, file.span, lines[0], {}, has_rows=len(lines) > 1)


def _first_lines(stream: IO[bytes], form: FileFormat, options: CsvOptions) -> list[list[str]]:
    """Reads the header and the first row that is not blank, as far as there are any."""
    lines = csv.reader(_text(stream, form, options), delimiter=options.delimiter, quotechar=options.quote)
    found: list[list[str]] = []
    for line in lines:
        if line:
            found.append(line)
        if len(found) == 2:
            break
    return found


def _text(stream: IO[bytes], form: FileFormat, options: CsvOptions) -> io.TextIOWrapper:
    csv.field_size_limit(2**31 - 1)
    encoding = "utf-8-sig" if _arrow_encoding(options.encoding) == "utf8" else options.encoding
    raw = _decompressed(pa.PythonFile(stream, "r"), form) if form.compression else stream
    return io.TextIOWrapper(raw, encoding, newline="")


def _check_quotes(uri: str, path: Path, form: FileFormat, options: CsvOptions) -> None:
    """Refuses a file whose last quote is never closed."""
    with path.open("rb") as stream:
        text = _text(stream, form, options)
        try:
            for _ in csv.reader(text, delimiter=options.delimiter, quotechar=options.quote, strict=True):
                pass
        except csv.Error as error:
            raise DataRejectedError(
                f"'{uri}': a quote ({options.quote}) is never closed ({error}); fix the source, or set data.csv.quote"
            ) from error


def _after(rows: int, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Skips the first rows of a stream."""
    for batch in batches:
        if rows < batch.num_rows:
            yield batch.slice(rows)
        rows = max(0, rows - batch.num_rows)


def _decompressed(stream: pa.NativeFile, form: FileFormat) -> pa.NativeFile:
    return pa.CompressedInputStream(stream, form.compression) if form.compression else stream


def _csv_options(
    options: CsvOptions, types: dict[str, pa.DataType], include: list[str] | None
) -> tuple[pa.csv.ReadOptions, pa.csv.ParseOptions, pa.csv.ConvertOptions]:
    return (
        # One thread is as fast here, and only then do errors tell the row.
        pa.csv.ReadOptions(use_threads=False, encoding=_arrow_encoding(options.encoding)),
        pa.csv.ParseOptions(delimiter=options.delimiter, quote_char=options.quote, newlines_in_values=True),
        pa.csv.ConvertOptions(
            column_types=types,
            include_columns=include,
            null_values=options.null_values,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def _arrow_encoding(encoding: str) -> str:
    """Spells UTF-8 as Arrow does, which then reads it without transcoding and skips a byte order mark."""
    name = codecs.lookup(encoding).name
    return "utf8" if name in ("utf-8", "utf-8-sig") else name


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_options(options: CsvOptions) -> None:
    for name, character in (("delimiter", options.delimiter), ("quote", options.quote)):
        if not character.isascii() or character in "\r\n":
            raise InputError(f"data.csv.{name} is {character!r}; use an ASCII character that ends no line")
    if options.delimiter == options.quote:
        raise InputError(f"data.csv: {options.quote!r} is the delimiter and the quote; they must differ")
    _check_encoding(options.encoding)


def _check_encoding(encoding: str) -> None:
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        known = sorted({*encodings.aliases.aliases, *encodings.aliases.aliases.values()})
        close = difflib.get_close_matches(encoding.lower().replace("-", "_"), known, n=1)
        meant = (
            f"did you mean '{close[0].replace('_', '-')}'?"
            if close
            else "use one that Python knows, e.g. utf-8, latin-1"
        )
        raise InputError(f"data.csv.encoding: unknown encoding '{encoding}'; {meant}") from error


def _check_magic(uri: str, start: bytes, form: FileFormat) -> None:
    """Refuses a file whose first bytes say that it is something else than its name."""
    wanted = {"gzip": "gzip data", "zstd": "Zstandard data", None: "a Parquet file" if form.kind == "parquet" else None}
    found = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
    if found == wanted[form.compression]:
        return
    is_a = f"is {found}" if found else "is something else"
    expected = wanted[form.compression] or "CSV"
    raise DataRejectedError(
        f"'{uri}' {is_a}, not {expected} as its name or data.format says; rename it or set data.format"
    )


@contextlib.contextmanager
def _rejecting(uri: str, options: CsvOptions | None) -> Iterator[None]:
    """Turns what Arrow and Python say about damaged content into a rejection that names the file."""
    try:
        yield
    except UnicodeDecodeError as error:
        encoding = options.encoding if options else error.encoding
        raise DataRejectedError(
            f"'{uri}': byte {error.object[error.start]:#04x} is not {encoding}; set data.csv.encoding to the file's"
        ) from error
    except csv.Error as error:
        raise DataRejectedError(f"'{uri}' is no CSV: {error}; check data.csv and the file") from error
    except (pa.ArrowInvalid, EOFError) as error:
        reason = _brief(error)
        if options and "invalid UTF8" in reason:
            raise DataRejectedError(f"'{uri}': {reason}; set data.csv.encoding to the file's") from error
        raise DataRejectedError(
            f"'{uri}' cannot be read: {reason}; the file may be damaged, supply it again"
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise
        # Arrow reports damaged compressed data as an OSError without a number.
        raise DataRejectedError(f"'{uri}' cannot be read: {_brief(error)}; supply it again") from error


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return text if len(text) <= 2 * _SHOWN_CHARACTERS else f"{text[: 2 * _SHOWN_CHARACTERS]}…"
