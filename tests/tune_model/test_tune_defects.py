"""Defective inputs: each gets its error class and one line, and leaves no leaderboard."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from components.errors import DataRejectedError, InputError
from components.models.contract import FittedModel, Kind, Problem, Progress
from components.models.kinds import KINDS
from components.settings import LinearModel, Tuning
from tests.train_model.projects import project, read_split, write_dataset
from tests.tune_model.selecting import LINEAR, MLP, STUMPS, TREES, chosen

BROKEN = "def build_model(inputs, task, options):\n    return inputs['amonut']\n"
CUSTOM: dict[str, Any] = {"kind": "custom"}


@dataclass(frozen=True)
class Defect:
    name: str
    error: type[Exception]
    says: str
    candidates: list[dict[str, Any]] = field(default_factory=lambda: [STUMPS, TREES])
    tuning: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    code: str = ""
    rows: int = 900
    label: float | None = None
    """Of all rows."""
    kind: str = "binary"


DEFECTS = [
    Defect("metric of another task", InputError, "use one of log_loss, brier, auc, accuracy", tuning={"metric": "mae"}),
    Defect("custom alone", InputError, "user_module.py, line 2", [CUSTOM, CUSTOM], code=BROKEN),
    Defect(
        "all fail",
        InputError,
        "none of 2 candidates could be fitted: custom: user_module.py, line 2",
        [CUSTOM, {**CUSTOM, "options": {"other": 1}}],
        code=BROKEN,
    ),
    Defect(
        "searched, but it fails as it stands",
        InputError,
        "KeyError: 'amonut'",
        [CUSTOM],
        {"trials": 5, "search": {"custom": {"units": [1, 2]}}},
        code=BROKEN,
    ),
    Defect(
        "nothing to draw",
        InputError,
        "tuning.trials is 3, but no candidate has hyperparameters to draw; name some in tuning.search",
        [CUSTOM],
        {"trials": 3},
        code="import keras\ndef build_model(inputs, task, options):\n"
        "    return keras.Model(inputs, keras.layers.Dense(1)(inputs['amount']))\n",
    ),
    Defect(
        "a rate that cannot be",
        InputError,
        "training.learning_rate is 1e+30",
        [{**MLP, "dropout": 0.1}, {**MLP, "dropout": 0.2}],
        training={"learning_rate": 1e30},
    ),
    Defect("one class", DataRejectedError, "there is nothing to learn", label=0.0),
    Defect("no rows", DataRejectedError, "no rows", rows=0),
    Defect("five rows", DataRejectedError, "has 5 rows (needed: 2 to compare models on", rows=5),
    Defect(
        "fewer rows than folds", DataRejectedError, "has 9 rows (needed: 10 for 5 folds)", tuning={"folds": 5}, rows=9
    ),
    Defect(
        "calibrated regression",
        InputError,
        "a regression has none",
        training={"calibration": "sigmoid"},
        kind="regression",
    ),
]


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_is_refused_in_one_line(defect: Defect, tmp_path: Path) -> None:
    train = read_split(project(defect.kind).transformed, "train").slice(0, defect.rows)
    if defect.label is not None:
        values = pa.array(np.full(train.num_rows, defect.label, np.float32))
        train = train.set_column(train.column_names.index("label"), "label", values)
    given = project(defect.kind).with_transformed(write_dataset(tmp_path / "given", train=train))
    output = tmp_path / "output"
    output.mkdir()
    with pytest.raises(defect.error) as caught:
        chosen(
            output,
            defect.candidates,
            training=defect.training,
            code=defect.code,
            given=given,
            **defect.tuning,
        )
    assert type(caught.value) is defect.error
    assert defect.says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(output.iterdir())


class Faulty(Kind[LinearModel]):
    """A kind with a fault of its own."""

    settings = LinearModel

    def fit(self, settings: LinearModel, problem: Problem, progress: Progress) -> FittedModel:
        raise ZeroDivisionError("by\nnothing")


def test_a_fault_of_ours_leaves_its_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "linear", Faulty())
    board = chosen(tmp_path, [LINEAR, TREES])
    assert [row.reason for row in board.rows if row.state == "failed"] == ["ZeroDivisionError: by nothing"]
    assert "Traceback" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match=r"none of 2 .*: linear: ZeroDivisionError: by nothing"):
        chosen(tmp_path, [LINEAR, {**LINEAR, "l2": 1.0}])


@pytest.mark.parametrize(
    ("search", "says"),
    [
        ({"mlp": {"dropout": [0.1]}}, "search names 'mlp', which is no candidate (boosted_trees)"),
        (
            {"boosted_trees": {"depth": [1]}},
            "search.boosted_trees.depth: a model of this kind has trees, learning_rate",
        ),
        ({"boosted_trees": {"kind": ["mlp"]}}, "search.boosted_trees.kind: a model of this kind has"),
        ({"boosted_trees": {"leaves": []}}, "search.boosted_trees.leaves is empty"),
        (
            {"boosted_trees": {"leaves": [8, 1]}},
            "search.boosted_trees.leaves: 1: input should be greater than or equal to 2",
        ),
        (
            {"boosted_trees": {"leaves": {"low": 2, "high": 1e9}}},
            "search.boosted_trees.leaves: 1000000000.0: input should",
        ),
        ({"boosted_trees": {"leaves": {"low": 9, "high": 3}}}, "low is 9, high 3; low must be the smaller"),
        ({"boosted_trees": {"l2": {"low": 0, "high": 3, "log": True}}}, "a logarithmic range starts above 0"),
    ],
)
def test_a_search_that_cannot_be_is_refused_when_it_is_read(search: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Tuning.model_validate({"candidates": [TREES], "search": search})
    assert says in str(caught.value)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    chosen(tmp_path / "one", [STUMPS, TREES], studies=str(studies))
    record = sorted(studies.rglob("*.json"))[0]
    record.write_text(record.read_text()[:40])
    with pytest.raises(InputError, match=r"boosted_trees-\w+\.json' is damaged: .*; remove it, then run again"):
        chosen(tmp_path / "two", [STUMPS, TREES], studies=str(studies))


def test_a_record_whose_predictions_are_missing_is_made_again(tmp_path: Path) -> None:
    # Predictions are written first: so this is no crash, but somebody's broom.
    studies = tmp_path / "studies"
    one = chosen(tmp_path / "one", [STUMPS, TREES], studies=str(studies))
    for file in studies.rglob("*.npy"):
        file.unlink()
    assert chosen(tmp_path / "two", [STUMPS, TREES], studies=str(studies)).why == one.why
    assert len(list(studies.rglob("*.npy"))) == 2
