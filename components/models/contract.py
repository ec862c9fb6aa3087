"""What a kind of model implements: adding one is a module that has a `Kind`, and a line in `kinds.py`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import tensorflow as tf

from components.features import Label
from components.models.examples import Examples, Matrix
from components.models.packing import Packing
from components.settings import Section, Task, Training

Settings = TypeVar("Settings", bound=Section)


@dataclass(frozen=True)
class Problem:
    """What is to be learned, and from which rows."""

    examples: Examples
    """All rows; a regression's labels are standardized."""
    learned: Matrix
    """Numbers of the rows to learn from, sorted."""
    held_out: Matrix
    """Numbers of the rows that tell when to stop; may be empty."""
    packing: Packing
    """Which feature lies in which column."""
    label: Label
    task: Task
    training: Training
    user_module: str = ""


@dataclass(frozen=True)
class Epoch:
    """One step of fitting: a pass over the rows that are learned from, or a tree."""

    number: int
    """From 1."""
    loss: float
    """Mean over the rows learned from, while the model changed."""
    validation_loss: float | None
    """Mean over the rows held out; None: none are."""
    seconds: float
    """Since the step before."""
    unit: str = "epoch"
    """What a step is."""


@dataclass(frozen=True)
class Fit:
    """How fitting went."""

    epochs: list[Epoch]
    """Some of them, where there are many."""
    best: Epoch
    """The one that the model has."""

    @property
    def unit(self) -> str:
        """What a step is."""
        return self.best.unit


Progress = Callable[[Epoch], None]
"""Called after a step; what it raises ends the fitting."""


class FittedModel(tf.Module, ABC):  # type: ignore[misc]
    """A model after fitting, as it is saved: no Python is left of it in the SavedModel."""

    knows_held_out = False
    """Whether it learned from the rows held out in the end, so that they say nothing about it."""

    def __init__(self, fit: Fit, libraries: Mapping[str, str]) -> None:
        """Args: libraries: that fitted it, with their versions."""
        super().__init__()
        self.fit = fit
        self.libraries = dict(libraries)

    @abstractmethod
    def __call__(self, numbers: tf.Tensor, categories: tf.Tensor) -> tf.Tensor:
        """Predicts transformed rows, inside a graph.

        Args:
            numbers: float32 [rows, number columns] of the packing.
            categories: int32 [rows, category columns].

        Returns:
            float32 [rows, 1]: a binary label's logit, a regression's standardized value, or an anomaly's score, 0 to
            1; else the classes' logits, [rows, classes], or the distances to clusters, [rows, clusters].
        """

    @property
    @abstractmethod
    def weights(self) -> list[Matrix]:
        """All that decides its answers; models with the same answer alike."""

    @property
    def assets(self) -> dict[str, bytes]:
        """Files that other programs read, by name, which lie beside the SavedModel."""
        return {}

    @property
    def parameters(self) -> int:
        """How many numbers were learned."""
        return sum(weights.size for weights in self.weights)


class Kind(ABC, Generic[Settings]):
    """A kind of model."""

    settings: type[Settings]
    """Its form in section `model` of pipeline.yaml."""
    holds_out = True
    """Whether rows held out tell when to stop; otherwise it learns from all in one step."""

    @abstractmethod
    def fit(self, settings: Settings, problem: Problem, progress: Progress) -> FittedModel:
        """Fits a model to the rows that are to be learned from.

        Seeds come from `training.seed` alone, so that a second call gives the same model.

        Raises:
            InputError: the settings do not fit the problem.
        """

    def space(self, settings: Settings, draw: Any, problem: Problem) -> Settings:
        """Draws hyperparameters around the given ones; a kind without any is tried once.

        Args:
            settings: as the configuration has them.
            draw: an Optuna trial, whose `suggest_…` methods give values.
            problem: whose size may bound them.
        """
        del draw, problem
        return settings
