"""The model that is served: the exported one, and what its card, schema and statistics say about it."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from components.artifacts import MODEL_SPEC, MODEL_VERSION
from components.errors import InputError
from components.json_files import parse_record
from components.model_spec import ModelInput, ModelOutput, ModelSpec, read_spec
from components.rows import Arrays
from components.schema import Schema, parse_schema
from components.typical_row import STATISTICS, arrays_of, read_statistics, typical_row

LABEL = "label"
_PII = "pii"
_WARM_UP_ROWS = (1, 2, 16, 128)
# Named by transform_data after the position of the column among the inputs.
_VOCABULARY = "vocabulary_{}"


class _Evaluation(BaseModel):
    decision_threshold: float | None = None


class _Data(BaseModel):
    key: list[str] = []


class _Config(BaseModel):
    data: _Data = _Data()


class _Card(BaseModel):
    """What the server needs of a model card; the rest may be of any version of Lockgate."""

    name: str
    version: str
    evaluation: _Evaluation
    config: _Config = _Config()


@dataclass(frozen=True)
class Facts:
    """What is known of a model without loading it."""

    directory: Path
    """Holds `1/` and spec.json."""
    spec: ModelSpec
    name: str
    version: str
    threshold: float | None
    """From which probability, or anomaly score, on a row is positive; None: no label is decided."""
    vocabularies: Mapping[str, frozenset[str]]
    """By feature, the values that the model knows; features without an entry have none, or none that is known."""
    redacted: frozenset[str]
    """Features that are annotated as personal."""
    example: Mapping[str, Any]
    """A row: the medians and most frequent values of the training data; without statistics, only required features."""
    keys: tuple[str, ...] = ()
    """Columns that identify a row (data.key) and are no features: a client may send them, and the log keeps them."""
    label_range: tuple[float, float] | None = None
    """Of a regression's label in the training data."""

    @functools.cached_property
    def by_name(self) -> Mapping[str, ModelInput]:
        """The inputs, by name."""
        return {i.name: i for i in self.spec.inputs}

    @functools.cached_property
    def outputs(self) -> list[ModelOutput]:
        """What an answer holds: the model's outputs, and `label` where a threshold decides it."""
        decided = [ModelOutput(name=LABEL, dtype="string")] if self.threshold is not None else []
        return [*self.spec.outputs, *decided]


def read_facts(model_dir: str, model_name: str = "") -> Facts:
    """Reads what lies in and beside a model's directory.

    Args:
        model_dir: a model's directory, or that of a version in the model store.
        model_name: empty: as in the card.

    Raises:
        InputError: no model, or a damaged one.
    """
    given = Path(model_dir.removeprefix("file://"))
    if not given.is_dir():
        raise InputError(f"model '{model_dir}' is no directory; mount a model there, or set model_dir")
    directory = given if (given / MODEL_SPEC).is_file() else given / "model"
    if not (directory / MODEL_SPEC).is_file():
        raise InputError(f"'{given}' has no {MODEL_SPEC}; give a model that train_model exported, or a published one")
    if not (directory / MODEL_VERSION / "saved_model.pb").is_file():
        raise InputError(f"'{directory}/{MODEL_VERSION}' holds no saved_model.pb; export the model again")
    spec = read_spec(directory)
    card = _read_card(directory)
    schema = _read_schema(directory)
    statistics = _read_statistics(directory)
    return Facts(
        directory=directory,
        spec=spec,
        name=model_name or (card.name if card else "model"),
        version=card.version if card else spec.weights_digest[:12],
        threshold=card.evaluation.decision_threshold if card else spec.decision_threshold,
        vocabularies=_vocabularies(directory, spec, schema),
        redacted=_redacted(schema),
        example=typical_row(spec.inputs, statistics),
        keys=_keys(card, spec),
        label_range=_range(statistics.get(str(spec.label.name))) if spec.label.kind == "regression" else None,
    )


class ServedModel:
    """A loaded model."""

    def __init__(self, facts: Facts, threads: int = 1) -> None:
        """Loads it and calls it, so that the first request is no slower than others.

        Args:
            facts: of the model.
            threads: inside one operation of TensorFlow; 0: one a core. To be set before anything else computes.

        Raises:
            InputError: the SavedModel is damaged.
        """
        import tensorflow as tf

        from components.serving_model import ServingModel

        if threads:
            # Operations on rows of a table are too small to share: handing them to other threads costs more.
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        self.facts = facts
        self._model = ServingModel(facts.directory)
        self._classes: Any = np.array([name.encode() for name in facts.spec.label.classes], object)
        self._decides = facts.spec.outputs[0].name
        self._input_error: type[Exception] = tf.errors.InvalidArgumentError
        self.warm_up()

    def warm_up(self) -> None:
        """Calls the model with batches of several sizes: the first calls optimise its graph."""
        row = arrays_of([self.facts.example], self.facts.spec.inputs)
        for rows in _WARM_UP_ROWS:
            self.predict({name: np.repeat(values, rows) for name, values in row.items()})

    def predict(self, arrays: Arrays) -> Arrays:
        """Predicts rows, and decides the label where there is a threshold.

        Args:
            arrays: by feature, shape [rows], with the markers of rows.py.

        Returns:
            By the names of `facts.outputs`, shape [rows] or [rows, width].
        """
        outputs = self._model.predict(arrays)
        threshold = self.facts.threshold
        if threshold is not None:
            # In float32, as evaluate_model compares.
            outputs[LABEL] = self._classes[(outputs[self._decides] >= np.float32(threshold)).astype(np.int8)]
        return outputs

    def is_input_error(self, error: Exception) -> bool:
        """Tells whether a failed prediction is the rows' fault: the model itself refuses them."""
        return isinstance(error, self._input_error)


def _keys(card: _Card | None, spec: ModelSpec) -> tuple[str, ...]:
    features = {i.name for i in spec.inputs}
    return tuple(name for name in card.config.data.key if name not in features) if card else ()


def _beside(directory: Path, name: str) -> Path | None:
    """Finds a file of the model's version: in the folder, or above it where the model is a version's `model/`."""
    folders = [directory, directory.parent] if directory.name == "model" else [directory]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _read_card(directory: Path) -> _Card | None:
    path = _beside(directory, "card.json")
    return parse_record(_Card, path.read_bytes(), path, "publish the model again") if path else None


def _read_schema(directory: Path) -> Schema:
    path = _beside(directory, "schema.pbtxt")
    return parse_schema(path.read_text(encoding="utf-8")) if path else Schema()


def _read_statistics(directory: Path) -> dict[str, Any]:
    """Reads the training data's statistics, by column; they are beside a published model."""
    path = _beside(directory, STATISTICS)
    return read_statistics(path) if path else {}


def _vocabularies(directory: Path, spec: ModelSpec, schema: Schema) -> dict[str, frozenset[str]]:
    domains = {domain.name: list(domain.value) for domain in schema.string_domain}
    found = {}
    for feature in schema.feature:
        values = list(feature.string_domain.value) or domains.get(feature.domain, [])
        if values:
            found[feature.name] = frozenset(values)
    for index, i in enumerate(spec.inputs):
        path = directory / MODEL_VERSION / "assets" / _VOCABULARY.format(index)
        if path.is_file() and i.dtype != "float32":
            found[i.name] = frozenset(path.read_text(encoding="utf-8", errors="replace").splitlines())
    return {i.name: found[i.name] for i in spec.inputs if i.name in found}


def _redacted(schema: Schema) -> frozenset[str]:
    return frozenset(
        feature.name for feature in schema.feature if any(tag.lower() == _PII for tag in feature.annotation.tag)
    )


def _range(feature: Any) -> tuple[float, float] | None:
    if feature is None or not feature.HasField("num_stats") or feature.num_stats.max <= feature.num_stats.min:
        return None
    return float(feature.num_stats.min), float(feature.num_stats.max)
