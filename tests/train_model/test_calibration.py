"""Calibration and the decision threshold: on known curves, and in an exported model."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import log_loss, precision_score, recall_score

from components.errors import DataRejectedError, InputError
from components.features import Label
from components.model_spec import read_spec
from components.models.calibration import calibrate, choose_threshold
from components.serving_model import ServingModel
from components.settings import Decision
from tests.train_model.projects import arrays_of, project, raw_rows

BINARY = Label(name="y", kind="binary", classes=["0", "1"], positive="1")
THREE = Label(name="y", kind="multiclass", classes=["a", "b", "c"])
ROWS = 20_000


def _overconfident(rows: int = ROWS, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Logits three times as far from 0 as they should be, and one too high."""
    draw = np.random.default_rng(seed)
    true = draw.normal(0, 1.5, rows)
    labels = (draw.random(rows) < 1 / (1 + np.exp(-true))).astype(np.float32)
    return (3 * true + 1).astype(np.float32)[:, None], labels


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_overconfident_probabilities_are_put_right(method: str) -> None:
    logits, labels = _overconfident()
    calibrator, reliability = calibrate(method, BINARY, logits, labels)
    fresh, truth = _overconfident(seed=6)
    raw = 1 / (1 + np.exp(-fresh[:, 0].astype(np.float64)))
    found = tf.sigmoid(calibrator(tf.constant(fresh))[:, 0]).numpy()
    ideal = 1 / (1 + np.exp(-(fresh[:, 0] - 1) / 3))
    assert np.abs(found - ideal).max() < (0.02 if method == "sigmoid" else 0.12)
    assert log_loss(truth, found) < log_loss(truth, raw) - 0.1
    assert reliability.after < reliability.before


def test_temperature_keeps_the_class_and_lowers_the_loss() -> None:
    draw = np.random.default_rng(7)
    true = draw.normal(0, 1, (ROWS, 3))
    shares = np.exp(true) / np.exp(true).sum(1, keepdims=True)
    labels = (draw.random((ROWS, 1)) > shares.cumsum(1)).sum(1).clip(0, 2)
    calibrator, reliability = calibrate("sigmoid", THREE, (4 * true).astype(np.float32), labels.astype(np.int32))
    found = calibrator(tf.constant((4 * true).astype(np.float32))).numpy()
    np.testing.assert_allclose(found, true, rtol=0.05)
    assert (found.argmax(1) == true.argmax(1)).all()
    assert reliability.after < reliability.before


@settings(max_examples=50, deadline=None)
@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=60),
    method=st.sampled_from(["sigmoid", "isotonic"]),
    seed=st.integers(0, 99),
)
def test_calibration_never_turns_the_order_round(logits: list[float], method: str, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 2, len(logits)).astype(np.float32)
    labels[:2] = 0, 1
    calibrator, _ = calibrate(method, BINARY, np.array(logits, np.float32)[:, None], labels)
    points = np.linspace(-100, 100, 801, dtype=np.float32)
    found = calibrator(tf.constant(points[:, None])).numpy()[:, 0]
    assert np.isfinite(found).all()
    assert (np.diff(found) >= -1e-4).all()


@pytest.mark.parametrize(
    ("method", "label", "labels", "error", "message"),
    [
        ("sigmoid", Label(name="y", kind="regression"), [1.0, 2.0], InputError, "a regression has none"),
        ("isotonic", THREE, [0, 1], InputError, "set it to sigmoid"),
        ("sigmoid", BINARY, [1.0, 1.0], DataRejectedError, "all 2 rows held out for calibration have the label '1'"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(
    method: str, label: Label, labels: list[float], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        calibrate(method, label, np.zeros((2, max(1, len(label.classes) - 1)), np.float32), np.array(labels))


def _scored(rows: int = 5_000) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(8)
    probabilities = draw.random(rows).astype(np.float32)
    return probabilities, (draw.random(rows) < probabilities).astype(np.float32)


@pytest.mark.parametrize("target", [0.6, 0.75, 0.9])
def test_a_target_is_reached_with_as_much_of_the_other_as_there_is(target: float) -> None:
    probabilities, labels = _scored()
    for by, reached, other in (("precision", precision_score, recall_score), ("recall", recall_score, precision_score)):
        threshold = choose_threshold(Decision(by=by, target=target), probabilities, labels)  # type: ignore[arg-type]
        chosen = probabilities >= np.float32(threshold)
        assert reached(labels, chosen) >= target
        better = [
            other(labels, probabilities >= candidate)
            for candidate in np.quantile(probabilities, np.linspace(0, 0.99, 60))
            if reached(labels, probabilities >= candidate) >= target
        ]
        assert other(labels, chosen) >= max(better, default=0)


def test_cost_moves_the_threshold_to_where_it_pays() -> None:
    probabilities, labels = _scored(50_000)
    for false_negative, expected in ((1.0, 0.5), (4.0, 0.2), (0.25, 0.8)):
        decision = Decision(by="cost", false_negative_cost=false_negative)
        # Elkan, The Foundations of Cost-Sensitive Learning, 2001: a calibrated score pays from c_fp / (c_fp + c_fn) on.
        assert choose_threshold(decision, probabilities, labels) == pytest.approx(expected, abs=0.05)


def test_a_target_needs_a_value_and_rows() -> None:
    with pytest.raises(ValidationError, match="by is precision, so give target"):
        Decision(by="precision")
    with pytest.raises(DataRejectedError, match=r"all 3 rows held out .* have one label"):
        choose_threshold(Decision(by="max_f1"), np.full(3, 0.5), np.ones(3))
    with pytest.raises(DataRejectedError, match=r"no threshold reaches precision 1 .*best: 0\.667"):
        choose_threshold(Decision(by="precision", target=1.0), np.full(3, 0.5), np.array([1.0, 1.0, 0.0]))


@pytest.mark.parametrize("alerts", [0.1, 4.0, 250.0])
def test_a_budget_of_alerts_is_used_and_kept(alerts: float) -> None:
    probabilities, labels = _scored()
    decision = Decision(by="alert_budget", alerts_per_1000_rows=alerts)
    chosen = probabilities >= np.float32(choose_threshold(decision, probabilities, labels))
    assert chosen.sum() == max(1, int(alerts * 5))
    tied = np.round(probabilities, 2)
    assert (
        tied >= np.float32(choose_threshold(Decision(by="alert_budget", alerts_per_1000_rows=40), tied, labels))
    ).sum() <= 200


def test_a_budget_needs_no_labels_but_rows_that_differ() -> None:
    decision = Decision(by="alert_budget", alerts_per_1000_rows=5)
    assert choose_threshold(decision, np.array([0.1, 0.7, 0.2]), np.ones(3)) == 0.7
    with pytest.raises(DataRejectedError, match=r"300 of 300 rows held out share .* \(needed: 1 at most, 5 alerts per"):
        choose_threshold(decision, np.full(300, 0.5), np.zeros(300))
    with pytest.raises(ValidationError, match="by is alert_budget, so give alerts_per_1000_rows"):
        Decision(by="alert_budget")


def test_a_budget_holds_rows_out_and_is_carried_in_the_model(tmp_path: Path) -> None:
    training = {"early_stopping": None, "decision": {"by": "alert_budget", "alerts_per_1000_rows": 100}}
    found = project("binary").train(tmp_path, training=training)
    assert found["validation_rows"] == 90
    assert read_spec(tmp_path / "model").decision_threshold == found["decision_threshold"] != 0.5
    assert "alert_budget, 100 of 1,000 rows" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_an_exported_model_is_calibrated_and_carries_its_threshold(tmp_path: Path, method: str) -> None:
    made = project("binary")
    training = {"calibration": method, "decision": {"by": "recall", "target": 0.8}, "validation_fraction": 0.3}
    plain, found = made.train(tmp_path / "plain"), made.train(tmp_path / "calibrated", training=training)
    spec = read_spec(tmp_path / "calibrated" / "model")
    assert spec.decision_threshold == found["decision_threshold"]
    assert plain["decision_threshold"] == 0.5
    assert spec.weights_digest != read_spec(tmp_path / "plain" / "model").weights_digest
    rows = raw_rows("binary", 2_000, seed=11)
    predicted = ServingModel(tmp_path / "calibrated" / "model").predict(arrays_of(rows, "binary"))["probability"]
    truth = rows["label"].to_numpy()
    assert abs(predicted.mean() - truth.mean()) < 0.05
    assert recall_score(truth, predicted >= np.float32(spec.decision_threshold or 0)) > 0.6
    page = (tmp_path / "calibrated" / "report.html").read_text()
    assert "log loss after calibration" in page
    assert "chosen by" in page


def test_rows_are_held_out_for_calibration_alone(tmp_path: Path) -> None:
    found = project("binary").train(tmp_path, training={"early_stopping": None, "calibration": "sigmoid"})
    assert found["validation_rows"] == 90
    assert found["best_epoch"] == found["epochs"]
