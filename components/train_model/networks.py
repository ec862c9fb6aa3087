"""The models: linear, MLP, or the user's own. Each takes the two packed matrices and gives logits (or a number)."""

from typing import Any

import keras

from components.errors import InputError
from components.features import Label
from components.settings import CustomModel, LinearModel, MlpModel, Model, Task
from components.train_model.embeddings import PeriodicEmbedding, PiecewiseLinearEmbedding, quantile_edges
from components.train_model.packing import Packing, Rows
from components.user_code import failure, load_function

_BINS = 16


def build(model: Model, packing: Packing, rows: Rows, label: Label, task: Task, user_module: str) -> keras.Model:
    """Builds an untrained network.

    Returns:
        A model from [numbers [rows, k], categories [rows, m]] to [rows, 1] (binary: logit; regression: standardized
        value) or [rows, classes] (logits).

    Raises:
        InputError: the user's build_model is missing, fails, or returns something else.
    """
    numbers = keras.Input((packing.number_columns,), dtype="float32", name="numbers")
    categories = keras.Input((len(packing.categories),), dtype="int32", name="categories")
    outputs = len(label.classes) if label.kind == "multiclass" else 1
    if isinstance(model, CustomModel):
        result = _custom(model, packing, task, user_module, outputs)(packing.unpack(numbers, categories))
    elif isinstance(model, LinearModel):
        result = _linear(model, packing, numbers, categories, outputs)
    else:
        result = _mlp(model, packing, rows, numbers, categories, outputs)
    return keras.Model([numbers, categories], result)


def _linear(model: LinearModel, packing: Packing, numbers: Any, categories: Any, outputs: int) -> Any:
    penalty = keras.regularizers.L2(model.l2) if model.l2 else None
    terms = [keras.layers.Dense(outputs, kernel_regularizer=penalty)(numbers)] if packing.number_columns else []
    for index, size in enumerate(packing.sizes()):
        weights = keras.layers.Embedding(size, outputs, embeddings_initializer="zeros", embeddings_regularizer=penalty)
        terms.append(weights(categories[:, index]))
    return keras.layers.Add()(terms) if len(terms) > 1 else terms[0]


def _mlp(model: MlpModel, packing: Packing, rows: Rows, numbers: Any, categories: Any, outputs: int) -> Any:
    parts = []
    if packing.number_columns:
        parts.append(_embed_numbers(model, rows)(numbers))
    for index, size in enumerate(packing.sizes()):
        width = model.embedding_dim or min(50, round(1.6 * size**0.56))
        parts.append(keras.layers.Embedding(size, width)(categories[:, index]))
    hidden = keras.layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
    for units in model.hidden_units:
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
        if model.dropout:
            hidden = keras.layers.Dropout(model.dropout)(hidden)
    return keras.layers.Dense(outputs)(hidden)


def _embed_numbers(model: MlpModel, rows: Rows) -> keras.layers.Layer:
    if model.numeric_embedding == "periodic":
        return PeriodicEmbedding(model.numeric_embedding_dim)
    if model.numeric_embedding == "piecewise_linear":
        return PiecewiseLinearEmbedding(quantile_edges(rows.numbers, _BINS), model.numeric_embedding_dim)
    return keras.layers.Identity()


def _custom(model: CustomModel, packing: Packing, task: Task, user_module: str, outputs: int) -> keras.Model:
    """Calls the user's `build_model(inputs, task, options)`.

    `inputs` are keras.Input by feature name, [rows, width]: numbers float32, categories int32.
    """
    function = load_function(user_module, "build_model")
    if function is None:
        raise InputError("model.kind is custom, but the user module defines no build_model(inputs, task, options)")
    inputs = {f.name: keras.Input((f.width or 1,), dtype="float32", name=f.name) for f in packing.numbers}
    inputs |= {f.name: keras.Input((1,), dtype="int32", name=f.name) for f in packing.categories}
    try:
        built = function(inputs, task, dict(model.options))
    except Exception as error:
        raise failure("build_model", error) from error
    if not isinstance(built, keras.Model):
        raise InputError(f"build_model returned {type(built).__name__}; return a keras.Model of the given inputs")
    if tuple(built.output_shape) != (None, outputs):
        wanted = f"(None, {outputs}), without activation"
        raise InputError(f"build_model: the output has shape {built.output_shape} (wanted: {wanted}); end with Dense")
    return built
