"""The models: linear, MLP, or the user's own. Each takes the two packed matrices and gives logits (or a number)."""

from typing import Any

import keras

from components.errors import InputError
from components.features import Label
from components.settings import CustomModel, LinearModel, MlpModel, Model, Task
from components.train_model.embeddings import PeriodicEmbedding, PiecewiseLinearEmbedding, quantile_edges
from components.train_model.examples import Matrix
from components.train_model.packing import Packing, size_of
from components.user_code import FILE, failure, load_function

_BINS = 16


def build(
    model: Model, packing: Packing, numbers_seen: Matrix, label: Label, task: Task, user_module: str
) -> keras.Model:
    """Builds an untrained network, its weights drawn from Keras's global seed.

    Args:
        model: section `model` of pipeline.yaml.
        packing: of the two matrices.
        numbers_seen: float32 [rows, k], rows to learn from, or a sample of them: bins come from their quantiles.
        label: its kind and classes decide the outputs.
        task: section `task` of pipeline.yaml, for the user's function.
        user_module: Python source that may define `build_model`.

    Returns:
        A model from [numbers [rows, k], categories [rows, m]] to [rows, 1] (binary: logit; regression: standardized
        value) or [rows, classes] (logits).

    Raises:
        InputError: the user's build_model is missing, fails, or returns something else.
    """
    numbers = keras.Input((packing.number_columns,), dtype="float32", name="numbers")
    categories = keras.Input((packing.category_columns,), dtype="int32", name="categories")
    outputs = len(label.classes) if label.kind == "multiclass" else 1
    if isinstance(model, CustomModel):
        result = _custom(model, packing, task, user_module, outputs)(packing.unpack(numbers, categories))
    elif isinstance(model, LinearModel):
        result = _linear(model, packing, numbers, categories, outputs)
    else:
        result = _mlp(model, packing, numbers_seen, numbers, categories, outputs)
    return keras.Model([numbers, categories], result)


def _linear(model: LinearModel, packing: Packing, numbers: Any, categories: Any, outputs: int) -> Any:
    penalty = keras.regularizers.L2(model.l2) if model.l2 else None
    terms = [keras.layers.Dense(outputs, kernel_regularizer=penalty)(numbers)] if packing.number_columns else []
    features = packing.unpack(numbers, categories)
    for feature in packing.categories:
        weights = keras.layers.Embedding(
            size_of(feature), outputs, embeddings_initializer="zeros", embeddings_regularizer=penalty
        )
        terms.append(keras.ops.sum(weights(features[feature.name]), axis=1))
    return keras.layers.Add()(terms) if len(terms) > 1 else terms[0]


def _mlp(model: MlpModel, packing: Packing, numbers_seen: Matrix, numbers: Any, categories: Any, outputs: int) -> Any:
    parts = []
    if packing.number_columns:
        parts.append(_embed_numbers(model, numbers_seen)(numbers))
    features = packing.unpack(numbers, categories)
    for feature in packing.categories:
        width = model.embedding_dim or min(50, round(1.6 * size_of(feature) ** 0.56))
        embedded = keras.layers.Embedding(size_of(feature), width)(features[feature.name])
        parts.append(keras.layers.Flatten()(embedded))
    hidden = keras.layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
    for units in model.hidden_units:
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
        if model.dropout:
            hidden = keras.layers.Dropout(model.dropout)(hidden)
    return keras.layers.Dense(outputs)(hidden)


def _embed_numbers(model: MlpModel, numbers_seen: Matrix) -> keras.layers.Layer:
    if model.numeric_embedding == "periodic":
        return PeriodicEmbedding(model.numeric_embedding_dim)
    if model.numeric_embedding == "piecewise_linear":
        return PiecewiseLinearEmbedding(quantile_edges(numbers_seen, _BINS), model.numeric_embedding_dim)
    return keras.layers.Identity()


def _custom(model: CustomModel, packing: Packing, task: Task, user_module: str, outputs: int) -> keras.Model:
    """Calls the user's `build_model(inputs, task, options)`.

    `inputs` are keras.Input by feature name, [rows, width]: numbers float32, categories int32.
    """
    function = load_function(user_module, "build_model")
    if function is None:
        raise InputError(
            "model.kind is custom, but the user module defines no build_model(inputs, task, options); add it, or name "
            "the file that has it as user_module"
        )
    inputs = {f.name: keras.Input((f.width or 1,), dtype="float32", name=f.name) for f in packing.numbers}
    inputs |= {f.name: keras.Input((f.width or 1,), dtype="int32", name=f.name) for f in packing.categories}
    try:
        built = function(inputs, task, dict(model.options))
    except Exception as error:
        raise failure("build_model", error) from error
    _check_custom(built, outputs)
    return built


def _check_custom(built: Any, outputs: int) -> None:
    where = f"{FILE}: build_model"
    if not isinstance(built, keras.Model):
        raise InputError(f"{where} returned a {type(built).__name__}; return a keras.Model of the given inputs")
    if tuple(built.output_shape) != (None, outputs):
        raise InputError(
            f"{where}: the output has shape {built.output_shape} (wanted: (None, {outputs}), without activation); end "
            f"with keras.layers.Dense({outputs})"
        )
    last = built.layers[-1]
    activation = getattr(getattr(last, "activation", None), "__name__", "linear")
    if activation in ("sigmoid", "softmax"):
        raise InputError(
            f"{where}: the last layer '{last.name}' ends in {activation}, which is applied to the exported outputs "
            "anyway; leave its activation out"
        )
