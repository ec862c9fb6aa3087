"""What is kept beside the predictions of a span: where they came from, and how they are distributed."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

RECORD = "_record.json"
"""Beside the files of a span. Names that begin with _ are no data to those who read such folders."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Distribution(_Record):
    """Of the predictions: of numbers, counts between edges; else counts by class."""

    edges: list[float] = []
    """One more than counts; the outer bins also hold what lies beyond."""
    counts: list[int] = []
    classes: dict[str, int] = {}
    mean: float | None = None


class SpanRecord(_Record):
    """One span that was written."""

    span: str
    rows: int
    rejected: int
    models: dict[str, str]
    """URIs by the name that begins their columns; empty: the one that decides."""
    digest: str
    """Of the rows, the models and what else decides the predictions."""
    format: str
    columns: list[str]
    files: list[str] = []
    """From the span's folder."""
    distribution: Distribution
    written: datetime
    run: str
