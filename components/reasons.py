"""Reasons for predictions: which features contribute most to each, against a typical row.

The contributions are Shapley values, as the model server's explain call gives them. The typical row is that of the
training data where a published model has its statistics beside it, and else that of the dataset.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.model_spec import ModelInput, ModelSpec, chosen_columns
from components.reason_codes import reason_codes
from components.rows import Arrays, marker
from components.shapley import Array, Enumeration, Sample, mixed
from components.typical_row import STATISTICS, arrays_of, read_statistics, typical_row

REASONS = "reasons"

_MOST_COALITIONS = 128
"""Predictions that the reasons for one take, about; so many coalitions are enumerated, or drawn."""
_MOST_CELLS = 2_000_000
"""Values in the rows that the model is asked about at once."""


class Reasoner:
    """Finds the reasons for predictions of one model."""

    def __init__(self, spec: ModelSpec, predict: Callable[[Arrays], Arrays], reference: Arrays, most: int) -> None:
        """Takes what all rows share.

        Args:
            spec: of the model.
            predict: takes rows, gives outputs.
            reference: one row.
            most: reasons for a prediction.
        """
        self._predict = predict
        self._reference = reference
        self._most = most
        self._output = spec.outputs[0].name
        self._label = spec.label
        players = len(spec.inputs)
        if 2**players <= _MOST_COALITIONS:
            self._game: Enumeration | Sample = Enumeration(players)
        else:
            pairs = max(1, _MOST_COALITIONS // (2 * (players - 1)))
            self._game = Sample(players, 2 * pairs)

    def reasons(self, rows: Arrays) -> pa.Array:
        """Gives the reasons for the predictions of some rows, the largest first.

        Args:
            rows: by feature, in the order of the spec, shape [rows].

        Returns:
            Null for a row of which a mix with the typical one has no finite prediction.
        """
        count = len(next(iter(rows.values())))
        step = max(1, _MOST_CELLS // self._game.coalitions.size)
        shares = np.empty((count, len(rows)))
        for start in range(0, count, step):
            some = {name: values[start : start + step] for name, values in rows.items()}
            shares[start : start + step] = self._shares(some)
        return reason_codes(rows, shares, self._most)

    def _shares(self, rows: Arrays) -> Array:
        coalitions = self._game.coalitions
        scores = self._predict(mixed(rows, self._reference, coalitions))[self._output].astype(np.float64)
        scores = scores.reshape(len(coalitions), -1, *scores.shape[1:])
        if scores.ndim == 3:  # of the class or cluster that the row is taken for; the last coalition has its own values
            chosen = chosen_columns(self._label, scores[-1])
            scores = np.take_along_axis(scores, chosen[None, :, None], axis=2)[:, :, 0]
        with np.errstate(invalid="ignore"):
            return self._game.shares(scores).T


def typical_of_statistics(directory: Path, inputs: list[ModelInput]) -> Arrays | None:
    """Gives the typical row of a published model's training data, one row; None: there are no statistics.

    Args:
        directory: the model's; a version's `model/`, beside which they are, or a copy of it that holds them.
        inputs: of the model.
    """
    path = (directory.parent if directory.name == "model" else directory) / STATISTICS
    return arrays_of([typical_row(inputs, read_statistics(path))], inputs) if path.is_file() else None


def typical_of_rows(rows: Arrays, inputs: list[ModelInput]) -> Arrays:
    """Gives the medians and most frequent values of some rows, one row; a column without any is missing in it."""
    return arrays_of([{i.name: _typical(rows[i.name], i) for i in inputs}], inputs)


def _typical(values: Array, of: ModelInput) -> Any:
    known = values[np.isfinite(values)] if of.dtype == "float32" else values[values != marker(of.dtype)]
    if not len(known):
        return None
    if of.dtype == "string":
        present, counts = np.unique(known, return_counts=True)
        return present[counts.argmax()]
    # A median that is a value: no integer lies between two.
    return np.quantile(known, 0.5, method="lower")
