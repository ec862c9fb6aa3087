"""Networks: MLP, wide and deep, or the user's own."""

from abc import abstractmethod
from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf

from components.errors import InputError
from components.models.contract import Fit, FittedModel, Kind, Problem, Progress, Settings
from components.models.embeddings import PeriodicEmbedding, PiecewiseLinearEmbedding, quantile_edges
from components.models.examples import Matrix, column_means, without_missing
from components.models.fitting import Fitting
from components.models.packing import size_of
from components.settings import CustomModel, MlpModel, WideAndDeepModel
from components.user_code import FILE, failure, load_function

_BINS = 16
_SAMPLE_ROWS = 100_000


class Network(FittedModel):
    """A Keras model from the two packed matrices."""

    def __init__(self, network: keras.Model, fit: Fit, means: Matrix) -> None:
        """Args: means: of the numbers, [columns]; they stand in for missing ones."""
        super().__init__(fit, {"keras": keras.__version__, "tensorflow": tf.__version__})
        self._network = network
        self._means = tf.constant(means)

    def __call__(self, numbers: Any, categories: Any) -> Any:
        """Predicts transformed rows; see FittedModel."""
        known = tf.where(tf.math.is_nan(numbers), self._means, numbers)
        return self._network([known, categories], training=False)

    @property
    def weights(self) -> list[Matrix]:
        """Keras's, in its order, then the means."""
        return [*self._network.get_weights(), self._means.numpy()]

    @property
    def parameters(self) -> int:
        """How many weights there are."""
        return int(self._network.count_params())


class _NetworkKind(Kind[Settings]):
    """A kind whose models differ in their layers."""

    @abstractmethod
    def layers(self, settings: Settings, problem: Problem, numbers: Any, categories: Any) -> Any:
        """Connects [rows, number columns] and [rows, category columns] with [rows, outputs]."""

    def fit(self, settings: Settings, problem: Problem, progress: Progress) -> Network:
        """Fits by gradient descent; weights are drawn by the seed."""
        keras.utils.set_random_seed(problem.training.seed % 2**32)
        tf.config.experimental.enable_op_determinism()
        means = column_means(problem.examples.numbers, problem.learned)
        problem = replace(problem, examples=without_missing(problem.examples, means))
        numbers = keras.Input((problem.packing.number_columns,), dtype="float32", name="numbers")
        categories = keras.Input((problem.packing.category_columns,), dtype="int32", name="categories")
        network = keras.Model([numbers, categories], self.layers(settings, problem, numbers, categories))
        return Network(network, Fitting(network, problem).run(progress), means)


class Mlp(_NetworkKind[MlpModel]):
    """Hidden layers over embedded features."""

    settings = MlpModel

    def layers(self, settings: MlpModel, problem: Problem, numbers: Any, categories: Any) -> Any:
        """Embeds the features, then stacks the hidden layers."""
        return _mlp(settings, problem, numbers, categories)

    def space(self, settings: MlpModel, draw: Any, problem: Problem) -> MlpModel:
        """Draws the layers, their dropout, and how numbers are embedded."""
        return settings.model_copy(update=_drawn_layers(draw))


class WideAndDeep(_NetworkKind[WideAndDeepModel]):
    """A linear model and an MLP, added up and learned together.

    Source: Cheng et al.: Wide & Deep Learning for Recommender Systems, DLRS 2016.
    """

    settings = WideAndDeepModel

    def layers(self, settings: WideAndDeepModel, problem: Problem, numbers: Any, categories: Any) -> Any:
        """Adds the outputs of both."""
        wide = _linear(settings.l2, problem, numbers, categories)
        return keras.layers.Add()([wide, _mlp(settings, problem, numbers, categories)])

    def space(self, settings: WideAndDeepModel, draw: Any, problem: Problem) -> WideAndDeepModel:
        """Draws both parts' hyperparameters."""
        drawn = {**_drawn_layers(draw), "l2": draw.suggest_float("l2", 1e-7, 1e-2, log=True)}
        return settings.model_copy(update=drawn)


class Custom(_NetworkKind[CustomModel]):
    """What the user's `build_model` returns."""

    settings = CustomModel

    def layers(self, settings: CustomModel, problem: Problem, numbers: Any, categories: Any) -> Any:
        """Calls the user's function.

        Raises:
            InputError: it is missing, fails, or returns something else.
        """
        return _custom(settings, problem)(problem.packing.unpack(numbers, categories))


def _drawn_layers(draw: Any) -> dict[str, Any]:
    width = draw.suggest_categorical("hidden_width", [32, 64, 128, 256])
    depth = draw.suggest_int("hidden_layers", 1, 3)
    return {
        "hidden_units": [max(8, width >> layer) for layer in range(depth)],
        "dropout": draw.suggest_float("dropout", 0.0, 0.5),
        "numeric_embedding": draw.suggest_categorical("numeric_embedding", ["none", "periodic", "piecewise_linear"]),
    }


def _outputs(problem: Problem) -> int:
    return len(problem.label.classes) if problem.label.kind == "multiclass" else 1


def _linear(l2: float, problem: Problem, numbers: Any, categories: Any) -> Any:
    packing, outputs = problem.packing, _outputs(problem)
    penalty = keras.regularizers.L2(l2) if l2 else None
    terms = [keras.layers.Dense(outputs, kernel_regularizer=penalty)(numbers)] if packing.number_columns else []
    features = packing.unpack(numbers, categories)
    for feature in packing.categories:
        weights = keras.layers.Embedding(
            size_of(feature), outputs, embeddings_initializer="zeros", embeddings_regularizer=penalty
        )
        terms.append(keras.ops.sum(weights(features[feature.name]), axis=1))
    return keras.layers.Add()(terms) if len(terms) > 1 else terms[0]


def _mlp(model: MlpModel, problem: Problem, numbers: Any, categories: Any) -> Any:
    packing = problem.packing
    parts = []
    if packing.number_columns:
        parts.append(_embed_numbers(model, problem)(numbers))
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
    return keras.layers.Dense(_outputs(problem))(hidden)


def _embed_numbers(model: MlpModel, problem: Problem) -> keras.layers.Layer:
    if model.numeric_embedding == "periodic":
        return PeriodicEmbedding(model.numeric_embedding_dim)
    if model.numeric_embedding == "piecewise_linear":
        return PiecewiseLinearEmbedding(quantile_edges(_sample(problem), _BINS), model.numeric_embedding_dim)
    return keras.layers.Identity()


def _sample(problem: Problem) -> Matrix:
    step = max(1, len(problem.learned) // _SAMPLE_ROWS)
    sample: Matrix = problem.examples.numbers[problem.learned[::step]]
    return sample


def _custom(model: CustomModel, problem: Problem) -> keras.Model:
    """Calls the user's `build_model(inputs, task, options)`.

    `inputs` are keras.Input by feature name, [rows, width]: numbers float32, categories int32.
    """
    packing = problem.packing
    function = load_function(problem.user_module, "build_model")
    if function is None:
        raise InputError(
            "model.kind is custom, but the user module defines no build_model(inputs, task, options); add it, or name "
            "the file that has it as user_module"
        )
    inputs = {f.name: keras.Input((f.width or 1,), dtype="float32", name=f.name) for f in packing.numbers}
    inputs |= {f.name: keras.Input((f.width or 1,), dtype="int32", name=f.name) for f in packing.categories}
    try:
        built = function(inputs, problem.task, dict(model.options))
    except Exception as error:
        raise failure("build_model", error) from error
    _check_custom(built, _outputs(problem))
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
