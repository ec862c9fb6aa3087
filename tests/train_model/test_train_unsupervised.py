"""Models that learn from no label: what is exported, and from which score on a row is an anomaly."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from components.errors import DataRejectedError, InputError
from components.model_spec import ModelSpec, read_spec
from components.serving_model import ServingModel
from components.settings import Features, Task
from components.transform_data.transformation import transform
from tests.train_model.projects import (
    FEATURES,
    LABEL_TYPES,
    SCHEMA,
    Project,
    arrays_of,
    project,
    raw_rows,
    read_split,
    trained,
    write_dataset,
)


def predicted(made: Project, model: Path, split: str = "eval") -> dict[str, Any]:
    return ServingModel(model).predict(arrays_of(read_split(made.examples, split), made.kind))


def transformed(folder: Path, kind: str, train: pa.Table, task: dict[str, Any]) -> Project:
    """A project of its own rows and its own task."""
    write_dataset(folder / "examples", train=train, eval=raw_rows(kind, 50, seed=4))
    (folder / "schema").mkdir()
    (folder / "schema" / "schema.pbtxt").write_text(SCHEMA % LABEL_TYPES[kind])
    made = Project(folder, kind, folder / "transformed", folder / "graph", task)
    transform(
        *(str(made.examples), str(folder / "schema"), made.task, Features.model_validate(FEATURES), "", "", []),
        *(str(made.transform_graph), str(made.transformed)),
    )
    return made


def trained_spec(made: Project, output: Path, model: dict[str, Any], training: dict[str, Any]) -> ModelSpec:
    made.train(output, model, training)
    return read_spec(output / "model")


def test_an_anomaly_detector_gives_scores_that_tell_anomalies() -> None:
    made, model = project("anomaly_detection"), trained("anomaly_detection")
    spec = read_spec(model)
    assert [(one.name, one.dtype, one.width) for one in spec.outputs] == [("anomaly_score", "float32", None)]
    assert spec.label.classes == ["0", "1"]
    outputs = predicted(made, model)
    odd = read_split(made.examples, "eval")["label"].to_numpy() == 1
    assert roc_auc_score(odd, outputs["anomaly_score"]) > 0.8  # of an anomaly without an amount nothing can be seen
    assert len(spec.score_quantiles) == 101
    scores = predicted(made, model, "train")["anomaly_score"]
    assert (scores >= np.float32(spec.decision_threshold)).mean() == pytest.approx(0.05, abs=0.01)


def test_a_clustering_gives_distances_and_the_nearest_cluster() -> None:
    made, model = project("clustering"), trained("clustering")
    spec = read_spec(model)
    assert [(one.name, one.dtype, one.width) for one in spec.outputs] == [
        ("distances", "float32", 3),
        ("cluster", "string", None),
    ]
    assert spec.decision_threshold is None
    outputs = predicted(made, model)
    assert [int(name) for name in outputs["cluster"]] == outputs["distances"].argmin(axis=1).tolist()
    groups = read_split(made.examples, "eval")["label"].to_pylist()
    pairs = set(zip(groups, outputs["cluster"].tolist(), strict=True))
    assert len(pairs) <= 5  # of nine: rows without an amount are hard


@pytest.mark.parametrize("kind", ["anomaly_detection", "clustering"])
def test_the_label_changes_nothing_that_is_learned(kind: str, tmp_path: Path) -> None:
    rows = raw_rows(kind, 300)
    models = []
    for index, task in enumerate(({"label": "label"}, {})):
        made = transformed(tmp_path / str(index), kind, rows, {"type": kind, **task})
        made.train(tmp_path / str(index) / "out")
        arrays = arrays_of(rows, kind)
        models.append(ServingModel(tmp_path / str(index) / "out" / "model").predict(arrays))
    for name, values in models[0].items():
        np.testing.assert_array_equal(values, models[1][name])


def test_rows_without_a_label_are_learned_from(tmp_path: Path) -> None:
    rows = raw_rows("anomaly_detection", 200)
    unknown = rows.set_column(rows.schema.get_field_index("label"), "label", pa.nulls(200, pa.int64()))
    task = {"type": "anomaly_detection", "label": "label"}
    made = transformed(tmp_path, "anomaly_detection", unknown, task)
    assert made.train(tmp_path / "out")["train_rows"] == 200
    with pytest.raises(DataRejectedError, match=r"by is max_f1, and no row of the train split has a label"):
        made.train(tmp_path / "other", None, {"decision": {"by": "max_f1"}})


def test_only_usual_rows_to_learn_from_name_the_anomaly_all_the_same(tmp_path: Path) -> None:
    rows = raw_rows("anomaly_detection", 200)
    usual = rows.set_column(rows.schema.get_field_index("label"), "label", pa.array([0] * 200))
    made = transformed(tmp_path, "anomaly_detection", usual, {"type": "anomaly_detection", "label": "label"})
    made.train(tmp_path / "out")
    assert read_spec(tmp_path / "out" / "model").label.classes == ["0", "1"]


@pytest.mark.parametrize("model", [{"kind": "isolation_forest", "trees": 20}, {"kind": "autoencoder"}])
def test_labels_may_decide_the_threshold(model: dict[str, Any], tmp_path: Path) -> None:
    made = project("anomaly_detection")
    by_recall = trained_spec(made, tmp_path / "a", model, {"decision": {"by": "recall", "target": 1.0}})
    scores = predicted(made, tmp_path / "a" / "model", "train")["anomaly_score"]
    odd = read_split(made.examples, "train")["label"].to_numpy() == 1
    found = (scores >= np.float32(by_recall.decision_threshold))[odd].mean()
    assert found == 1.0 if model["kind"] == "isolation_forest" else found > 0.8
    given = trained_spec(made, tmp_path / "b", model, {"decision": {"by": "threshold", "threshold": 0.7}})
    assert given.decision_threshold == 0.7


def test_more_contamination_lowers_the_threshold(tmp_path: Path) -> None:
    made = project("anomaly_detection")
    limits = [
        trained_spec(made, tmp_path / str(share), {"kind": "isolation_forest"}, {"decision": {"contamination": share}})
        for share in (0.01, 0.2)
    ]
    low, high = (one.decision_threshold for one in limits)
    assert low is not None
    assert high is not None
    assert low > high


@pytest.mark.parametrize(
    ("kind", "model", "message"),
    [
        ("anomaly_detection", {"kind": "mlp"}, r"type anomaly_detection has no 'mlp' .* use isolation_forest or"),
        ("clustering", {"kind": "isolation_forest"}, r"type clustering has no 'isolation_forest' .* use k_means"),
        ("binary", {"kind": "k_means", "clusters": 2}, r"type binary has no 'k_means' \(that is for clustering\)"),
    ],
)
def test_a_model_for_another_task_is_refused(kind: str, model: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        project(kind).train(tmp_path, model)
    assert not list(tmp_path.iterdir())


def test_the_report_tells_what_was_learned(tmp_path: Path) -> None:
    for kind in ("anomaly_detection", "clustering"):
        project(kind).train(tmp_path / kind)
        page = (tmp_path / kind / "report.html").read_text()
        assert "which are all rows of the train split" in page
        history = json.loads((tmp_path / kind / "model" / "training.json").read_text())
        assert len(history["loss"]) == 1
    assert "contamination, 5 % of rows" in (tmp_path / "anomaly_detection" / "report.html").read_text()


def test_a_task_says_whether_it_learns_from_a_label() -> None:
    assert [Task(type="clustering").is_unsupervised, Task(type="binary", label="y").is_unsupervised] == [True, False]
