"""Explaining ensembles of trees as train_model exports them."""

from pathlib import Path

import numpy as np
import pytest

from components.errors import DataRejectedError, InputError
from components.explain_model import trees
from tests.explain_model.made import given_trees
from tests.train_model.projects import project

CASES = [
    *(
        (kind, model, "none")
        for kind in ("binary", "multiclass", "regression")
        for model in ("boosted_trees", "random_forest")
    ),
    ("binary", "boosted_trees", "sigmoid"),
    ("binary", "random_forest", "sigmoid"),
    ("multiclass", "boosted_trees", "sigmoid"),
    ("anomaly_detection", "isolation_forest", "none"),
]


@pytest.mark.parametrize(("kind", "model", "calibration"), CASES)
def test_trees_are_explained_by_their_own_structure(kind: str, model: str, calibration: str, tmp_path: Path) -> None:
    made = given_trees(kind, tmp_path, model, calibration)
    figures = made.explain()
    assert figures["compared_rows"] == 0
    assert "computed exactly from the structure of the trees" in made.report
    for row in made.table.to_pylist():
        total = row["reference"] + sum(one["contribution"] for one in row["contributions"])
        assert total == pytest.approx(row["prediction"], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_both_methods_agree_about_what_matters(kind: str, tmp_path: Path) -> None:
    by_trees, asked = (
        given_trees(kind, tmp_path / "a", "boosted_trees"),
        given_trees(kind, tmp_path / "b", "boosted_trees"),
    )
    by_trees.explain(rows=150)
    asked.explain(rows=150, method="shap", background_rows=60)
    assert "computed exactly" not in asked.report
    shares = [
        np.array(
            [
                [one["contribution"] for one in sorted(row["contributions"], key=lambda one: one["feature"])]
                for row in rows
            ]
        )
        for rows in (by_trees.table.to_pylist(), asked.table.to_pylist())
    ]
    assert np.corrcoef(shares[0].ravel(), shares[1].ravel())[0, 1] > 0.9
    importance = [np.abs(one).mean(0) for one in shares]
    np.testing.assert_allclose(importance[0] / importance[0].sum(), importance[1] / importance[1].sum(), atol=0.05)


def test_a_curve_of_calibration_is_explained_by_asking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = given_trees("binary", tmp_path, "boosted_trees", "isotonic")
    assert made.explain()["compared_rows"] == 12
    assert "calibrated by a curve" in capsys.readouterr().out


def test_trees_of_another_model_are_refused(tmp_path: Path) -> None:
    made, other = given_trees("binary", tmp_path, "boosted_trees"), given_trees("binary", tmp_path, "random_forest")
    kept = (made.model / trees.TREES).read_bytes()
    try:
        (made.model / trees.TREES).write_bytes((other.model / trees.TREES).read_bytes())
        with pytest.raises(
            (InputError, DataRejectedError), match=r"does not give the predictions of the model beside it"
        ):
            made.explain()
    finally:
        (made.model / trees.TREES).write_bytes(kept)
    assert not list(tmp_path.iterdir())


def test_the_graph_of_another_task_is_refused(tmp_path: Path) -> None:
    made = given_trees("binary", tmp_path, "boosted_trees")
    made.transform_graph = str(project("binary").folder)
    with pytest.raises(InputError, match=r"has no features.json"):
        made.explain()
