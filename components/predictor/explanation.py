"""Why a prediction is what it is: the share of each feature in its difference from that of a reference row."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.model_spec import ModelSpec, classes_of
from components.predictor.faults import RequestError
from components.rows import Arrays
from components.shapley import Array, Enumeration, Sample, mixed

MOST_ENUMERATED = 8
"""Features up to which all coalitions are predicted: 256 rows."""


@dataclass(frozen=True)
class Explanation:
    """One prediction, taken apart."""

    outputs: Arrays
    """The prediction, as the model gives it; one row."""
    output: str
    """Which output is explained."""
    class_name: str | None
    """Whose probability, or distance, it is; None: it is of none."""
    value: float
    """Of the explained output."""
    reference: float
    """The same for the reference row."""
    contributions: dict[str, float]
    """By feature, all of them, the largest first; they add up to value - reference."""
    exact: bool
    """All coalitions were predicted; else the shares are estimates, their sum is not."""


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
            parts.append(await self._predict(self._in_coalitions(row, players, coalitions), len(coalitions)))
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

    def _in_coalitions(self, row: Arrays, players: list[str], coalitions: Array) -> Arrays:
        """Gives the row in each coalition of its players; all other features have the reference's values anyway."""
        others = {name: np.repeat(values, len(coalitions)) for name, values in self._reference.items()}
        return others | mixed({name: row[name] for name in players}, self._reference, coalitions)

    def _target(self, predicted: Arrays) -> tuple[str, int | None, str | None]:
        """Tells what is explained: the output, its column where it has several, and the class or cluster meant."""
        label = self._spec.label
        if label.kind in ("regression", "anomaly_detection"):
            return self._spec.outputs[0].name, None, None
        if label.kind == "clustering":
            name = predicted["cluster"][0].decode()
            return "distances", classes_of(self._spec).index(name), name
        if label.kind == "binary":
            return "probability", None, label.classes[1]
        name = predicted["class"][0].decode()
        return "probabilities", label.classes.index(name), name


def _equal(one: Any, other: Any) -> bool:
    """Compares two values of a feature; two missing numbers, which are NaN, are equal."""
    return bool(one == other or (one != one and other != other))
