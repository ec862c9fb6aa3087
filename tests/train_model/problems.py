"""Small problems for kinds of models, in memory."""

from typing import Any

import numpy as np

from components.features import Feature, FeatureSpec, Label
from components.models.contract import Problem
from components.models.examples import Examples
from components.models.packing import Packing
from components.settings import Task, Training

CLASSES = {"binary": ["0", "1"], "multiclass": ["a", "b", "c"], "regression": []}
IDS = (4, 7)


def problem_of(kind: str, rows: int = 400, seed: int = 1, held_out: int = 40, **training: Any) -> Problem:
    """Three numbers in very different units, two categories, some numbers missing."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal([0, 1e4, 1e-3], [1, 1e3, 1e-4], (rows, 3)).astype(np.float32)
    score = numbers[:, 0] + (numbers[:, 1] - 1e4) / 1e3
    numbers[rng.random((rows, 3)) < 0.05] = np.nan
    categories = np.stack([rng.integers(0, size, rows) for size in IDS], 1).astype(np.int32)
    score = score + categories[:, 0] - 1.5 + rng.logistic(size=rows)
    labels = {
        "binary": (score > 0).astype(np.float32),
        "multiclass": np.digitize(score, [-1, 1]).astype(np.int32),
        "regression": score.astype(np.float32),
    }[kind]
    features = [Feature(name=f"n{i}", kind="number", columns=["x"]) for i in range(3)]
    features += [Feature(name=f"c{i}", kind="category", columns=["x"], categories=size) for i, size in enumerate(IDS)]
    label = Label(name="y", kind=kind, classes=CLASSES[kind])  # type: ignore[arg-type]
    packing = Packing(FeatureSpec(inputs=[], features=features, label=label))
    order = np.arange(rows, dtype=np.int32)
    return Problem(
        Examples(numbers, categories, labels),
        order[: rows - held_out],
        order[rows - held_out :],
        packing,
        label,
        Task(type=kind, label="y"),  # type: ignore[arg-type]
        Training.model_validate(training),
    )
