"""Trying models and choosing one, on real transformed rows."""

import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.errors import InputError
from components.settings import Model
from components.tune_model.records import Leaderboard
from tests.train_model.projects import project, read_split, write_dataset
from tests.tune_model.selecting import LINEAR, MLP, STUMPS, TREES, chosen, environment, facts, written

KINDS = ("binary", "multiclass", "regression")


def complete(board: Leaderboard) -> list[Any]:
    return [row for row in board.rows if row.state == "complete"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_of_the_candidates_is_chosen(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weak = {"kind": "linear", "l2": 100.0}
    board = chosen(tmp_path, [weak, MLP], kind)
    assert board == written(tmp_path)
    assert board.model.kind == "mlp"
    assert board.model.hidden_units == [16]
    assert board.metric == ("rmse" if kind == "regression" else "log_loss")
    assert (board.train_rows, board.used_rows, board.compared_rows) == (900, 900, 180)
    best, *_ = board.rows
    assert best.chosen
    assert best.behind == 0
    assert best.low < best.value < best.high
    assert best.latency_ms > 0
    assert best.parameters > 100
    assert best.hyperparameters == {"hidden_units": [16], "numeric_embedding": "none"}
    values = {row.kind: row.value for row in board.rows}
    assert values["mlp"] < 0.9 * values["baseline"]
    lines = capsys.readouterr().out.splitlines()
    assert f"tune_model: 2 of 2: mlp: {board.metric} {best.value:.4f} (best), " in lines[-2]
    assert lines[-1] == f"tune_model: {board.why}"
    assert board.scalars()[board.metric] == best.value


def test_one_candidate_is_chosen_without_a_look_at_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = replace(project("binary"), transformed=tmp_path / "none", transform_graph=tmp_path / "none")
    board = chosen(tmp_path, [MLP], given=nowhere)
    assert written(tmp_path).model.kind == "mlp"
    assert capsys.readouterr().out == f"tune_model: {board.why}\n"
    assert "the only candidate: there is nothing to select" in (tmp_path / "report.html").read_text()
    assert board.scalars() == {"trials": 0.0}


def test_one_candidate_needs_no_tensorflow() -> None:
    code = (
        "import sys, tempfile, time\n"
        "from components.settings import Task, Training, Tuning\n"
        "from components.tune_model.selection import select\n"
        "tuning = Tuning.model_validate({'candidates': [{'kind': 'mlp'}]})\n"
        "out = tempfile.mkdtemp()\n"
        "task = Task(type='binary', label='y')\n"
        "select('', '', task, tuning, Training(), '', '', out + '/leaderboard', out + '/report.html')\n"
        "print([name for name in ('tensorflow', 'optuna', 'scipy', 'pyarrow') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("kind", KINDS)
def test_folds_compare_on_every_row(kind: str, tmp_path: Path) -> None:
    board = chosen(tmp_path, [STUMPS, TREES], kind, folds=3)
    assert board.compared_rows == 900
    assert board.folds == 3
    assert len(complete(board)) == 2


def test_few_rows_are_all_compared_on(tmp_path: Path) -> None:
    board = chosen(tmp_path, [STUMPS, TREES], folds=None)
    assert (board.folds, board.compared_rows) == (5, 900)
    board = chosen(tmp_path / "last", [STUMPS, TREES], folds=None, validation_rows="last")
    assert (board.folds, board.compared_rows) == (None, 180)


def test_a_seed_decides_the_selection(tmp_path: Path) -> None:
    boards = [
        chosen(tmp_path / name, [LINEAR, TREES], trials=2, seed=seed, rule="best")
        for name, seed in (("one", 5), ("two", 5), ("other", 6))
    ]
    assert facts(boards[0]) == facts(boards[1]) != facts(boards[2])


def test_processes_give_what_one_does(tmp_path: Path) -> None:
    # Two places: the search knows less when it draws, but the drawn ones before are the same.
    alone = chosen(tmp_path / "alone", [STUMPS, TREES], trials=1)
    beside = chosen(tmp_path / "beside", [STUMPS, TREES], trials=1, parallel=2)
    assert [row.hyperparameters for row in alone.rows] == [row.hyperparameters for row in beside.rows]
    for one, other in zip(alone.rows, beside.rows, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-4)


def test_the_search_stays_in_its_ranges(tmp_path: Path) -> None:
    search = {
        "mlp": {"hidden_units": [[4], [8, 4]], "dropout": {"low": 0, "high": 0.5}, "embedding_dim": [None, 2]},
        "linear": {"l2": {"low": 1e-5, "high": 1e-3, "log": True}},
    }
    board = chosen(tmp_path, [LINEAR, MLP], trials=6, search=search, training={"epochs": 1})
    models = [row.model for row in board.rows if row.model]
    drawn = [model for model in models if model.model_dump() not in (_full(LINEAR), _full(MLP))]
    assert len(drawn) >= 5
    for model in drawn:
        if model.kind == "linear":
            assert 1e-5 <= model.l2 <= 1e-3
        else:
            assert model.hidden_units in ([4], [8, 4])
            assert 0 <= model.dropout <= 0.5
            assert model.embedding_dim in (None, 2)
            assert model.numeric_embedding == "none"
    # The ends are whole numbers, but dropout is none.
    assert any(model.kind == "mlp" and model.dropout % 1 for model in drawn)


def test_a_search_improves_a_bad_start(tmp_path: Path) -> None:
    start = MLP | {"hidden_units": [1], "dropout": 0.9}
    board = chosen(tmp_path, [start], trials=9, prune=False, training={"epochs": 2})
    (first,) = [row for row in complete(board) if row.hyperparameters.get("dropout") == 0.9]
    assert board.scalars()["log_loss"] < first.value - 0.05
    assert set(board.importance["mlp"]) == {"hidden_width", "hidden_layers", "dropout", "numeric_embedding"}
    assert sum(board.importance["mlp"].values()) == pytest.approx(1)
    assert "Which hyperparameters matter" in (tmp_path / "report.html").read_text()


def test_a_budget_of_time_ends_the_search_and_not_the_candidates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = chosen(tmp_path, [STUMPS, TREES], trials=50, seconds=0.001)
    assert len(complete(board)) == 2
    assert "no further trial: tuning.seconds (0.001) are over" in capsys.readouterr().out


def test_what_lags_behind_is_given_up(tmp_path: Path) -> None:
    # Five good ones set the limits; with nearly all units dropped none keeps up.
    candidates = [MLP | {"hidden_units": [units]} for units in range(16, 21)]
    lagging = {"trials": 1, "search": {"mlp": {"dropout": [0.98, 0.99]}}, "training": {"epochs": 2}}
    board = chosen(tmp_path, candidates, **lagging)
    pruned = [row for row in board.rows if row.state == "pruned"]
    assert len(pruned) == 1
    assert "is above" in pruned[0].reason
    assert "Given up or failed" in (tmp_path / "report.html").read_text()
    kept = chosen(tmp_path / "kept", candidates, prune=False, **lagging)
    assert not [row for row in kept.rows if row.state == "pruned"]


FAILS_OFTEN = """
import keras
def build_model(inputs, task, options):
    if options["units"] > 4:
        raise ValueError("too many units")
    amount = keras.layers.Dense(options["units"])(inputs["amount"])
    return keras.Model(inputs, keras.layers.Dense(1)(amount))
"""


def test_a_candidate_that_fails_does_not_fail_the_others(tmp_path: Path) -> None:
    broken = {"kind": "custom", "options": {"units": 8}}
    board = chosen(tmp_path, [broken, LINEAR], code=FAILS_OFTEN)
    assert board.model.kind == "linear"
    (failed,) = [row for row in board.rows if row.state == "failed"]
    assert failed.reason == "user_module.py, line 5: build_model: ValueError: too many units; correct the user module"
    assert failed.reason.split(";")[0] in (tmp_path / "report.html").read_text()
    assert board.scalars()["failed"] == 1


def test_a_users_model_is_searched(tmp_path: Path) -> None:
    start = {"kind": "custom", "options": {"units": 2}}
    search = {"custom": {"units": {"low": 1.0, "high": 9.0}}}
    board = chosen(tmp_path, [start], code=FAILS_OFTEN, search=search, trials=5, training={"epochs": 1})
    states = {row.hyperparameters["units"]: row.state for row in board.rows if row.model}
    assert len(states) >= 3
    assert all(isinstance(units, int) for units in states)
    assert all((units > 4) == (state == "failed") for units, state in states.items())


def test_at_most_so_many_rows_take_part(tmp_path: Path) -> None:
    board = chosen(tmp_path, [STUMPS, TREES], max_rows=200)
    assert (board.train_rows, board.used_rows, board.compared_rows) == (900, 200, 40)
    assert "200 rows" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("metric", ["auc", "accuracy", "brier"])
def test_more_is_better_where_it_is(metric: str, tmp_path: Path) -> None:
    board = chosen(tmp_path, [STUMPS, TREES], metric=metric)
    assert board.model.kind == "boosted_trees"
    assert all(row.behind >= 0 for row in board.rows)
    values = [row.value for row in board.rows]
    assert values == sorted(values, reverse=metric != "brier")


def test_the_eval_split_is_not_read(tmp_path: Path) -> None:
    only_train = write_dataset(tmp_path / "given", train=read_split(project("binary").transformed, "train"))
    given = project("binary").with_transformed(only_train)
    board = chosen(tmp_path, [STUMPS, TREES], given=given, rule="best")
    assert facts(board) == facts(chosen(tmp_path / "other", [STUMPS, TREES], rule="best"))


@pytest.mark.parametrize("folds", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_ten_rows_do(kind: str, folds: int, tmp_path: Path) -> None:
    few = read_split(project(kind).transformed, "train").slice(0, 10)
    given = project(kind).with_transformed(write_dataset(tmp_path / "given", train=few))
    board = chosen(tmp_path, [LINEAR, MLP], given=given, folds=folds, training={"epochs": 1})
    assert board.compared_rows == (10 if folds > 1 else 2)
    assert np.isfinite([row.value for row in board.rows]).all()


def _full(model: dict[str, Any]) -> dict[str, Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(Model).validate_python(model).model_dump()


def test_trials_go_on_where_they_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    studies = str(tmp_path / "studies")
    whole = chosen(tmp_path / "whole", [TREES], trials=3, rule="best")
    chosen(tmp_path / "first", [TREES], trials=1, studies=studies)
    before = {path: path.stat().st_mtime_ns for path in Path(studies).rglob("*.*")}
    capsys.readouterr()
    again = chosen(tmp_path / "again", [TREES], trials=3, studies=studies, rule="best")
    assert capsys.readouterr().out.count("known from before") == 2
    assert facts(again) == facts(whole)
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())


def test_other_rows_are_another_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    studies = str(tmp_path / "studies")
    candidates = [STUMPS, TREES]
    chosen(tmp_path / "one", candidates, studies=studies)
    for change in ({"seed": 2}, {"training": {"epochs": 2}}, {"kind": "regression"}, {"max_rows": 300}):
        chosen(tmp_path / "two", candidates, studies=studies, **change)
    assert "known from before" not in capsys.readouterr().out
    # Another metric or rule needs no other trials.
    chosen(tmp_path / "three", candidates, studies=studies, metric="auc", rule="best")
    assert capsys.readouterr().out.count("known from before") == 2


@pytest.mark.parametrize("bucket", ["gcs_bucket", "s3_bucket"])
def test_a_study_may_be_remote(
    bucket: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    studies = f"{request.getfixturevalue(bucket)}/studies"
    one = chosen(tmp_path / "one", [STUMPS, TREES], studies=studies)
    capsys.readouterr()
    assert facts(chosen(tmp_path / "two", [STUMPS, TREES], studies=studies)) == facts(one)
    assert capsys.readouterr().out.count("known from before") == 2


KILLED = """
import sys
from pathlib import Path
from tests.tune_model.selecting import STUMPS, TREES, chosen
from tests.train_model.projects import Project
folder = Path(sys.argv[1])
given = Project(folder, "binary", folder / "transformed", folder / "graph")
if __name__ == "__main__":
    chosen(folder / "out", [STUMPS, TREES], trials=200, prune=False, studies=sys.argv[2], given=given)
"""


def test_a_killed_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    studies = tmp_path / "studies"
    shutil.copytree(project("binary").transformed, tmp_path / "given" / "transformed")
    shutil.copytree(project("binary").transform_graph, tmp_path / "given" / "graph")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "given"), str(studies)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list(studies.rglob("*.json"))) < 3:
            time.sleep(0.05)
        process.kill()
    assert not (tmp_path / "given" / "out" / "leaderboard").exists()
    chosen(tmp_path / "again", [STUMPS, TREES], trials=2, prune=False, studies=str(studies))
    assert capsys.readouterr().out.count("known from before") >= 3


def test_parts_try_what_the_whole_finds_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    studies = str(tmp_path / "studies")
    asked = {"trials": 4, "sampler": "random", "prune": False, "rule": "best", "studies": studies}
    parts = [chosen(tmp_path / f"part{n}", [STUMPS, TREES], part=f"{n}/3", **asked) for n in (1, 2, 3)]
    assert "known from before" not in capsys.readouterr().out
    whole = chosen(tmp_path / "whole", [STUMPS, TREES], **asked)
    assert capsys.readouterr().out.count("known from before") == 6
    tried = [row.model for part in parts for row in part.rows if row.model]
    assert sorted(map(str, tried)) == sorted(str(row.model) for row in whole.rows if row.model)
    alone = chosen(tmp_path / "alone", [STUMPS, TREES], **{**asked, "studies": ""})
    assert facts(whole) == facts(alone)
    assert parts[1].why.startswith("of part 2/3 of the trials, ")


def test_a_part_without_a_trial_that_ends_fails_nobody(tmp_path: Path) -> None:
    broken = {"kind": "custom", "options": {}}
    studies = str(tmp_path / "studies")
    board = chosen(tmp_path, [STUMPS, broken], part="2/2", sampler="random", studies=studies, code="import nowhere")
    assert board.why == "of part 2/2 of the trials, none came to its end"
    assert written(tmp_path) == board


@pytest.mark.parametrize(
    ("part", "tuning", "says"),
    [
        ("4/3", {}, "part is '4/3'; write which one of how many, e.g. 2/4"),
        ("0/3", {}, "part is '0/3'"),
        ("half", {}, "part is 'half'"),
        ("1/2", {"studies": ""}, "studies is empty: give the URI"),
        (
            "1/2",
            {"trials": 2, "sampler": "tpe"},
            "tuning.sampler is tpe, which learns from trials that may run elsewhere",
        ),
    ],
)
def test_a_part_that_cannot_be_is_refused(part: str, tuning: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        chosen(tmp_path, [STUMPS], part=part, **{"studies": str(tmp_path / "studies"), **tuning})
