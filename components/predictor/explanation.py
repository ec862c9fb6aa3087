"""Why a prediction is what it is: the share of each feature in its difference from that of a reference row.

The shares are Shapley values. A coalition is a set of features that have the row's values while the others have the
reference's; a feature's share is what it adds to the model's output, averaged over all orders in which features can
join. The shares add up to the difference. Few features are enumerated; for more, orders are drawn (Castro et al. 2009,
Štrumbelj and Kononenko 2014), each together with its reverse, which cancels much of the chance (Mitchell et al. 2022).
"""

# Not the package shap: it brings numba and LLVM, for which the predictor's image, 1.4 GB at most, has no room.

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.model_spec import ModelSpec
from components.predictor.faults import RequestError
from components.rows import Arrays

Array = np.ndarray[Any, Any]

MOST_ENUMERATED = 8
"""Features up to which all coalitions are predicted: 256 rows."""
_SEED = 20090501


@dataclass(frozen=True)
class Explanation:
    """One prediction, taken apart."""

    outputs: Arrays
    """The prediction, as the model gives it; one row."""
    output: str
    """Which output is explained."""
    class_name: str | None
    """Whose probability it is; None: it is no probability."""
    value: float
    """Of the explained output."""
    reference: float
    """The same for the reference row."""
    contributions: dict[str, float]
    """By feature, all of them, the largest first; they add up to value - reference."""
    exact: bool
    """All coalitions were predicted; else the shares are estimates, their sum is not."""


class Enumeration:
    """All coalitions."""

    def __init__(self, players: int) -> None:
        """Lists them: row c of `coalitions` [2^players, players] has the bits of c; none is first, all is last."""
        self._players = players
        self.coalitions: Array = (np.arange(2**players)[:, None] >> np.arange(players)) & 1 == 1

    def shares(self, values: Array) -> Array:
        """Gives each player's Shapley value.

        Args:
            values: of the coalitions, in their order.
        """
        orders = math.factorial(self._players)
        before = [math.factorial(n) * math.factorial(self._players - n - 1) / orders for n in range(self._players)]
        weights, sizes = np.array(before), self.coalitions.sum(1)
        shares = np.empty(self._players)
        for player in range(self._players):
            without = np.flatnonzero(~self.coalitions[:, player])
            gains = values[without | 1 << player] - values[without]
            shares[player] = weights[sizes[without]] @ gains
        return shares


class Sample:
    """The coalitions that random orders pass through on their way from none to all."""

    def __init__(self, players: int, permutations: int) -> None:
        """Draws the orders, the same in each call.

        Args:
            players: at least one.
            permutations: how many orders; even, as each is followed by its reverse.
        """
        generator = np.random.default_rng(_SEED)
        drawn = [generator.permutation(players) for _ in range(permutations // 2)]
        self._ranks = np.argsort([*drawn, *(order[::-1] for order in drawn)], axis=1)
        between = self._ranks[:, None, :] < np.arange(1, players)[:, None]
        ends = np.zeros((1, players), bool), np.ones((1, players), bool)
        self.coalitions: Array = np.concatenate([ends[0], between.reshape(-1, players), ends[1]])

    def shares(self, values: Array) -> Array:
        """Estimates each player's Shapley value.

        Args:
            values: of the coalitions, in their order.
        """
        permutations, players = self._ranks.shape
        paths = np.empty((permutations, players + 1))
        paths[:, 0], paths[:, -1] = values[0], values[-1]
        paths[:, 1:-1] = values[1:-1].reshape(permutations, -1)
        shares: Array = np.take_along_axis(np.diff(paths), self._ranks, axis=1).mean(0)
        return shares


class Explainer:
    """Explains predictions of one model."""

    def __init__(
        self,
        spec: ModelSpec,
        reference: Arrays,
        predict: Callable[[Arrays, int], Awaitable[Arrays]],
        permutations: int,
        max_batch_rows: int,
    ) -> None:
        """Takes what all explanations share.

        Args:
            spec: of the model.
            reference: one row.
            predict: takes arrays and how many rows they have, gives outputs.
            permutations: orders that are drawn where features are too many to enumerate; even.
            max_batch_rows: that one call of `predict` gets.
        """
        self._spec = spec
        self._reference = reference
        self._predict = predict
        self._permutations = permutations
        self._max_batch_rows = max_batch_rows

    async def explain(self, arrays: Arrays, index: int) -> Explanation:
        """Explains the prediction of one row.

        Args:
            arrays: rows, as the model takes them.
            index: of the row.

        Raises:
            RequestError: an output is not finite.
        """
        row = {name: values[index : index + 1] for name, values in arrays.items()}
        # A feature that has the reference's value adds nothing to any coalition: its share is 0.
        players = [name for name in row if not _equal(row[name][0], self._reference[name][0])]
        few = len(players) <= MOST_ENUMERATED
        game = Enumeration(len(players)) if few else Sample(len(players), self._permutations)
        parts = []
        for start in range(0, len(game.coalitions), self._max_batch_rows):
            coalitions = game.coalitions[start : start + self._max_batch_rows]
            parts.append(await self._predict(self._mixed(row, players, coalitions), len(coalitions)))
        predicted = {name: values[-1:] for name, values in parts[-1].items()}
        output, column, class_name = self._target(predicted)
        values = np.concatenate([part[output] for part in parts]).astype(np.float64)
        values = values if column is None else values[:, column]
        if not np.isfinite(values).all():
            where = "it" if not np.isfinite(values[-1]) else "a mix of it and the reference row"
            raise RequestError(f"row {index}: the model gives no finite {output} for {where}; check its values")
        shares = dict.fromkeys(row, 0.0) | dict(zip(players, game.shares(values).tolist(), strict=True))
        return Explanation(
            outputs=predicted,
            output=output,
            class_name=class_name,
            value=float(values[-1]),
            reference=float(values[0]),
            contributions=dict(sorted(shares.items(), key=lambda share: -abs(share[1]))),
            exact=few,
        )

    def _mixed(self, row: Arrays, players: list[str], coalitions: Array) -> Arrays:
        """Gives, for each coalition, the row's values of its players and the reference's of all other features."""
        mixed = {name: np.repeat(values, len(coalitions)) for name, values in self._reference.items()}
        for player, name in enumerate(players):
            mixed[name] = np.where(coalitions[:, player], row[name], self._reference[name])
        return mixed

    def _target(self, predicted: Arrays) -> tuple[str, int | None, str | None]:
        """Tells what is explained: the output, its column where it has several, and the class that it is about."""
        label = self._spec.label
        if label.kind == "regression":
            return "value", None, None
        if label.kind == "binary":
            return "probability", None, label.classes[1]
        name = predicted["class"][0].decode()
        return "probabilities", label.classes.index(name), name


def _equal(one: Any, other: Any) -> bool:
    """Compares two values of a feature; two missing numbers, which are NaN, are equal."""
    return bool(one == other or (one != one and other != other))
