"""Several models added up, as one graph."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from components.models.contract import Epoch, Fit, FittedModel, Kind, Problem, Progress
from components.models.examples import Matrix
from components.models.fitting import losses
from components.models.outputs import graph_of, outputs_of
from components.settings import StackModel


class FittedStack(FittedModel):
    """Models that predict side by side."""

    def __init__(self, fit: Fit, members: Sequence[FittedModel], shares: Sequence[float]) -> None:
        """Args: shares: of each member's output in the sum."""
        super().__init__(fit, {name: version for one in members for name, version in one.libraries.items()})
        self.knows_held_out = any(one.knows_held_out for one in members)
        self._members = list(members)
        self._shares = list(shares)

    def __call__(self, numbers: Any, categories: Any) -> Any:
        """Predicts transformed rows; see FittedModel."""
        return _sum([member(numbers, categories) for member in self._members], self._shares)

    @property
    def weights(self) -> list[Matrix]:
        """The members' shares, then the weights of each."""
        return [np.array(self._shares, np.float32), *(one for member in self._members for one in member.weights)]

    @property
    def parameters(self) -> int:
        """How many numbers the members learned, and their shares."""
        return len(self._shares) + sum(member.parameters for member in self._members)


class Stack(Kind[StackModel]):
    """Fits several models to the same rows."""

    settings = StackModel

    def __init__(self, kinds: Mapping[str, Kind[Any]]) -> None:
        """Args: kinds: of the members, by name."""
        self._kinds = kinds

    def fit(self, settings: StackModel, problem: Problem, progress: Progress) -> FittedStack:
        """Fits one member after the other; the step that the sum has is the last.

        Raises:
            InputError: a member's settings do not fit the problem.
        """
        started = time.monotonic()
        members = [self._kinds[member.kind].fit(member, problem, progress) for member in settings.members]
        graphs = [graph_of(member, problem.packing) for member in members]

        def loss(of: Matrix) -> float:
            outputs = _sum([outputs_of(graph, problem.examples, of) for graph in graphs], settings.shares)
            return float(tf.reduce_mean(losses(problem.label.kind, problem.examples.labels[of], outputs)))

        is_unseen = len(problem.held_out) > 0 and not any(member.knows_held_out for member in members)
        validation_loss = loss(problem.held_out) if is_unseen else None
        step = Epoch(1, loss(problem.learned), validation_loss, time.monotonic() - started, "fit")
        progress(step)
        return FittedStack(Fit([step], step), members, settings.shares)


def _sum(outputs: Sequence[Any], shares: Sequence[float]) -> Any:
    return tf.add_n([share * one for share, one in zip(shares, outputs, strict=True)])
