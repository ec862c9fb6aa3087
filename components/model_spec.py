"""What a model takes and gives: `spec.json` beside the SavedModel."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from components.artifacts import MODEL_SPEC
from components.errors import InputError
from components.features import Label
from components.json_files import parse_record

Array = np.ndarray[Any, Any]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


DATATYPES = {"string": "BYTES", "int64": "INT64", "float32": "FP32"}
"""The Open Inference Protocol's name of a dtype."""


class ModelInput(_Record):
    """A raw column that the model takes."""

    name: str
    """Of the column, and of the feature in a tf.Example."""
    tensor: str
    """Of the input of `serving_default`; differs from the name only where TensorFlow does not allow it."""
    dtype: Literal["string", "int64", "float32"]
    required: bool
    """A row without a value is refused."""


class ModelOutput(_Record):
    """A tensor that the model gives, for each row."""

    name: str
    dtype: Literal["string", "float32"]
    width: int | None = None
    """None: one value a row."""


class ModelSpec(_Record):
    """A model's interface and origin."""

    inputs: list[ModelInput]
    """Shape [rows] each; a missing value is the marker of `rows.py`."""
    outputs: list[ModelOutput]
    """binary: probability. multiclass: probabilities, class. regression: value. anomaly_detection: anomaly_score (0 to
    1). clustering: distances (to the clusters' centres), cluster."""
    label: Label
    model: dict[str, Any] = {}
    """Kind and hyperparameters, as section `model` of pipeline.yaml has them."""
    weights_digest: str
    """SHA-256, in hex, of the weights, features and vocabularies; models with one digest answer alike."""
    train_rows: int
    decision_threshold: float | None = None
    """binary, anomaly_detection: the probability or score from which on a row counts as positive."""
    score_quantiles: list[float] = []
    """anomaly_detection: 101 quantiles, at equal distances, of the scores of the train split's rows."""
    libraries: dict[str, str]
    """Versions, by package."""


def classes_of(spec: ModelSpec) -> list[str]:
    """Lists what a row may be taken for: classes, or the clusters' names; none: a number is predicted."""
    if spec.label.kind == "clustering":
        return [str(number) for number in range(spec.outputs[0].width or 0)]
    return spec.label.classes


def chosen_columns(label: Label, outputs: Array) -> Array:
    """Tells which column of the first output a prediction is about: the likeliest class, or the nearest cluster.

    Args:
        label: of the spec.
        outputs: [rows, columns].

    Returns:
        int64 [rows].
    """
    chosen: Array = outputs.argmin(1) if label.kind == "clustering" else outputs.argmax(1)
    return chosen


def write_spec(model: Path, spec: ModelSpec) -> None:
    """Writes `spec` into a model's directory."""
    (model / MODEL_SPEC).write_text(spec.model_dump_json(indent=1), encoding="utf-8")


def read_spec(model: Path) -> ModelSpec:
    """Reads the spec of a model, or of predictions, which hold a copy.

    Raises:
        InputError: the directory is no model of ours.
    """
    path = model / MODEL_SPEC
    if not path.is_file():
        raise InputError(f"'{model}' has no {MODEL_SPEC}; give a model that train_model exported")
    return parse_record(ModelSpec, path.read_bytes(), path, "export the model again")


def outputs_of(label: Label, clusters: int | None = None) -> list[ModelOutput]:
    """Lists what a model for a label gives; clusters: of a clustering, how many there are."""
    if label.kind == "anomaly_detection":
        return [ModelOutput(name="anomaly_score", dtype="float32")]
    if label.kind == "clustering":
        distances = ModelOutput(name="distances", dtype="float32", width=clusters)
        return [distances, ModelOutput(name="cluster", dtype="string")]
    if label.kind == "binary":
        return [ModelOutput(name="probability", dtype="float32")]
    if label.kind == "regression":
        return [ModelOutput(name="value", dtype="float32")]
    probabilities = ModelOutput(name="probabilities", dtype="float32", width=len(label.classes))
    return [probabilities, ModelOutput(name="class", dtype="string")]
