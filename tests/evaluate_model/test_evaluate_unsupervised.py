"""Judging models that learn from no label, with and without labels to judge by."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sklearn_metrics

from components.errors import DataRejectedError, InputError
from components.evaluate_model.metrics import score_shift
from components.evaluation_result import Check, EvaluationResult
from components.features import Label
from components.model_spec import ModelInput, ModelSpec, outputs_of, write_spec
from tests.evaluate_model.datasets import Case

# ruff: noqa: E501

INPUTS = [
    ModelInput(name=name, tensor=name, dtype=dtype, required=False)  # type: ignore[arg-type]
    for name, dtype in (("price", "float32"), ("weight", "float32"), ("carrier", "string"))
]


def write_specs(case: Case, kind: str, clusters: int | None = None, threshold: float = 0.6) -> None:
    """Leaves a spec beside the predictions that there are."""
    label = Label(name=case.task.get("label"), kind=kind, classes=["normal", "anomaly"])  # type: ignore[arg-type]
    uniform = np.linspace(0.2, 0.7, 101).tolist()
    for name in ("predictions", "production"):
        spec = ModelSpec(
            inputs=INPUTS,
            outputs=outputs_of(label, clusters),
            label=label,
            weights_digest="0",
            train_rows=1,
            libraries={},
            decision_threshold=threshold if kind == "anomaly_detection" else None,
            score_quantiles=uniform if kind == "anomaly_detection" else [],
        )
        write_spec(case.folder / name, spec)


def raw(rows: int, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    group = random.integers(0, 3, rows)
    return {
        "group": pa.array(np.array(["a", "b", "c"])[group]),
        "price": pa.array((10.0 * group + random.normal(0, 1, rows)).astype("f4"), mask=random.random(rows) < 0.02),
        "weight": pa.array((10.0 * (group == 1) + random.normal(5, 1, rows)).astype("f4")),
        "carrier": pa.array(random.choice(["UA", "DL"], rows)),
    }


def scored(rows: int = 600, seed: int = 1, **columns: Any) -> pa.Table:
    """Scores like those learned from; a twentieth are anomalies, of which most score high."""
    random = np.random.default_rng(seed)
    late = random.random(rows) < 0.05
    score = np.where(late, random.uniform(0.5, 0.9, rows), random.uniform(0.2, 0.65, rows)).astype("f4")
    return pa.table({**raw(rows, seed), "late": pa.array(late.astype("i8")), "anomaly_score": score, **columns})


def clustered(rows: int = 600, seed: int = 1, **columns: Any) -> pa.Table:
    """Clusters that are the groups but for a few rows."""
    made = raw(rows, seed)
    wrong = np.random.default_rng(seed).random(rows) < 0.02
    cluster = np.where(wrong, "0", [{"a": "0", "b": "1", "c": "2"}[one] for one in made["group"].to_pylist()])
    return pa.table({**made, "cluster": pa.array(cluster), **columns})


def anomalies(folder: Path, label: str | None = "late", **changes: Any) -> Case:
    task = {"type": "anomaly_detection", **({"label": label} if label else {})}
    return Case(
        folder,
        **{  # type: ignore[arg-type]
            "task": task,
            "train": scored(seed=2),
            "eval": scored(),
            "change": lambda case: write_specs(case, "anomaly_detection"),
            **changes,
        },
    )


def clusters(folder: Path, label: str | None = "group", known: int = 3, **changes: Any) -> Case:
    task = {"type": "clustering", **({"label": label} if label else {})}
    return Case(
        folder,
        **{  # type: ignore[arg-type]
            "task": task,
            "train": clustered(seed=2),
            "eval": clustered(),
            "change": lambda case: write_specs(case, "clustering", known),
            **changes,
        },
    )


def failed(result: EvaluationResult) -> list[Check]:
    return [check for check in result.checks if not check.ok]


def test_with_labels_anomalies_are_measured_like_a_rare_class(tmp_path: Path) -> None:
    case = anomalies(tmp_path, evaluation={"slices": [["carrier"]], "thresholds": [{"metric": "auc", "min": 0.8}]})
    result = case.evaluate()
    table = case.eval
    assert table
    truth, scores = table["late"].to_numpy() == 1, table["anomaly_score"].to_numpy()
    assert result.verdict == "pass"
    assert result.threshold == 0.6
    assert result.metrics["auc"].value == pytest.approx(sklearn_metrics.roc_auc_score(truth, scores))
    assert result.metrics["recall"].value == pytest.approx((scores[truth] >= np.float32(0.6)).mean())
    assert result.metrics["flagged"].value == pytest.approx((scores >= np.float32(0.6)).mean())
    assert result.metrics["auc"].low is not None
    assert {one.name for one in result.slices} == {"carrier=UA", "carrier=DL"}
    assert result.roc
    assert result.confusion
    assert result.baseline["auc"] == 0.5
    page = case.report.read_text()
    assert "it learned from no label" in page
    assert "log_loss" not in page


def test_without_labels_as_many_rows_must_be_flagged_as_were_learned(tmp_path: Path) -> None:
    result = anomalies(tmp_path / "fine", None).evaluate()
    assert result.verdict == "pass"
    assert list(result.metrics) == ["flagged", "score_shift"]
    assert result.expected_flagged == pytest.approx(0.2, abs=0.01)
    assert result.reason.startswith("flagged 0.1")
    shifted = scored(anomaly_score=np.full(600, 0.65, "f4") + np.arange(600, dtype="f4") / 1e4)
    result = anomalies(tmp_path / "shifted", None, eval=shifted).evaluate()
    assert [check.kind for check in failed(result)] == ["stability"]
    assert "100.0 % are flagged, 20.0 % of those learned from" in result.reason
    assert "evaluation.max_flagged_shift" in result.reason


def test_without_labels_production_must_order_rows_alike(tmp_path: Path) -> None:
    table = scored()
    scores = table["anomaly_score"].to_numpy()
    alike = scored(anomaly_score=np.clip(scores + np.random.default_rng(1).normal(0, 0.02, 600), 0, 1).astype("f4"))
    result = anomalies(tmp_path / "alike", None, production=alike).evaluate()
    assert result.verdict == "pass"
    assert any(check.metric == "rank_agreement" for check in result.checks)
    other = scored(anomaly_score=(0.9 - scores).astype("f4"))
    result = anomalies(tmp_path / "other", None, production=other).evaluate()
    assert [check.metric for check in failed(result)] == ["rank_agreement"]
    assert "rank correlation with production's scores is -1" in result.reason


def test_rows_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    late = scored()["late"].to_pylist()
    table = scored(late=pa.array([None, *late[1:]], pa.int64()))
    result = anomalies(tmp_path, eval=table).evaluate()
    assert (result.rows, result.missing_labels) == (599, 1)


def test_with_labels_clusters_are_compared_with_them(tmp_path: Path) -> None:
    case = clusters(tmp_path, evaluation={"slices": [["carrier"]]})
    result = case.evaluate()
    assert case.eval
    truth, found = case.eval["group"].to_pylist(), case.eval["cluster"].to_pylist()
    assert result.verdict == "pass"
    assert result.metrics["adjusted_rand"].value == pytest.approx(sklearn_metrics.adjusted_rand_score(truth, found))
    nmi = sklearn_metrics.normalized_mutual_info_score(truth, found)
    assert result.metrics["v_measure"].value == pytest.approx(nmi)
    assert [(one.name, one.commonest) for one in result.clusters] == [("0", "a"), ("1", "b"), ("2", "c")]
    assert sum(one.rows for one in result.clusters) == 600
    assert (result.baseline["adjusted_rand"], result.baseline["silhouette"]) == (0, 0)
    page = case.report.read_text()
    assert "puts rows into 3 clusters" in page
    assert "Commonest group" in page


def test_without_labels_clusters_are_measured_by_distances(tmp_path: Path) -> None:
    result = clusters(tmp_path / "fine", None).evaluate()
    assert result.verdict == "pass"
    assert "adjusted_rand" not in result.metrics
    assert 0.3 < (result.metrics["silhouette"].value or 0) < 1
    assert result.reason.startswith("silhouette 0.")
    by_chance = pa.array(np.random.default_rng(5).choice(["0", "1", "2"], 600))
    result = clusters(tmp_path / "chance", None, eval=clustered(cluster=by_chance)).evaluate()
    assert [check.kind for check in failed(result)] == ["baseline"]
    assert "choose other features, or other hyperparameters" in result.reason


def test_a_worse_clustering_does_not_replace_production(tmp_path: Path) -> None:
    cluster = clustered()["cluster"].to_pylist()
    merged = clustered(cluster=pa.array(["0" if one == "1" else one for one in cluster]))
    for label in ("group", None):
        result = clusters(tmp_path / str(label), label, eval=merged, production=clustered()).evaluate()
        assert [check.kind for check in failed(result)] == ["production"]
        assert result.production
    assert "no row is in cluster 1" in result.warnings


def test_one_cluster_for_all_is_refused(tmp_path: Path) -> None:
    result = clusters(tmp_path, None, eval=clustered(cluster=pa.array(["0"] * 600))).evaluate()
    assert "all 600 rows get the same prediction; look at the sizes of the clusters" in result.reason
    assert result.metrics["davies_bouldin"].value is None


@pytest.mark.parametrize("rows", [1, 2])
def test_hardly_any_rows_are_judged_without_a_fault(rows: int, tmp_path: Path) -> None:
    for made in (anomalies, clusters):
        for label in ({"anomalies": "late"}.get(made.__name__, "group"), None):
            table = (scored if made is anomalies else clustered)(rows)
            result = made(tmp_path / made.__name__ / str(label), label, eval=table).evaluate()
            assert result.rows == rows


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (lambda folder: anomalies(folder, eval=scored(late=pa.nulls(600, pa.int64()))), DataRejectedError, "has a label"),
        (lambda folder: anomalies(folder, eval=scored(anomaly_score=np.full(600, 1.5, "f4"))), DataRejectedError, "no scores in"),
        (lambda folder: clusters(folder, eval=clustered(cluster=pa.array(["9"] * 600))), InputError, "name none of the model's"),
        (lambda folder: clusters(folder, eval=clustered().drop_columns(["price"])), InputError, "lack column 'price'"),
        (lambda folder: clusters(folder, "gruop"), InputError, "did you mean 'group'"),
        (lambda folder: anomalies(folder, eval=clustered()), InputError, "another task than anomaly_detection"),
        (lambda folder: anomalies(folder, None, evaluation={"thresholds": [{"metric": "auc", "min": 0.5}]}), InputError, "without a label has no 'auc'"),
        (lambda folder: clusters(folder, evaluation={"baseline": {"metric": "largest_cluster"}}), InputError, "to be better in"),
    ],
    ids=["no label known", "no scores", "unknown cluster", "no inputs", "label misspelled", "other task", "metric", "neutral"],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused_in_one_line(
    made: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        made(tmp_path).evaluate()
    assert not (tmp_path / "result").exists()


def test_a_shift_of_scores_is_the_distance_of_distributions() -> None:
    quantiles = np.linspace(0, 1, 101)
    assert score_shift(np.linspace(0, 1, 10_001), quantiles) == pytest.approx(0, abs=1e-3)
    assert score_shift(np.array([2.0]), quantiles) == 1
    assert score_shift(np.array([0.25]), quantiles) == pytest.approx(0.75)
    assert score_shift(np.array([0.5]), None) is None
