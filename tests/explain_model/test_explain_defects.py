"""Odd and broken input to explain."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.artifacts import MANIFEST, MODEL_SPEC, Manifest, read_manifest, write_manifest
from components.errors import DataRejectedError, InputError, LockgateError
from components.explain_model import sampling
from components.explain_model.contributions import Contributions, require_sums
from components.explain_model.material import Material, losses
from components.explain_model.page import page
from components.explain_model.weak_slices import find
from components.features import Label
from components.model_spec import ModelSpec, outputs_of
from components.predict_batch.prediction import predict
from components.settings import Explanation
from tests.explain_model.made import Given, given
from tests.train_model.projects import raw_rows, read_split, write_dataset

# ------------------------------------------------------------------------------------------------------ odd rows


def given_rows(tmp_path: Path, table: pa.Table, kind: str = "binary") -> Given:
    """What explain takes, over rows of a test."""
    made = given(kind, tmp_path / "out")
    made.examples, made.predictions = tmp_path / "examples", tmp_path / "predictions"
    write_dataset(made.examples, train=raw_rows(kind, 30), eval=table)
    predict(str(made.examples), str(made.model), "eval", ["id"], str(made.predictions))
    return made


def replaced(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression", "anomaly_detection", "clustering"])
def test_one_row_is_explained(kind: str, tmp_path: Path) -> None:
    made = given_rows(tmp_path, raw_rows(kind, 1), kind)
    assert made.explain()["rows"] == 1
    assert "A usual prediction" in made.report
    assert "nan" not in made.report


def test_rows_without_a_label_are_explained(tmp_path: Path) -> None:
    made = given_rows(tmp_path, replaced(raw_rows("binary", 20), "label", pa.nulls(20, pa.int64())))
    made.explain()
    assert "actual unknown" in made.report
    assert "0 rows with a label are too few" in made.report


def test_a_column_without_values_contributes_nothing_and_a_new_category_something(tmp_path: Path) -> None:
    table = replaced(raw_rows("binary", 200), "amount", pa.nulls(200, pa.float32()))
    made = given_rows(tmp_path, replaced(table, "colour", pa.array([f"colour {row}" for row in range(200)])))
    made.explain(rows=200)
    assert "189 others" in made.report
    assert {
        one["value"] for row in made.table.to_pylist() for one in row["contributions"] if one["feature"] == "amount"
    } == {None}


def test_rejected_rows_do_not_confuse_the_others(tmp_path: Path) -> None:
    trip = [None if row % 5 == 0 else float(row) for row in range(50)]
    made = given_rows(tmp_path, replaced(raw_rows("binary", 50), "trip km", pa.array(trip, pa.float32())))
    made.explain(rows=40)
    predicted = read_split(made.predictions, "eval").to_pylist()
    for row in made.table.to_pylist():
        kept = predicted[row["row"]]["id"]
        (value,) = [one["value"] for one in row["contributions"] if one["feature"] == "trip km"]
        assert float(value) == int(kept.removeprefix("row-"))
        assert row["prediction"] == pytest.approx(predicted[row["row"]]["probability"], rel=1e-6)


def test_without_a_train_split_rows_are_compared_with_each_other(tmp_path: Path) -> None:
    made = given("binary", tmp_path)
    made.examples, made.predictions = tmp_path / "examples", tmp_path / "predictions"
    write_dataset(made.examples, eval=raw_rows("binary", 30))
    predict(str(made.examples), str(made.model), "eval", [], str(made.predictions))
    made.explain()
    assert "drawn from split eval" in made.report


def test_any_names_are_shown_as_they_are() -> None:
    names = [
        "<script>alert(1)</script>",
        '" onload="x',
        "{{ 7 * 7 }}",
        "a & b",
        "名前 é",
        "x" * 5000,
        " ",
        "\x00\x1b[31m",
    ]
    rows = {
        name: np.array([name.encode()] * 30, object) if index % 2 else np.arange(30, dtype="float32") * index
        for index, name in enumerate(names)
    }
    shares = np.random.default_rng(3).normal(size=(30, len(names)))
    contributions = Contributions("exact_shap", names, shares, shares.sum(1), np.zeros(30), 5)
    label = Label(name=names[0], kind="regression")
    spec = ModelSpec(inputs=[], outputs=outputs_of(label), label=label, weights_digest="0", train_rows=1, libraries={})
    material = Material(
        *("eval", 30, rows, np.arange(30), shares.sum(1)[:, None], np.zeros(30), np.arange(30), rows, "train"),
        np.zeros(30, np.int64),
    )
    weak = find(rows, np.arange(30.0), None, None, 5, 3)
    text = page(material, contributions, weak, spec, Explanation())
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert '" onload="' not in text
    assert "{{ 7 * 7 }}" in text
    assert "名前 é" in text


def test_a_model_without_finite_answers_to_mixes_is_named() -> None:
    rows = {name: np.array([0.0, 1.0], "float32") for name in "ab"}
    with pytest.raises(DataRejectedError, match="no finite number for a mix of two rows"):
        sampling.shapley_values(
            lambda mixed: np.where(mixed["a"] == mixed["b"], 1.0, np.nan)[:, None], rows, np.zeros(2, int), rows, 60, 0
        )


def test_contributions_that_do_not_add_up_are_an_error() -> None:
    shares = np.array([[0.25, 0.125], [0.25, 0.25]])
    fine = Contributions("exact_shap", ["a", "b"], shares, np.array([0.5, 0.625]), np.full(2, 0.125), 1)
    require_sums(fine)
    off = Contributions("exact_shap", ["a", "b"], shares, np.array([0.5, 0.626]), np.full(2, 0.125), 1)
    with pytest.raises(DataRejectedError, match=r"to 1 of 2 predictions do not add up, e.g. to 0.625 instead of 0.626"):
        require_sums(off)
    require_sums(Contributions("lime", ["a", "b"], shares, np.array([0.5, 0.626]), np.full(2, 0.125), 1))


def test_losses_are_finite_however_wrong_a_prediction() -> None:
    assert np.isfinite(losses(np.array([0.0, 1.0]), np.array([[1.0], [0.0]]), "binary")).all()
    assert losses(np.array([2.0]), np.array([[0.5, 0.5, 0.0]]), "multiclass")[0] > 10
    assert losses(np.array([3.0]), np.array([[1.0]]), "regression")[0] == 2


def test_losses_of_what_learns_from_no_label_are_wrong_alarms_scores_or_distances() -> None:
    scores, labels = np.array([[0.7], [0.7], [0.4], [0.4]]), np.array([1.0, 0.0, 1.0, np.nan])
    assert losses(labels, scores, "anomaly_detection", 0.5).tolist() == [0, 1, 1, 0.4]
    assert losses(labels[:1], np.array([[3.0, 1.0]]), "clustering").tolist() == [1]


# -------------------------------------------------------------------------------------------------- broken input


@dataclass(frozen=True)
class Defect:
    name: str
    error: type[LockgateError]
    says: str
    make: Callable[[Given], None]


def of_another_model(made: Given) -> None:
    made.predictions = given("regression", made.output).predictions


def of_other_rows(made: Given) -> None:
    shutil.rmtree(made.examples)
    write_dataset(made.examples, train=raw_rows("binary", 50), eval=raw_rows("binary", 300, seed=9))


def of_more_rows(made: Given) -> None:
    shutil.rmtree(made.examples)
    write_dataset(made.examples, train=raw_rows("binary", 50), eval=raw_rows("binary", 250, seed=4))


def without_rows(made: Given) -> None:
    manifest = read_manifest(made.predictions)
    write_manifest(made.predictions, Manifest(splits={"eval": 0, "rejected": 300}, digest=manifest.digest))


def with_rejected_background(made: Given) -> None:
    for part in (made.examples / "train").glob("*.parquet"):
        table = pq.read_table(part)
        pq.write_table(replaced(table, "amount", pa.array([float("inf")] * len(table), pa.float32())), part)


def without_column(name: str) -> Callable[[Given], None]:
    def make(made: Given) -> None:
        for part in (made.examples / "eval").glob("*.parquet"):
            pq.write_table(pq.read_table(part).drop_columns([name]), part)

    return make


DEFECTS = [
    Defect("another model", InputError, "are those of another model", of_another_model),
    Defect("other rows", InputError, "are not those of these rows: for row 0 they say", of_other_rows),
    Defect("more rows", InputError, "has 250 rows, the predictions are of more", of_more_rows),
    Defect("no rows", DataRejectedError, "no row of split 'eval' was predicted (300 were rejected)", without_rows),
    Defect(
        "nothing to compare", DataRejectedError, "drawn from split 'train' can be predicted", with_rejected_background
    ),
    Defect("no label", InputError, "has no column 'label', which task.label names", without_column("label")),
    Defect("no column", InputError, "has no column 'visits', which is needed here", without_column("visits")),
    Defect("another label", InputError, "task.label is 'colour'", lambda g: setattr(g, "label", "colour")),
    Defect("no model", InputError, f"has no {MODEL_SPEC}", lambda g: (g.model / MODEL_SPEC).unlink()),
    Defect("no predictions", InputError, f"has no {MANIFEST}", lambda g: (g.predictions / MANIFEST).unlink()),
    Defect(
        "damaged rows",
        InputError,
        "cannot be read as Parquet",
        lambda g: (g.examples / "eval" / "part-00000.parquet").write_text("no"),
    ),
]


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_is_refused_in_one_line(defect: Defect, tmp_path: Path) -> None:
    made = given("binary", tmp_path / "output")
    for part in ("model", "examples", "predictions"):
        shutil.copytree(getattr(made, part), tmp_path / part)
        setattr(made, part, tmp_path / part)
    defect.make(made)
    made.output.mkdir()
    with pytest.raises(LockgateError) as caught:
        made.explain()
    assert type(caught.value) is defect.error
    assert defect.says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(made.output.iterdir())
