"""Tells the model registries that the settings name of a version, without being stopped by one that fails."""

import shlex

from components.errors import LockgateError
from components.model_store import ModelStore
from components.registries.entry import entry_of
from components.registries.kubeflow import KubeflowRegistry
from components.registries.mlflow import MlflowRegistry
from components.settings import Registries

KINDS: dict[str, type[MlflowRegistry] | type[KubeflowRegistry]] = {
    "mlflow": MlflowRegistry,
    "kubeflow": KubeflowRegistry,
}
"""By the name that settings and command line have for them."""


def tell(registries: Registries, store: ModelStore, version: str) -> list[str]:
    """Exports a version to every registry that the settings name.

    Returns:
        A line a registry: where the version is, or why it is not and the command that does it later.
    """
    return [_told(kind, url, store, version) for kind, url in registries if url]


def _told(kind: str, url: str, store: ModelStore, version: str) -> str:
    try:
        done = KINDS[kind](url).export(entry_of(store, version), store.latest())
    except LockgateError as error:
        options = {"to": kind, "uri": url, "store": store.uri, "name": store.name, "version": version}
        arguments = shlex.join(text for name, value in options.items() for text in (f"--{name}", value))
        return f"{kind} was not told: {error}; later: python -m pipelines models export {arguments}"
    return f"{kind} was told: {done.where}"
