"""Where the rows come from, and how they are split."""

from datetime import date, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from components.settings.section import Fraction, Name, Section


class CsvOptions(Section):
    """How to read CSV."""

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    """One character; write "\\t" for a tab."""
    encoding: str = "utf-8"
    """Any encoding that Python knows, e.g. latin-1; a byte order mark is skipped."""
    quote: Annotated[str, Field(min_length=1, max_length=1)] = '"'
    """One character."""
    null_values: list[str] = ["", "NA", "NaN", "null"]
    """Cells that mean "missing" (unquoted)."""


class HashSplit(Section):
    """Splits rows by a hash of their key: rows with one key stay together, on every machine."""

    by: Literal["hash"]
    key: Annotated[list[Name], Field(min_length=1)]
    """Columns whose values decide, e.g. [customer_id]."""
    eval_fraction: Fraction = 0.2
    """Share of keys that go to the eval split."""
    salt: str = ""
    """Change it to draw another split."""


class TimeSplit(Section):
    """Splits rows at a point in time, as production will see them."""

    by: Literal["time"]
    column: Name
    """A date or time column (or one with a time_domain in the schema)."""
    eval_from: datetime | None = None
    """Rows at or after this time go to the eval split, e.g. 2013-10-01. Without a zone: UTC."""
    eval_last: Annotated[str | None, Field(pattern=r"^[1-9][0-9]{0,4} (hour|day|month|year)s?$")] = None
    """Instead: the last of the window, e.g. "1 month", so that a window that moves is evaluated on its newest rows. The
    source's names must tell the time ({YYYY} …)."""

    @model_validator(mode="after")
    def _one_cut(self) -> Self:
        if (self.eval_from is None) == (self.eval_last is None):
            raise ValueError("give either eval_from (a time) or eval_last (e.g. 1 month)")
        return self


class ColumnSplit(Section):
    """Splits rows by the value of a given column."""

    by: Literal["column"]
    column: Name
    train: Annotated[list[str], Field(min_length=1)] = ["train"]
    """Values of the train split."""
    eval: Annotated[list[str], Field(min_length=1)] = ["eval"]
    """Values of the eval split; a row with any other value is an error."""


Split = Annotated[HashSplit | TimeSplit | ColumnSplit, Field(discriminator="by")]

_SPAN_RANGE = r"[0-9][0-9T-]*(\.\.[0-9][0-9T-]*)?"

_OFFSETS = r"[0-9]{1,9}:[0-9]{1,18}\.\.[0-9]{1,18}"

WINDOW_PATTERN = (
    rf"^(all|(the )?last [1-9][0-9]* (span|hour|day|month|year)s?|{_SPAN_RANGE}(,{_SPAN_RANGE})*"
    rf"|offsets {_OFFSETS}(,{_OFFSETS})*)$"
)


class EventFormat(Section):
    """How the value of a Kafka message is spelled."""

    type: Literal["json", "avro"] = "json"
    schema_file: str | None = None
    """avro: file with the writer's schema (.avsc), from the project's folder; a value is then Avro alone."""
    schema_registry: str = ""
    """avro: URL of a schema registry; a value then begins with the id of its schema, in Confluent's wire format."""

    @model_validator(mode="after")
    def _one_schema(self) -> Self:
        given = bool(self.schema_file) + bool(self.schema_registry)
        if self.type == "avro" and given != 1:
            raise ValueError("type is avro, so give either schema_file or schema_registry")
        if self.type == "json" and given:
            raise ValueError("type is json, which needs no schema: take schema_file and schema_registry out")
        return self


class KafkaOptions(Section):
    """How to read a Kafka topic."""

    format: EventFormat = EventFormat()
    timestamp_column: str = ""
    """Column for the time at which a message was written (seconds since 1970); empty: none."""
    key_column: str = ""
    """Column for the message's key, as text; empty: none."""
    avro_schema: str = ""
    """Content of format.schema_file; filled in when a run is submitted."""


class Data(Section):
    """Where the rows come from."""

    source: Name
    """Local path, gs:// or s3:// URI. It may hold wildcards, {SPAN}, or {YYYY} {MM} {DD} {HH}. Or a Kafka topic:
    kafka://SERVER:9092/TOPIC."""
    window: Annotated[str, Field(pattern=WINDOW_PATTERN)] = "all"
    """Which spans: "all", "last 9 months", "last 3 spans", or "2013-01..2013-09" (both ends included; several with
    commas between them). Of a topic: when messages were written, or "offsets 0:100..200,1:50..80" (by partition, the
    end excluded)."""
    format: Literal["auto", "csv", "parquet"] = "auto"
    """auto: by the file name, .gz and .zst included."""
    csv: CsvOptions = CsvOptions()
    kafka: KafkaOptions = KafkaOptions()
    split: Split
    key: list[Name] = []
    """Columns that identify a row: kept beside its prediction, checked for duplicates, never a feature."""

    @field_validator("window", mode="before")
    @classmethod
    def _as_text(cls, window: Any) -> Any:
        # YAML takes 2013 for a number and 2013-12-01 for a date.
        if isinstance(window, date):
            return window.isoformat()
        return str(window) if isinstance(window, int) else window
