"""Boosted trees and forests: fitting, stopping, and what the exported model answers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from components.errors import DataRejectedError, InputError
from components.features import Feature, FeatureSpec, Label
from components.models.contract import Epoch, Problem
from components.models.examples import Examples, Matrix, hold_out
from components.models.kinds import kind_of
from components.models.packing import Packing
from components.models.trees import Trees
from components.serving_model import ServingModel
from components.settings import Task, Training
from components.train_model.training import parse_model
from components.transform_graph import TransformGraph
from tests.train_model.projects import arrays_of, project, read_split

KINDS = ["boosted_trees", "random_forest"]
LABELS = {
    "binary": Label(name="y", kind="binary", classes=["0", "1"], positive="1"),
    "multiclass": Label(name="y", kind="multiclass", classes=["a", "b", "c"]),
    "regression": Label(name="y", kind="regression"),
}


def problem(
    numbers: Matrix, categories: Matrix, kind: str = "binary", training: dict[str, Any] | None = None, ids: int = 20_000
) -> Problem:
    """Rows whose label follows the first column that there is, if it says anything."""
    rows, width, kinds = len(numbers), numbers.shape[1], categories.shape[1]
    features = []
    if width:
        features.append(Feature(name="n", kind="number", may_be_missing=True, width=width))
    if kinds:
        features.append(Feature(name="c", kind="category", categories=ids, width=kinds))
    first = np.nan_to_num(numbers[:, 0]) if width else categories[:, 0] % 7.0
    score = first + np.random.default_rng(1).normal(0, 0.1, rows)
    cuts = {"binary": [0.5], "multiclass": [1 / 3, 2 / 3]}.get(kind)
    labels = (score - score.mean()) / score.std() if cuts is None else np.digitize(score, np.quantile(score, cuts))
    given = Training.model_validate(training or {})
    return Problem(
        Examples(
            numbers.astype("f4"), categories.astype(np.int32), labels.astype(np.int32 if kind == "multiclass" else "f4")
        ),
        *hold_out(rows, given),
        Packing(FeatureSpec(inputs=[], features=features, label=LABELS[kind])),
        LABELS[kind],
        Task(type=kind, label="y"),  # type: ignore[arg-type]
        given,
    )


def normal(rows: int, width: int) -> Matrix:
    numbers: Matrix = np.random.default_rng(2).normal(size=(rows, width)).astype("f4")
    return numbers


def ids(rows: int, width: int, below: int = 20) -> Matrix:
    return np.random.default_rng(3).integers(0, below, (rows, width)).astype(np.int32)


def fit(name: str, given: Problem, settings: dict[str, Any] | None = None, progress: Any = lambda step: None) -> Trees:
    model = parse_model({"kind": name, "trees": 20} | (settings or {}))
    fitted = kind_of(model).fit(model, given, progress)
    assert isinstance(fitted, Trees)
    return fitted


def answers(fitted: Trees, given: Problem) -> Matrix:
    logits: Matrix = fitted(tf.constant(given.examples.numbers), tf.constant(given.examples.categories)).numpy()
    return logits


def library_answers(files: dict[str, bytes], numbers: Matrix, categories: Matrix) -> Matrix:
    """Gives [rows, outputs]: margins of boosted trees, means of forests."""
    matrix = np.hstack([numbers, categories]).astype(np.float64)
    boosters = [lightgbm.Booster(model_str=files[name].decode()) for name in sorted(files)]
    is_forest = b"average_output" in files[min(files)]
    return np.hstack([b.predict(matrix, raw_score=not is_forest).reshape(len(matrix), -1) for b in boosters])


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("name", KINDS)
def test_a_trained_model_answers_as_the_library(name: str, kind: str, tmp_path: Path) -> None:
    made = project(kind)
    result = made.train(tmp_path, {"kind": name, "trees": 40})
    assert result["epochs"] == result["best_epoch"] == 40
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").glob("trees*.txt")}

    table = read_split(made.examples, "eval")
    outputs = ServingModel(tmp_path / "model").predict(arrays_of(table, kind))
    graph = TransformGraph(str(made.transform_graph))
    packing = Packing(graph.spec)
    raw = {i.name: tf.constant(arrays_of(table, kind)[i.name]) for i in graph.spec.inputs}
    wanted = library_answers(files, *(part.numpy() for part in packing.pack(graph(raw))))
    if kind == "regression":
        train = read_split(made.examples, "train")["label"].to_numpy()
        assert np.corrcoef(outputs["value"], wanted[:, 0])[0, 1] == pytest.approx(1, abs=1e-6)
        assert outputs["value"].mean() == pytest.approx(train.mean(), rel=0.02)
    elif kind == "binary":
        expected = wanted if name == "random_forest" else scipy.special.expit(wanted)
        assert outputs["probability"] == pytest.approx(expected[:, 0], abs=1e-6)
    else:
        expected = wanted.clip(1e-7) / wanted.clip(1e-7).sum(axis=1, keepdims=True)
        expected = expected if name == "random_forest" else scipy.special.softmax(wanted, axis=1)
        assert outputs["probabilities"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("name", KINDS)
def test_what_can_be_learned_is(name: str, kind: str) -> None:
    given = problem(normal(2000, 3), ids(2000, 2), kind)
    logits = answers(fit(name, given, {"trees": 60}), given)
    labels = given.examples.labels
    if kind == "regression":
        assert np.corrcoef(logits[:, 0], labels)[0, 1] > 0.97
    else:
        said = logits.argmax(axis=1) if kind == "multiclass" else logits[:, 0] > 0
        assert (said == labels).mean() > 0.92


ODD = {
    "four rows": (normal(4, 1), ids(4, 0)),
    "few rows": (normal(12, 2), ids(12, 1)),
    "a constant column": (np.hstack([np.ones((300, 1)), normal(300, 1)]), ids(300, 0)),
    "only a constant column": (np.ones((300, 1)), ids(300, 0)),
    "all missing": (np.full((300, 2), np.nan), ids(300, 0)),
    "no numbers": (normal(300, 0), ids(300, 2)),
    "many categories": (normal(3000, 0), ids(3000, 1, 15_000)),
    "huge numbers": (normal(300, 2) * np.float32(1e37), ids(300, 0)),
    "tiny numbers": (normal(300, 2) * np.float32(1e-37), ids(300, 0)),
}


UNDIVIDED = ("four rows", "only a constant column", "all missing", "tiny numbers", "many categories")


@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("name", KINDS)
def test_odd_rows_are_learned_from(name: str, case: str) -> None:
    given = problem(*ODD[case])
    if name == "random_forest" and case in UNDIVIDED:
        with pytest.raises(DataRejectedError, match="no feature divides"):
            fit(name, given)
        return
    fitted = fit(name, given)
    logits = answers(fitted, given)
    assert logits.shape == (len(given.examples.labels), 1)
    wanted = library_answers(fitted.assets, given.examples.numbers, given.examples.categories)
    shares = scipy.special.expit(wanted) if name == "boosted_trees" else wanted.clip(1e-7, 1 - 1e-7)
    assert scipy.special.expit(logits) == pytest.approx(shares, abs=1e-6)


def test_two_rows_do_for_boosted_trees_and_not_for_a_forest() -> None:
    given = problem(np.array([[0.0], [1.0]]), ids(2, 0))
    assert answers(fit("boosted_trees", given), given).shape == (2, 1)
    with pytest.raises(DataRejectedError, match=r"row_fraction 0\.632 of 1 rows leaves a tree none"):
        fit("random_forest", given)


def test_a_seed_decides_the_trees() -> None:
    given = problem(normal(500, 3), ids(500, 1))
    one, same = (fit("boosted_trees", given).assets for _ in range(2))
    other = fit("boosted_trees", replace(given, training=given.training.model_copy(update={"seed": 9}))).assets
    assert one == same != other


def test_early_stopping_keeps_the_best_number_of_trees() -> None:
    rng = np.random.default_rng(4)
    given = problem(normal(12_000, 3), ids(12_000, 0))
    noise = replace(given.examples, labels=rng.integers(0, 2, 12_000).astype("f4"))
    steps: list[Epoch] = []
    fitted = fit("boosted_trees", replace(given, examples=noise), {"trees": 400}, steps.append)
    assert steps[-1].number < 400
    assert fitted.fit.best.number == steps[-1].number - 30
    assert fitted.assets["trees.txt"].count(b"Tree=") == fitted.fit.best.number
    assert not fitted.knows_held_out


def test_few_rows_are_all_learned_from_unless_they_are_reserved() -> None:
    few = problem(normal(400, 2), ids(400, 0))
    assert fit("boosted_trees", few).knows_held_out
    reserved = problem(normal(400, 2), ids(400, 0), training={"calibration": "sigmoid"})
    assert not fit("boosted_trees", reserved).knows_held_out
    assert fit("boosted_trees", reserved, {"trees": None, "learning_rate": 0.2}).fit.best.number == 50


@pytest.mark.parametrize("name", KINDS)
def test_progress_is_told_ten_times_and_can_end_the_fitting(name: str) -> None:
    given = problem(normal(600, 2), ids(600, 1))
    steps: list[Epoch] = []
    fitted = fit(name, given, {"trees": 50}, steps.append)
    assert [step.number for step in steps] == list(range(5, 51, 5))
    assert {step.unit for step in steps} == {fitted.fit.unit} == {"tree"}
    assert all(step.validation_loss is not None and step.loss > 0 for step in steps)

    def end(step: Epoch) -> None:
        raise KeyError(step.number)

    with pytest.raises(KeyError, match="5"):
        fit(name, given, {"trees": 50}, end)


@pytest.mark.parametrize("name", KINDS)
def test_balanced_classes_count_the_same(name: str) -> None:
    given = problem(normal(1000, 1), ids(1000, 0))
    rare = replace(given.examples, labels=(np.arange(1000) % 10 == 0).astype("f4"))
    means = []
    for weight in ("none", "balanced"):
        training = Training.model_validate({"class_weight": weight})
        this = replace(given, examples=rare, training=training)
        means.append(scipy.special.expit(answers(fit(name, this, {"leaves": 4}), this)).mean())
    assert means[0] == pytest.approx(0.1, abs=0.05)
    assert means[1] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("name", KINDS)
def test_a_balanced_regression_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="class_weight"):
        fit(name, problem(normal(100, 1), ids(100, 0), "regression", {"class_weight": "balanced"}))


@pytest.mark.parametrize("name", KINDS)
def test_hyperparameters_are_drawn_within_their_bounds(name: str) -> None:
    import optuna

    given = problem(normal(300, 2), ids(300, 0))
    model = parse_model({"kind": name})
    for seed in range(5):
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed)).ask()
        drawn = kind_of(model).space(model, trial, given)
        assert parse_model(drawn.model_dump()) == drawn != model
