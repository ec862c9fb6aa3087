"""Kinds of models and their hyperparameters."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, PositiveInt, field_validator, model_validator

from components.settings.section import Section
from components.settings.task import Task


class LinearModel(Section):
    """A linear model, by scikit-learn: one weight a number, one a category, fitted until the loss falls no more."""

    kind: Literal["linear"]
    l2: Annotated[float, Field(ge=0)] | None = None
    """Penalty on the squared weights, of numbers in standard deviations, beside the mean loss. Default: scikit-learn's,
    1 / (2 · rows), for a regression 1 / rows."""


class MlpModel(Section):
    """A multilayer perceptron over embedded features."""

    kind: Literal["mlp"] = "mlp"
    hidden_units: Annotated[list[PositiveInt], Field(min_length=1)] = [128, 64]
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    embedding_dim: PositiveInt | None = None
    """Of a categorical feature. Default: min(50, 1.6 · categories ** 0.56)."""
    numeric_embedding: Literal["none", "periodic", "piecewise_linear"] = "periodic"
    """Of a number: as it is, or embedded (Gorishniy et al., On Embeddings for Numerical Features in
    Tabular Deep Learning, NeurIPS 2022)."""
    numeric_embedding_dim: PositiveInt = 8


class WideAndDeepModel(MlpModel):
    """A linear model and a multilayer perceptron, added up and learned together.

    Source: Cheng et al., Wide & Deep Learning for Recommender Systems, DLRS 2016.
    """

    kind: Literal["wide_and_deep"]  # type: ignore[assignment]
    l2: Annotated[float, Field(ge=0)] = 0.0
    """Penalty on the linear part."""


class BoostedTreesModel(Section):
    """Gradient-boosted trees (Friedman, Greedy Function Approximation, 2001), by LightGBM."""

    kind: Literal["boosted_trees"]
    trees: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """At most, for each class of a multiclass label. Default: 500 where 1,000 rows or more are held out for early
    stopping, which keeps fewer; else 10 / learning_rate: so few rows cannot tell, and are learned from in the end."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.05
    leaves: Annotated[int, Field(ge=2, le=1024)] = 31
    """Of a tree, at most."""
    min_leaf_rows: PositiveInt = 20
    max_depth: PositiveInt | None = None
    l2: Annotated[float, Field(ge=0)] = 1.0
    """Penalty on the leaves' values."""
    row_fraction: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of the rows that a tree learns from, drawn anew for each."""
    feature_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the features that each split chooses from."""


class RandomForestModel(Section):
    """A random forest (Breiman, Random Forests, 2001), by LightGBM: the mean of independent trees."""

    kind: Literal["random_forest"]
    trees: Annotated[int, Field(ge=1, le=10_000)] = 100
    """For each class of a multiclass label."""
    leaves: Annotated[int, Field(ge=2, le=1024)] = 256
    """Of a tree, at most."""
    min_leaf_rows: PositiveInt = 2
    max_depth: PositiveInt | None = None
    row_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.632
    """Share of the rows that a tree learns from."""
    feature_fraction: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of the features that each split chooses from."""


def _as_integers(value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, float) and one.is_integer() and abs(one) < 2**53 for one in values):
        return value
    whole = [int(one) for one in values]
    return whole if isinstance(value, list) else whole[0]


class CustomModel(Section):
    """The model that `build_model` of the user module returns."""

    kind: Literal["custom"]
    options: dict[str, str | int | float | bool | list[int] | list[float] | list[str]] = {}
    """Handed to `build_model`; a whole number, or a list of such, as integers."""

    @field_validator("options", mode="before")
    @classmethod
    def _whole_numbers(cls, options: Any) -> Any:
        # Arguments travel as JSON, which does not tell 16 from 16.0; what wants a float takes an integer.
        if not isinstance(options, dict):
            return options
        return {name: _as_integers(value) for name, value in options.items()}


SupervisedModel = LinearModel | MlpModel | WideAndDeepModel | BoostedTreesModel | RandomForestModel | CustomModel
"""A single model that learns from a label."""


class StackModel(Section):
    """Several models, added up: the logits of their probabilities, or a regression's distances from the mean label.

    Sources: Wolpert, Stacked Generalization, Neural Networks 1992; Breiman, Stacked Regressions, Machine Learning 1996
    (weights that are not negative).
    """

    kind: Literal["stack"]
    members: Annotated[
        list[Annotated[SupervisedModel, Field(discriminator="kind")]], Field(min_length=2, max_length=10)
    ]
    weights: list[Annotated[float, Field(ge=0, le=10)]] | None = None
    """Of the members, in their order. Default: equal ones that add up to 1; tune_model learns them."""

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if self.weights is not None and len(self.weights) != len(self.members):
            raise ValueError(f"{len(self.weights)} weights for {len(self.members)} members; give one for each")
        return self

    @property
    def shares(self) -> list[float]:
        """The members' weights."""
        return self.weights or [1 / len(self.members)] * len(self.members)


class IsolationForestModel(Section):
    """Random trees that set rows apart; anomalies need few splits (Liu, Ting, Zhou, Isolation Forest, ICDM 2008).

    By scikit-learn. A category counts by how rare it is.
    """

    kind: Literal["isolation_forest"]
    trees: Annotated[int, Field(ge=1, le=1_000)] = 100
    sample_rows: Annotated[int, Field(ge=2, le=4_096)] = 256
    """Of a tree, drawn anew for each; more hide anomalies behind each other."""
    feature_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the features that a tree sees."""


class AutoencoderModel(Section):
    """A network that squeezes a row through few units and restores it; what it restores badly is an anomaly.

    Numbers are standardized, categories restored as probabilities; the error of each feature counts relative to its
    mean on rows that were learned from.
    """

    kind: Literal["autoencoder"]
    hidden_units: list[PositiveInt] = [64, 32]
    """From the features to the code; back again in the opposite order."""
    code_units: PositiveInt | None = None
    """Of the narrowest layer. Default: a third of the features, 2 at least."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    noise: Annotated[float, Field(ge=0)] = 0.1
    """Standard deviation of what is added to the standardized numbers while learning (Vincent et al., Extracting and
    Composing Robust Features with Denoising Autoencoders, ICML 2008)."""
    embedding_dim: PositiveInt | None = None
    """Of a categorical feature. Default: min(50, 1.6 · categories ** 0.56)."""


MOST_CLUSTERS = 1_000


class KMeansModel(Section):
    """Rows belong to the nearest of some centres (Lloyd, Least Squares Quantization in PCM, 1982), by scikit-learn.

    Numbers are standardized, categories one-hot. Clusters are numbered by their size, the largest is 0.
    """

    kind: Literal["k_means"]
    clusters: Annotated[int, Field(ge=2, le=MOST_CLUSTERS)] | None = None
    """Default: tune_model tries 2 to max_clusters."""
    max_clusters: Annotated[int, Field(ge=2, le=50)] = 10
    """Tried at most, where clusters is not given."""
    starts: PositiveInt = 10
    """How often centres are drawn (k-means++); the best end is kept."""
    batch_rows: PositiveInt | None = None
    """Learns from so many rows at a time (Sculley, Web-Scale K-Means Clustering, WWW 2010). Default: from all, up to
    100,000 rows; else 4,096."""
    category_weight: Annotated[float, Field(ge=0)] = 1.0
    """Of the categories' columns, against those of standardized numbers."""


Model = Annotated[
    SupervisedModel | StackModel | IsolationForestModel | AutoencoderModel | KMeansModel,
    Field(discriminator="kind"),
]

UNSUPERVISED_KINDS: Mapping[str, tuple[str, ...]] = {
    "anomaly_detection": ("isolation_forest", "autoencoder"),
    "clustering": ("k_means",),
}
"""Kinds of models that learn from no label, by type of task; all others are for any task with one."""


def wrong_kind(key: str, model: Model, task: Task) -> str | None:
    """Says what to do about a model, named by a key, that is not for a task; None: it is for it."""
    of_type = next((name for name, kinds in UNSUPERVISED_KINDS.items() if model.kind in kinds), None)
    if of_type == (task.type if task.is_unsupervised else None):
        return None
    known = [str(get_args(one.model_fields["kind"].annotation)[0]) for one in get_args(get_args(Model)[0])]
    unsupervised = [kind for kinds in UNSUPERVISED_KINDS.values() for kind in kinds]
    possible = UNSUPERVISED_KINDS.get(task.type) or [kind for kind in known if kind not in unsupervised]
    return (
        f"{key}: a task of type {task.type} has no '{model.kind}' (that is for "
        f"{of_type or 'tasks that learn from a label'}); use {' or '.join(possible)}, or change task.type"
    )
