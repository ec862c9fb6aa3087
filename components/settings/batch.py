"""How spans of rows are predicted."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from components.settings.section import Fraction, Name, Section

DATABASES = ("postgresql", "sqlite")

TABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,50}(\.[A-Za-z_][A-Za-z0-9_]{0,50})?$"

Version = Annotated[str, Field(min_length=1, coerce_numbers_to_str=True)]


class BatchOutput(Section):
    """Where predictions go, and how they are written. A span is written whole or not at all."""

    target: Name = "predictions"
    """A local path (from the project's folder), gs:// or s3:// URI, below which the project gets a folder; or a
    database: postgresql://host:5432/name or sqlite:///path, credentials from the environment."""
    format: Literal["parquet", "csv", "jsonl"] = "parquet"
    compression: Literal["auto", "none", "gzip", "zstd", "snappy"] = "auto"
    """auto: zstd for parquet, none for others. snappy: parquet only."""
    partition_by: str = ""
    """Another column by which the files of a span are divided, e.g. carrier."""
    max_partitions: Annotated[int, Field(ge=1, le=10_000)] = 500
    """More values of partition_by are refused."""
    file_rows: Annotated[int, Field(ge=1)] = 5_000_000
    """A file is followed by another after so many rows."""
    table: Annotated[str, Field(pattern=rf"{TABLE_PATTERN}|^$")] = ""
    """database: the table, e.g. scores or risk.scores; empty: the project's name and `_predictions`. It is made
    unless it is there."""

    @property
    def is_database(self) -> bool:
        """Whether the target is a table."""
        return self.target.partition("://")[0] in DATABASES

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        scheme, _, rest = self.target.partition("://")
        if rest and scheme not in (*DATABASES, "gs", "s3", "file"):
            raise ValueError(
                f"target is '{scheme}://…'; use a local path, gs://, s3://, postgresql:// or sqlite:// (nothing else "
                "is written to)"
            )
        if scheme == "postgresql" and ":" in rest.partition("@")[0] and "@" in rest:
            raise ValueError("target holds a password; take it out and set PGPASSWORD, or a secret on a cluster")
        if self.is_database and self.partition_by:
            raise ValueError("a table has no partitions; take partition_by out")
        if self.table and not self.is_database:
            raise ValueError(f"table is for a database, and target is '{self.target}'; take table out")
        if self.compression == "snappy" and self.format != "parquet":
            raise ValueError("snappy is for parquet; set compression to gzip, zstd or none")
        return self


class Batch(Section):
    """Batch prediction (pipeline batch_prediction): which rows, by which models, written where."""

    source: str = ""
    """Where the rows come from, as data.source; empty: data.source itself. A label is not needed, and not read."""
    model: Version = "production"
    """The version that decides: production, or one that stays, e.g. 7 or v0007."""
    challengers: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")], Version] = {}
    """Versions (or URIs of published ones) that predict the same rows beside it, by the name that begins their
    columns, e.g. challenger: 8 gives challenger_probability."""
    columns: list[Name] = []
    """Raw columns that are written beside the predictions; empty: all, which is what monitoring wants."""
    threshold: Fraction | Literal["model"] = "model"
    """binary: from which probability on the column `decision` is positive. model: each model's own."""
    labels: list[Name] = []
    """binary: what `decision` says, of a negative and of a positive row; empty: false and true."""
    reasons: Annotated[int, Field(ge=0, le=100)] = 0
    """So many reasons for each of the top rows, in the column `reasons`; 0: none. A row costs about 128 predictions."""
    top_rows: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Rows with the highest predictions (of several classes: of the surest), which get reasons and are shown."""
    max_rejected: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of rows that the model may refuse to predict; with more, nothing is written."""
    max_shift: Annotated[float, Field(gt=0, le=1)] | None = None
    """Largest distance between the predictions of this span and of the one before it (Kolmogorov-Smirnov; of classes:
    largest difference of one's share); with more, nothing is written. Default: only reported."""
    output: BatchOutput = BatchOutput()
    beam_args: list[str] = []
    """Options of a Beam pipeline that predicts, e.g. [--runner=FlinkRunner, --flink_master=…]; empty: in memory."""
    scratch: str = ""
    """With beam_args: gs:// or s3:// URI that Beam's workers reach as well, for what goes to and fro; empty: they are
    on the machine of the stage."""

    @model_validator(mode="after")
    def _two_labels(self) -> Self:
        if self.labels and (len(self.labels) != 2 or self.labels[0] == self.labels[1]):
            raise ValueError(f"labels has {self.labels}; name the negative and the positive one, e.g. [on_time, late]")
        return self
