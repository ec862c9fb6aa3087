"""Shapley values: how much each feature adds to a model's output, averaged over all orders in which features join.

A coalition is a set of features that have a row's values while the others have those of a reference row. The values of
all features add up to the difference between the two rows' outputs. Few features are enumerated; for more, orders are
drawn (Castro et al. 2009, Štrumbelj and Kononenko 2014), each together with its reverse, which cancels much of the
chance (Mitchell et al. 2022).
"""

# Not the package shap: it brings numba and LLVM, for which the predictor's image, 1.4 GB at most, has no room.

import math
from typing import Any

import numpy as np

from components.rows import Arrays

Array = np.ndarray[Any, Any]

_SEED = 20090501


class Enumeration:
    """All coalitions."""

    def __init__(self, players: int) -> None:
        """Lists them: row c of `coalitions` [2^players, players] has the bits of c; none is first, all is last."""
        self._players = players
        self.coalitions: Array = (np.arange(2**players)[:, None] >> np.arange(players)) & 1 == 1

    def shares(self, values: Array) -> Array:
        """Gives each player's Shapley value, [players, …].

        Args:
            values: of the coalitions, in their order, [coalitions, …]; what follows are games of their own.
        """
        orders = math.factorial(self._players)
        before = [math.factorial(n) * math.factorial(self._players - n - 1) / orders for n in range(self._players)]
        weights, sizes = np.array(before), self.coalitions.sum(1)
        shares = np.empty((self._players, *values.shape[1:]))
        for player in range(self._players):
            without = np.flatnonzero(~self.coalitions[:, player])
            gains = values[without | 1 << player] - values[without]
            shares[player] = weights[sizes[without]] @ gains
        return shares


class Sample:
    """The coalitions that random orders pass through on their way from none to all."""

    def __init__(self, players: int, permutations: int, seed: int = _SEED) -> None:
        """Draws the orders, the same for one seed.

        Args:
            players: at least one.
            permutations: how many orders; even, as each is followed by its reverse.
            seed: of the drawing.
        """
        generator = np.random.default_rng(seed)
        drawn = [generator.permutation(players) for _ in range(permutations // 2)]
        self._ranks = np.argsort([*drawn, *(order[::-1] for order in drawn)], axis=1)
        between = self._ranks[:, None, :] < np.arange(1, players)[:, None]
        ends = np.zeros((1, players), bool), np.ones((1, players), bool)
        self.coalitions: Array = np.concatenate([ends[0], between.reshape(-1, players), ends[1]])

    def shares(self, values: Array) -> Array:
        """Estimates each player's Shapley value, [players, …].

        Args:
            values: of the coalitions, in their order, [coalitions, …]; what follows are games of their own.
        """
        permutations, players = self._ranks.shape
        paths = np.empty((permutations, players + 1, *values.shape[1:]))
        paths[:, 0], paths[:, -1] = values[0], values[-1]
        paths[:, 1:-1] = values[1:-1].reshape(permutations, players - 1, *values.shape[1:])
        ranks = self._ranks.reshape(permutations, players, *[1] * (values.ndim - 1))
        shares: Array = np.take_along_axis(np.diff(paths, axis=1), ranks, axis=1).mean(0)
        return shares


def mixed(rows: Arrays, reference: Arrays, coalitions: Array) -> Arrays:
    """Gives each row in each coalition: its own values of the coalition's features, the reference's of all others.

    Args:
        rows: by feature, in the order of the coalitions' columns, shape [rows].
        reference: one row.
        coalitions: bool [coalitions, features].

    Returns:
        By feature, shape [coalitions · rows], all rows of the first coalition before those of the second.
    """
    return {
        name: np.where(coalitions[:, feature, None], values, reference[name]).reshape(-1)
        for feature, (name, values) in enumerate(rows.items())
    }
