"""What each feature contributes to predictions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from components.errors import DataRejectedError
from components.rows import Arrays
from components.shapley import Array

Method = Literal["tree_shap", "exact_shap", "sampled_shap", "lime"]
Predict = Callable[[Arrays], Array]
"""Takes rows, gives float64 [rows, classes or 1]."""

_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Contributions:
    """Of rows, by feature, in the unit of the prediction."""

    method: Method
    features: list[str]
    shares: Array
    """float64 [rows, features]."""
    values: Array
    """float64 [rows]: what is explained; of several classes, the predicted one's probability."""
    references: Array
    """float64 [rows]: what contributions start from."""
    compared_rows: int
    """Rows that the explained ones were compared with; 0: none but what the trees keep of their training rows."""
    errors: Array | None = None
    """float64 [rows, features]: standard error of each share, as far as it comes from drawing; None: nothing is."""
    fit: Array | None = None
    """float64 [rows]: LIME: R² of the linear model around the row."""

    @property
    def adds_up(self) -> bool:
        """Whether reference and shares together are the prediction."""
        return self.method != "lime"

    @property
    def gaps(self) -> Array:
        """How far reference and shares together are from the prediction, [rows]."""
        gaps: Array = self.references + self.shares.sum(1) - self.values
        return gaps

    @property
    def importance(self) -> Array:
        """Mean absolute share over the rows, [features]."""
        importance: Array = np.abs(self.shares).mean(0)
        return importance

    @property
    def order(self) -> list[int]:
        """The features' numbers, the most important first."""
        return [int(index) for index in np.argsort(-self.importance, kind="stable")]


def require_sums(contributions: Contributions) -> None:
    """Makes sure that shares add up to the difference between prediction and reference, to float32 accuracy.

    Raises:
        DataRejectedError: they don't.
    """
    if not contributions.adds_up:
        return
    sizes = np.abs(contributions.shares).sum(1) + np.abs(contributions.references) + np.abs(contributions.values)
    off = ~(np.abs(contributions.gaps) <= _TOLERANCE * np.maximum(sizes, 1e-3))
    if off.any():
        row = int(np.flatnonzero(off)[0])
        total = contributions.references[row] + contributions.shares[row].sum()
        raise DataRejectedError(
            f"contributions to {off.sum():,} of {len(off):,} predictions do not add up, e.g. to {total:.7g} instead of "
            f"{contributions.values[row]:.7g} (allowed: {_TOLERANCE:g} of their size): these are not the model's; "
            "export it again, or set explanation.method to shap"
        )


def of_classes(scores: Array, classes: Array) -> Array:
    """Gives each row's number of its class, [rows]."""
    chosen: Array = scores[np.arange(len(classes)), classes]
    return chosen
