"""The kinds of models that there are, by their name in `model.kind`."""

from collections.abc import Mapping
from typing import Any

from components.models.autoencoder import Autoencoder
from components.models.contract import Kind
from components.models.isolation_forest import IsolationForest
from components.models.k_means import KMeans
from components.models.linear import Linear
from components.models.networks import Custom, Mlp, WideAndDeep
from components.models.stack import Stack
from components.models.trees import BoostedTrees, RandomForest
from components.settings import Model

_SUPERVISED: Mapping[str, Kind[Any]] = {
    "linear": Linear(),
    "mlp": Mlp(),
    "wide_and_deep": WideAndDeep(),
    "boosted_trees": BoostedTrees(),
    "random_forest": RandomForest(),
    "custom": Custom(),
}

KINDS: Mapping[str, Kind[Any]] = {
    **_SUPERVISED,
    "stack": Stack(_SUPERVISED),
    "isolation_forest": IsolationForest(),
    "autoencoder": Autoencoder(),
    "k_means": KMeans(),
}


def kind_of(model: Model) -> Kind[Any]:
    """Gives what fits a model of section `model`."""
    return KINDS[model.kind]
