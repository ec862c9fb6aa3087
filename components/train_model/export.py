"""Exporting: one SavedModel that takes raw rows, with the transform graph and the fitted model inside."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from components.artifacts import MODEL_VERSION
from components.features import FEATURES
from components.model_spec import ModelInput, ModelSpec, outputs_of, write_spec
from components.models.calibration import Calibrator
from components.models.contract import FittedModel
from components.models.packing import Packing
from components.rows import marker
from components.settings import Model
from components.transform_graph import TransformGraph


class RawRowsModel(tf.Module):
    """Raw rows to predictions."""

    def __init__(
        self,
        graph: TransformGraph,
        fitted: FittedModel,
        packing: Packing,
        mean: float,
        scale: float,
        calibrator: Calibrator | None,
    ) -> None:
        """Puts the parts together.

        Args:
            graph: from raw rows to features.
            fitted: from features to logits, scores or distances.
            packing: of the features.
            mean: of the label, for a regression; the model gives (label - mean) / scale.
            scale: of the label.
            calibrator: from logits to logits.
        """
        super().__init__()
        self.graph = graph
        self.fitted = fitted
        self.calibrator = calibrator
        self._packing = packing
        self._mean = mean
        self._scale = scale

    def predict(self, raw: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Predicts rows: by column name, tensors of shape [rows]."""
        label = self.graph.spec.label
        logits = self.fitted(*self._packing.pack(self.graph(dict(raw))))
        logits = self.calibrator(logits) if self.calibrator else logits
        if label.kind == "anomaly_detection":
            return {"anomaly_score": logits[:, 0]}
        if label.kind == "clustering":
            names = tf.constant([str(number) for number in range(logits.shape[1])])
            return {"distances": logits, "cluster": tf.gather(names, tf.argmin(logits, 1))}
        if label.kind == "binary":
            return {"probability": tf.sigmoid(logits[:, 0])}
        if label.kind == "regression":
            return {"value": logits[:, 0] * self._scale + self._mean}
        probabilities = tf.nn.softmax(logits)
        return {
            "probabilities": probabilities,
            "class": tf.gather(tf.constant(label.classes), tf.argmax(probabilities, 1)),
        }


def export(
    model: RawRowsModel,
    settings: Model,
    transform_graph: Path,
    train_rows: int,
    threshold: float | None,
    score_quantiles: list[float],
    output: Path,
) -> ModelSpec:
    """Writes the SavedModel, with both signatures, and spec.json.

    Args:
        model: to export.
        settings: section `model` that it was fitted by.
        transform_graph: that it was trained on.
        train_rows: how many it learned from.
        threshold: of the decision; None: there is none to take.
        score_quantiles: see ModelSpec.
        output: directory of the model.
    """
    spec = model.graph.spec
    tensors = {name: tensor.name for name, tensor in model.graph.input_signature.items()}

    def serve_raw(**raw: tf.Tensor) -> dict[str, tf.Tensor]:
        return model.predict({name: raw[tensor] for name, tensor in tensors.items()})

    def serve_tf_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        features = {i.name: tf.io.FixedLenFeature([], tf.as_dtype(i.dtype), marker(i.dtype)) for i in spec.inputs}
        return model.predict(tf.io.parse_example(examples, features))

    signature = {tensor.name: tensor for tensor in model.graph.input_signature.values()}
    raw_rows = tf.function(serve_raw).get_concrete_function(**signature)
    tf.saved_model.save(
        model,
        str(output / MODEL_VERSION),
        signatures={
            "serving_default": raw_rows,
            "serve_tf_examples": tf.function(serve_tf_examples).get_concrete_function(
                tf.TensorSpec([None], tf.string, name="examples")
            ),
        },
    )
    for name, content in model.fitted.assets.items():
        (output / name).write_bytes(content)
    inputs = [ModelInput(name=i.name, tensor=tensors[i.name], dtype=i.dtype, required=i.required) for i in spec.inputs]
    model_spec = ModelSpec(
        inputs=inputs,
        outputs=outputs_of(spec.label, _clusters(raw_rows)),
        label=spec.label,
        model=settings.model_dump(mode="json", exclude_none=True),
        weights_digest=digest(model, transform_graph, threshold),
        train_rows=train_rows,
        decision_threshold=threshold,
        score_quantiles=score_quantiles,
        libraries={**model.fitted.libraries, "tensorflow-transform": tft.__version__},
    )
    write_spec(output, model_spec)
    return model_spec


def _clusters(function: Any) -> int | None:
    outputs = function.structured_outputs
    return int(outputs["distances"].shape[1]) if "distances" in outputs else None


def digest(model: RawRowsModel, transform_graph: Path, threshold: float | None) -> str:
    """Names how a model answers: SHA-256, in hex, of its weights, features, vocabularies and threshold."""
    result = hashlib.sha256((transform_graph / FEATURES).read_bytes())
    result.update(str(threshold).encode())
    for weights in (*model.fitted.weights, *(model.calibrator.weights if model.calibrator else ())):
        result.update(np.ascontiguousarray(weights).tobytes())
    for asset in sorted((transform_graph / "transform_fn" / "assets").glob("*")):
        result.update(asset.name.encode() + asset.read_bytes())
    return result.hexdigest()
