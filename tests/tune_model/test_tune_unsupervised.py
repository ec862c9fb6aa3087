"""Selecting among models that learn from no label."""

from pathlib import Path

import pytest

from components.errors import DataRejectedError, InputError
from tests.tune_model.selecting import chosen

FOREST = {"kind": "isolation_forest", "trees": 20}
CENTRES = [{"kind": "k_means", "clusters": clusters, "starts": 2} for clusters in (2, 3, 5)]


def test_labels_tell_which_detector_is_better(tmp_path: Path) -> None:
    blind = {**FOREST, "trees": 1, "sample_rows": 2}
    board = chosen(tmp_path, [blind, FOREST], "anomaly_detection")
    assert board.metric == "auc"
    assert board.model.trees == 20  # type: ignore[union-attr]
    values = {row.kind: row.value for row in board.rows if row.chosen or row.kind == "baseline"}
    assert values["baseline"] == 0.5
    assert (values["isolation_forest"] or 0) > 0.8
    assert "isolation_forest" in (tmp_path / "report.html").read_text()


def test_silhouettes_tell_how_many_clusters_there_are(tmp_path: Path) -> None:
    board = chosen(tmp_path, CENTRES, "clustering", rule="best")
    assert board.metric == "silhouette"
    assert [row.value for row in board.rows if row.state == "baseline"] == [0]
    best = max((row for row in board.rows if row.model), key=lambda row: row.value or 0)
    assert board.model == best.model
    assert f"k_means with {board.model.clusters} clusters was chosen" in board.why  # type: ignore[union-attr]


def test_hyperparameters_are_searched(tmp_path: Path) -> None:
    board = chosen(tmp_path / "a", [FOREST], "anomaly_detection", trials=2)
    assert len(board.rows) == 4
    board = chosen(tmp_path / "b", CENTRES[:1], "clustering", folds=2, trials=2)
    assert len(board.rows) >= 3


def test_a_model_for_another_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tuning.candidates\[1\].kind: a task of type clustering has no 'linear'"):
        chosen(tmp_path, [CENTRES[0], {"kind": "linear"}], "clustering")
    with pytest.raises(InputError, match=r"a clustering task is not compared by 'auc'; use one of silhouette"):
        chosen(tmp_path, CENTRES[:2], "clustering", metric="auc")


def test_too_many_clusters_fail_alone(tmp_path: Path) -> None:
    board = chosen(tmp_path / "a", [{"kind": "k_means", "clusters": 1000}, CENTRES[0]], "clustering")
    reason = next(row.reason for row in board.rows if row.state == "failed")
    assert reason.startswith("model.clusters is 1000, but the")
    with pytest.raises(DataRejectedError, match=r"model.clusters is 1000"):
        chosen(
            tmp_path / "b", [{"kind": "k_means", "clusters": 1000}, {"kind": "k_means", "clusters": 999}], "clustering"
        )
