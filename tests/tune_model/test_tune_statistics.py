"""How candidates are measured and compared, and which rows they get."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from components.errors import DataRejectedError, InputError
from components.features import Label
from components.settings import SELECTION_METRICS, LinearModel, Task, Training, Tuning
from components.tune_model.comparison import Space, divide
from components.tune_model.measures import Measured, measure
from components.tune_model.ranking import Entry, choose, contenders, rows
from components.tune_model.records import TrialResult, metric_of

LABELS = {
    "binary": Label(name="y", kind="binary", classes=["no", "yes"]),
    "multiclass": Label(name="y", kind="multiclass", classes=["a", "b", "c"]),
    "regression": Label(name="y", kind="regression"),
}


def drawn(kind: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and two models' predictions that err alike."""
    rng = np.random.default_rng(seed)
    if kind == "regression":
        labels = rng.normal(50, 10, rows)
        hard = labels + rng.normal(0, 5, rows)
        return labels, hard[:, None].astype("f4"), (hard + rng.normal(0.1, 1, rows))[:, None].astype("f4")
    classes = 2 if kind == "binary" else 3
    labels = rng.integers(0, classes, rows)
    logits = rng.normal(0, 1, (rows, classes)) + 1.2 * np.eye(classes)[labels]
    both = [logits, logits + rng.normal(0, 0.3, logits.shape)]
    shares = [np.exp(one) / np.exp(one).sum(axis=1, keepdims=True) for one in both]
    one, other = (share[:, 1:] if kind == "binary" else share for share in shares)
    return labels.astype("f4"), one.astype("f4"), other.astype("f4")


def sklearn_value(metric: str, kind: str, labels: np.ndarray, predictions: np.ndarray) -> float:
    flat = predictions[:, 0] if predictions.shape[1] == 1 else predictions
    match metric:
        case "rmse":
            return sklearn_metrics.root_mean_squared_error(labels, flat)
        case "mae":
            return sklearn_metrics.mean_absolute_error(labels, flat)
        case "accuracy":
            return sklearn_metrics.accuracy_score(labels, flat >= 0.5 if kind == "binary" else flat.argmax(axis=1))
        case "auc":
            more = {"multi_class": "ovr"} if kind == "multiclass" else {}
            flat = flat.astype("f8") / flat.astype("f8").sum(axis=1, keepdims=True) if more else flat
            return sklearn_metrics.roc_auc_score(labels, flat, **more)
        case "brier":
            return sklearn_metrics.brier_score_loss(labels, flat)
        case _:
            return sklearn_metrics.log_loss(labels, flat)


PAIRS = [(kind, metric) for kind in LABELS for metric in SELECTION_METRICS[kind]]


@pytest.mark.parametrize(("kind", "metric"), PAIRS)
def test_a_metric_is_scikit_learns(kind: str, metric: str) -> None:
    labels, predictions, _ = drawn(kind, 400, 1)
    measured = measure(metric, LABELS[kind], labels, predictions)
    assert measured.value == pytest.approx(sklearn_value(metric, kind, labels, predictions), rel=1e-5)
    assert measured.influence.mean() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("kind", "metric"), PAIRS)
def test_standard_errors_are_those_of_the_bootstrap(kind: str, metric: str) -> None:
    labels, one, other = drawn(kind, 300, 2)
    rng = np.random.default_rng(3)
    values, differences = [], []
    for _ in range(600):
        draw = rng.integers(0, 300, 300)
        first, second = (measure(metric, LABELS[kind], labels[draw], p[draw]).value for p in (one, other))
        values.append(first)
        differences.append(second - first)
    first, second = (measure(metric, LABELS[kind], labels, p) for p in (one, other))
    assert first.standard_error == pytest.approx(np.std(values), rel=0.15)
    behind, standard_error = second.behind(first)
    assert abs(behind) == pytest.approx(abs(second.value - first.value))
    assert standard_error == pytest.approx(np.std(differences), rel=0.15)
    # Rows that are hard for both do not count.
    assert standard_error < 0.8 * math.hypot(first.standard_error, second.standard_error)


@given(st.data())
def test_an_auc_with_ties_is_scikit_learns(data: st.DataObject) -> None:
    rows = data.draw(st.integers(3, 30))
    drawn_truth = st.lists(st.booleans(), min_size=rows - 2, max_size=rows - 2)
    truth = np.array([*data.draw(drawn_truth), True, False])
    scores = np.array(data.draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows))) / 4
    measured = measure("auc", LABELS["binary"], truth.astype("f4"), scores[:, None].astype("f4"))
    assert measured.value == pytest.approx(sklearn_metrics.roc_auc_score(truth, scores))


def test_rows_without_a_label_are_no_part_of_an_anomaly_detectors_auc() -> None:
    label = Label(name="y", kind="anomaly_detection", classes=["0", "1"])
    labels, scores = np.array([0, 1, np.nan, 0]), np.array([[0.2], [0.9], [0.99], [0.1]], "f4")
    assert measure("auc", label, labels, scores).value == 1.0
    with pytest.raises(DataRejectedError, match=r"the 0 rows .* one class .* name one model in section model"):
        measure("auc", label, np.full(4, np.nan), scores)


def test_a_silhouette_is_scikit_learns_and_one_cluster_has_none() -> None:
    label = Label(name=None, kind="clustering")
    rng = np.random.default_rng(1)
    distances = rng.random((50, 3)).astype("f4")
    space = Space(np.arange(0, 50, 2), rng.normal(size=(25, 4)))
    measured = measure("silhouette", label, np.full(50, np.nan), distances, [space])
    expected = sklearn_metrics.silhouette_score(space.points, distances[::2].argmin(axis=1))
    assert measured.value == pytest.approx(expected)
    assert measured.interval[0] < expected < measured.interval[1]
    assert measure("silhouette", label, np.full(50, np.nan), np.zeros((50, 1)), [space]).value == 0


def test_clusters_are_compared_within_their_fold() -> None:
    points = np.array([[0.0], [0.1], [9.0], [9.1]])
    # The second fold's model numbers the same clusters the other way round.
    distances = np.array([[0, 9], [0, 9], [9, 0], [9, 0], [9, 0], [9, 0], [0, 9], [0, 9]], "f4")
    spaces = [Space(np.arange(4), points), Space(np.arange(4, 8), points)]
    label = Label(name=None, kind="clustering")
    assert measure("silhouette", label, np.full(8, np.nan), distances, spaces).value > 0.95


def test_an_auc_of_one_class_is_refused_in_one_line() -> None:
    with pytest.raises(DataRejectedError, match=r"the 4 rows .* one class .* set tuning.metric to log_loss"):
        measure("auc", LABELS["binary"], np.zeros(4), np.zeros((4, 1), "f4"))


def test_sure_and_wrong_is_no_infinity() -> None:
    measured = measure("log_loss", LABELS["binary"], np.array([1.0, 0.0]), np.array([[0.0], [0.0]], "f4"))
    assert measured.value == pytest.approx(-np.log(np.finfo(np.float32).eps) / 2)


def test_intervals_stay_within_what_is_possible() -> None:
    labels = np.array([1.0, 0.0, 1.0, 0.0, 1.0])
    accuracy = measure("accuracy", LABELS["binary"], labels, np.array([[0.9], [0.1], [0.9], [0.1], [0.4]], "f4"))
    assert accuracy.interval[0] < 0.8 < accuracy.interval[1] == 1.0


@pytest.mark.parametrize(("metric", "kind"), [("rmse", "binary"), ("auc", "regression")])
def test_a_metric_of_another_task_is_refused(metric: str, kind: str) -> None:
    with pytest.raises(InputError, match=f"tuning.metric: a {kind} task is not compared by '{metric}'; use one of"):
        metric_of(Tuning(metric=metric), Task(type=kind, label="y"))


def result(kind: str, latency: float, **settings: float) -> TrialResult:
    model = {"kind": kind, **settings}
    return TrialResult.model_validate({"model": model, "state": "complete", "seconds": 1, "latency_ms": latency})


def entry(kind: str, latency: float, losses: np.ndarray, **settings: float) -> Entry:
    mean = float(losses.mean())
    return Entry(result(kind, latency, **settings), Measured("log_loss", mean, losses - mean))


RNG = np.random.default_rng(5)
BEST = RNG.normal(0.4, 0.1, 1000)
NOISE = RNG.normal(0, 0.1, 1000)
NEAR, FAR = (BEST + NOISE - NOISE.mean() + behind for behind in (0.001, 0.02))
"""Worse by less, and by more, than the standard error, 0.003."""


@pytest.mark.parametrize(
    ("entries", "rule", "expected"),
    [
        ([entry("mlp", 0.9, BEST), entry("linear", 0.2, NEAR)], "one_standard_error", "linear"),
        ([entry("mlp", 0.9, BEST), entry("linear", 0.2, NEAR)], "best", "mlp"),
        ([entry("mlp", 0.9, BEST), entry("linear", 0.2, FAR)], "one_standard_error", "mlp"),
        # Requests within a quarter, 1.2 ms and 1.5 ms, cost the same: the better one counts.
        ([entry("mlp", 0.49, BEST), entry("linear", 0.2, NEAR)], "one_standard_error", "mlp"),
        ([entry("mlp", 0.51, BEST), entry("linear", 0.2, NEAR)], "one_standard_error", "linear"),
        # Equally good and equally cheap: the order of the candidates.
        ([entry("linear", 0.21, BEST), entry("mlp", 0.2, BEST)], "one_standard_error", "linear"),
        ([entry("mlp", 0.2, BEST), entry("linear", 0.21, BEST)], "one_standard_error", "mlp"),
        ([entry("mlp", 0.2, BEST)], "one_standard_error", "mlp"),
    ],
)
def test_the_rule_chooses(entries: list[Entry], rule: str, expected: str) -> None:
    got, why = choose(contenders(entries), rule)
    assert got.result.model.kind == expected
    assert why.startswith(f"{expected} was chosen")
    assert "\n" not in why


def test_the_leaderboard_is_in_order() -> None:
    failed = TrialResult(
        model=LinearModel(kind="linear", l2=1), state="failed", seconds=1, reason="too bad", error="error"
    )
    pruned = TrialResult(model=LinearModel(kind="linear", l2=2), state="pruned", seconds=1, reason="lagging")
    entries = [
        entry("linear", 0.2, FAR),
        Entry(failed, None),
        Entry(pruned, None),
        entry("mlp", 0.4, BEST, dropout=0.25),
        entry("linear", 0.2, FAR + 1, l2=3),
    ]
    ranked = contenders(entries)
    chosen, _ = choose(ranked, "one_standard_error")
    trivial = Measured("log_loss", 1.0, np.zeros(1000))
    board = rows(entries, ranked, chosen, trivial)
    assert [(row.kind, row.state) for row in board] == [
        ("mlp", "complete"),
        ("linear", "complete"),
        ("baseline", "baseline"),
        ("linear", "complete"),
        ("linear", "pruned"),
        ("linear", "failed"),
    ]
    assert board[0].hyperparameters == {"dropout": 0.25}
    assert [row.chosen for row in board] == [True, *[False] * 5]
    assert board[1].low < board[1].value < board[1].high
    assert board[1].behind == pytest.approx(FAR.mean() - BEST.mean())


EARLY = Training()


@pytest.mark.parametrize("tuning", [{}, {"folds": 5}, {"folds": 2}, {"validation_rows": "last"}])
@pytest.mark.parametrize("training", [EARLY, Training(early_stopping=None)])
def test_no_row_has_two_roles(tuning: dict, training: Training) -> None:
    labels = np.random.default_rng(1).integers(0, 2, 1003)
    folds = divide(labels, Tuning.model_validate(tuning), training)
    for fold in folds:
        everything = np.concatenate([fold.learned, fold.held_out, fold.compared])
        assert sorted(everything) == list(range(1003))
        assert bool(len(fold.held_out)) == bool(training.early_stopping)
        for part in (fold.learned, fold.held_out, fold.compared):
            assert (np.diff(part) > 0).all()
    compared = np.concatenate([fold.compared for fold in folds])
    assert len(set(compared)) == len(compared) == (1003 if "folds" in tuning else 201)
    if "validation_rows" in tuning:
        assert compared.tolist() == list(range(802, 1003))


@pytest.mark.parametrize("tuning", [Tuning(folds=3), Tuning()])
def test_a_rare_class_is_in_every_part(tuning: Tuning) -> None:
    labels = np.zeros(300)
    labels[:12] = 1
    for fold in divide(labels, tuning, EARLY):
        assert 2 <= labels[fold.compared].sum() <= 5
        assert labels[fold.known].sum() >= 7


def test_a_seed_decides_the_rows() -> None:
    labels = np.random.default_rng(1).normal(size=100)
    for folds in (None, 4):
        tunings = [Tuning(seed=seed, folds=folds) for seed in (1, 1, 2)]
        one, same, other = (divide(labels, tuning, EARLY)[0].compared.tolist() for tuning in tunings)
        assert one == same != other


@pytest.mark.parametrize(
    ("rows_", "tuning", "says"),
    [
        (9, {"folds": 5}, r"has 9 rows \(needed: 10 for 5 folds\)"),
        (7, {}, r"has 7 rows \(needed: 2 to compare models on, validation_fraction 0.2 gives 1\)"),
        (10, {"validation_fraction": 0.95}, r"validation_fraction 0.95 gives 10"),
    ],
)
def test_too_few_rows_are_refused(rows_: int, tuning: dict, says: str) -> None:
    with pytest.raises(DataRejectedError, match=says):
        divide(np.arange(rows_) % 2, Tuning.model_validate(tuning), EARLY)
