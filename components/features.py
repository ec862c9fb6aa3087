"""What `transform_data` tells `train_model` about its output: `features.json` in the transform graph's folder."""

from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from components.errors import InputError
from components.json_files import parse_record
from components.settings import UNSUPERVISED, TaskType

FEATURES = "features.json"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class RawInput(_Record):
    """A raw column that the transform graph reads: a tensor of shape [rows] (see rows.py)."""

    name: str
    dtype: Literal["string", "int64", "float32"]
    required: bool
    """Whether a row without a value is refused."""


class Feature(_Record):
    """A transformed feature: a column of the transformed dataset, an input of the model."""

    name: str
    kind: Literal["number", "category"]
    """number: float32. category: int64 in [0, categories)."""
    categories: Annotated[int, Field(ge=1)] | None = None
    """Of a category: how many ids, those for missing and unknown values included."""
    offset: Annotated[int, Field(ge=0)] = 0
    """Of a category: added to the graph's ids, where a user's function gives -1 to unknown values."""
    may_be_missing: bool = False
    """Of a number: NaN stands for a missing value."""
    columns: list[str] = []
    """Raw columns that it is made of; empty: unknown."""
    width: Annotated[int, Field(ge=1)] | None = None
    """None: one value a row, a tensor of shape [rows]; else a vector, [rows, width], in Parquet a fixed size list."""


class Label(_Record):
    """The label: a column of the transformed dataset, never an input of the model.

    An unsupervised task may have none. Its models learn from none either, so that rows may lack it.
    """

    name: str | None
    """Of the raw column and of the transformed one; None: there is no label."""
    kind: TaskType
    """binary, anomaly_detection: float32, 1 is positive. multiclass: int64, the index in `classes`. regression:
    float32. clustering: not in the transformed dataset."""
    classes: list[str] = []
    """The values as text, by id. binary, anomaly_detection: negative, positive. regression, clustering: none."""
    positive: str | None = None
    """binary, anomaly_detection: which of the classes."""

    @property
    def is_learned(self) -> bool:
        """Whether the model learns from it."""
        return self.kind not in UNSUPERVISED

    @property
    def column(self) -> str | None:
        """Its column in the transformed dataset; None: it has none."""
        return None if self.kind == "clustering" else self.name

    def encode(self, values: pa.Array) -> pa.Array:
        """Turns raw label values into the transformed ones.

        Returns:
            float32 (binary, anomaly_detection, regression) or int64 (multiclass); null where the value is missing or
            no class.
        """
        assert self.name is not None  # whoever has values has a column
        if self.kind == "regression":
            numbers = pc.cast(values, pa.float32())
            return pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float32()), numbers)
        ids = pc.index_in(class_names(values, self.name), value_set=pa.array(self.classes, pa.string()))
        return pc.cast(ids, pa.int64() if self.kind == "multiclass" else pa.float32())


class FeatureSpec(_Record):
    """What goes into the transform graph, and what comes out."""

    inputs: list[RawInput]
    features: list[Feature]
    label: Label


def class_names(values: pa.Array, column: str | None) -> pa.Array:
    """Gives label values as text: whole numbers without a fraction, a missing value or "" as null.

    Raises:
        InputError: a number is not whole.
    """
    if pa.types.is_floating(values.type):
        known = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
        try:
            values = pc.cast(known, pa.int64())
        except pa.ArrowInvalid as error:
            raise InputError(f"label '{column}' has fractions: not classes; set task.type to regression") from error
    texts = pc.cast(values, pa.string())
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def write_features(transform_graph: Path, spec: FeatureSpec) -> None:
    """Writes `spec` beside the transform graph."""
    (transform_graph / FEATURES).write_text(spec.model_dump_json(indent=1), encoding="utf-8")


def read_features(transform_graph: Path) -> FeatureSpec:
    """Reads what transform_data wrote about its features.

    Raises:
        InputError: the directory is no transform graph of ours, or its features.json is damaged.
    """
    path = transform_graph / FEATURES
    if not path.is_file():
        raise InputError(f"'{transform_graph}' has no {FEATURES}; give the transform_graph that transform_data wrote")
    return parse_record(FeatureSpec, path.read_bytes(), path, "run transform_data again")
