"""How raw columns become model inputs."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from components.settings.section import Name, Section


class NumericFeatures(Section):
    """Numeric columns that are treated alike."""

    columns: Annotated[list[Name], Field(min_length=1)]
    scale: Literal["z_score", "min_max", "quantile_buckets", "none"] = "z_score"
    log: bool = False
    """log(1 + x) first; a negative value counts as 0."""
    buckets: Annotated[int, Field(ge=2, le=10_000)] = 10
    """quantile_buckets: how many; a bucket is then a category."""
    missing: Literal["keep", "mean", "zero", "error"] = "keep"
    """keep: trees learn where missing values belong, networks take the training mean. mean, zero: all models take that.
    error: refuse the row."""
    indicator: bool = False
    """Adds a 0/1 feature that tells where the value was missing."""


class CategoricalFeatures(Section):
    """Categorical columns (strings or integers) that are treated alike."""

    columns: Annotated[list[Name], Field(min_length=1)]
    min_frequency: PositiveInt = 1
    """Rarer values are out of vocabulary."""
    top_k: PositiveInt | None = None
    """Keep only the most frequent values."""
    oov_buckets: PositiveInt = 1
    """Buckets that share the values outside the vocabulary."""
    hash_buckets: Annotated[int, Field(ge=2)] | None = None
    """Hash into this many buckets and keep no vocabulary."""
    missing: Literal["category", "error"] = "category"
    """A missing value is a category of its own, or the row is refused."""

    @model_validator(mode="after")
    def _one_encoding(self) -> Self:
        if self.hash_buckets and (self.top_k or self.min_frequency > 1 or self.oov_buckets > 1):
            raise ValueError("hash_buckets keeps no vocabulary: leave out top_k, min_frequency and oov_buckets")
        return self


DatePart = Literal["year", "month", "day", "day_of_year", "weekday", "hour", "minute"]


class DatetimeFeatures(Section):
    """Date and time columns (UTC) that are treated alike."""

    columns: Annotated[list[Name], Field(min_length=1)]
    parts: list[DatePart] = ["month", "weekday", "hour"]
    """Each becomes a category (year: a z-scored number)."""
    cycles: list[Literal["month", "day_of_year", "weekday", "hour", "minute"]] = []
    """Each becomes the sine and cosine of its phase."""


class Cross(Section):
    """Columns whose combination is a category, hashed."""

    columns: Annotated[list[Name], Field(min_length=2)]
    hash_buckets: Annotated[int, Field(ge=2)] = 1000


class Features(Section):
    """How raw columns become model inputs. Empty: chosen by the types in the schema."""

    numeric: list[NumericFeatures] = []
    categorical: list[CategoricalFeatures] = []
    datetime: list[DatetimeFeatures] = []
    crosses: list[Cross] = []

    @property
    def columns(self) -> list[str]:
        """Names of all raw columns that a feature uses, each once, in the order of the file."""
        groups: list[NumericFeatures | CategoricalFeatures | DatetimeFeatures | Cross]
        groups = [*self.numeric, *self.categorical, *self.datetime, *self.crosses]
        return list(dict.fromkeys(column for group in groups for column in group.columns))

    @model_validator(mode="after")
    def _each_column_once(self) -> Self:
        groups: list[NumericFeatures | CategoricalFeatures | DatetimeFeatures]
        groups = [*self.numeric, *self.categorical, *self.datetime]
        columns = [column for group in groups for column in group.columns]
        for column in columns:
            if columns.count(column) > 1:
                raise ValueError(f"column '{column}' is named {columns.count(column)} times; name it in one group")
        return self
