"""Calls tune_model's logic on the small projects of train_model's tests."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.settings import Training, Tuning
from components.tune_model.records import Leaderboard
from components.tune_model.selection import LEADERBOARD, select
from tests.train_model.projects import Project, project

FAST = {"epochs": 3, "batch_size": 64, "learning_rate": 0.02}
TREES, STUMPS = ({"kind": "boosted_trees", "trees": 4, "leaves": leaves} for leaves in (8, 2))
"""Fitted in no time: for tests that are not about the models."""
LINEAR, MLP = {"kind": "linear"}, {"kind": "mlp", "hidden_units": [16], "numeric_embedding": "none"}


def chosen(
    output: Path,
    candidates: list[dict[str, Any]],
    kind: str = "binary",
    training: Mapping[str, Any] | None = None,
    code: str = "",
    studies: str = "",
    given: Project | None = None,
    part: str = "",
    **tuning: Any,
) -> Leaderboard:
    """Chooses into `output`/leaderboard and `output`/report.html; by one part of the rows, and among single models."""
    given = given or project(kind)
    return select(
        str(given.transformed),
        str(given.transform_graph),
        given.task,
        Tuning.model_validate({"candidates": candidates, "folds": 1, "stack": False, **tuning}),
        Training.model_validate({**FAST, **(training or {})}),
        code,
        studies,
        str(output / "leaderboard"),
        str(output / "report.html"),
        part,
    )


def written(output: Path) -> Leaderboard:
    """What is in the leaderboard's file."""
    return Leaderboard.model_validate_json((output / "leaderboard" / LEADERBOARD).read_bytes())


def facts(board: Leaderboard) -> Any:
    """What must be the same each time by rule `best`: all but times, which rule `one_standard_error` chooses by."""
    text = board.model_dump_json(exclude={"seconds": True, "rows": {"__all__": {"fit_seconds", "latency_ms"}}})
    return json.loads(text)


def environment() -> dict[str, str]:
    """Of a process that finds what this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
