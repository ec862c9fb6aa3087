"""Explaining really trained models."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.artifacts import read_manifest
from components.explain_model import sampling
from components.explain_model.material import Explained
from components.rows import Arrays
from tests.explain_model.made import ROWS, given
from tests.train_model.projects import arrays_of, read_split, trained

KINDS = ("binary", "multiclass", "regression", "anomaly_detection", "clustering")
FEATURES = ["amount", "trip km", "visits", "colour"]


def shares_of(row: dict[str, Any]) -> dict[str, float]:
    return {one["feature"]: one["contribution"] for one in row["contributions"]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("enumerated", [True, False])
def test_contributions_add_up_to_the_prediction_that_was_evaluated(
    kind: str, enumerated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not enumerated:
        monkeypatch.setattr(sampling, "_MOST_ENUMERATED", 0)
    made = given(kind, tmp_path)
    figures = made.explain()
    assert {name: figures[name] for name in ("rows", "features", "compared_rows")} == {
        "rows": 40,
        "features": 4,
        "compared_rows": 12,
    }
    assert figures["largest_gap"] < 1e-6 * (1000 if kind == "regression" else 1)
    evaluated = read_split(made.predictions, "eval").to_pylist()
    for row in made.table.to_pylist():
        there = evaluated[row["row"]]
        prediction = {"binary": "probability", "regression": "value", "anomaly_detection": "anomaly_score"}.get(kind)
        several = min(there["distances"]) if kind == "clustering" else max(there.get("probabilities", [0]))
        wanted = there[prediction] if prediction else several
        assert math.isclose(row["prediction"], wanted, rel_tol=1e-5)
        assert math.isclose(row["reference"] + sum(shares_of(row).values()), wanted, rel_tol=1e-5)
        assert (row.get("class"), row.get("cluster")) == (there.get("class"), there.get("cluster"))
        assert sorted(shares_of(row)) == sorted(FEATURES)
        sizes = [abs(share) for share in shares_of(row).values()]
        assert sizes == sorted(sizes, reverse=True)


def test_contributions_are_shapley_values_by_their_definition() -> None:
    model = Explained(trained("binary"))
    rows = {n: v[:3] for n, v in arrays_of(read_split(given("binary", Path()).examples, "eval"), "binary").items()}
    background = {
        n: v[:5] for n, v in arrays_of(read_split(given("binary", Path()).examples, "train"), "binary").items()
    }
    found = sampling.shapley_values(model.predict, rows, np.zeros(3, int), background, 60, 0)
    assert found.method == "exact_shap"
    for row in range(3):
        wanted = np.zeros(4)
        for order in itertools.permutations(range(4)):
            joined: list[int] = []
            for player in order:
                before = _value(model, rows, background, row, joined)
                joined = [*joined, player]
                wanted[player] += (_value(model, rows, background, row, joined) - before) / math.factorial(4)
        np.testing.assert_allclose(found.shares[row], wanted, atol=1e-6)
    np.testing.assert_allclose(found.references, model.predict(background).mean(), rtol=1e-6)


def _value(model: Explained, rows: Arrays, background: Arrays, row: int, joined: list[int]) -> float:
    mixed = {
        name: np.repeat(values[row : row + 1], 5) if index in joined else background[name]
        for index, (name, values) in enumerate(rows.items())
    }
    return float(model.predict(mixed).mean())


def test_a_second_run_is_the_same(tmp_path: Path) -> None:
    made = given("multiclass", tmp_path)
    made.explain()
    table, report, manifest = made.table, made.report, read_manifest(tmp_path / "explanations")
    made.explain()
    assert made.table.equals(table)
    assert made.report == report
    assert read_manifest(tmp_path / "explanations") == manifest
    assert manifest.splits == {"eval": 40}


def test_values_are_the_rows_own(tmp_path: Path) -> None:
    made = given("binary", tmp_path)
    made.explain(rows=ROWS)
    raw = read_split(made.examples, "eval").to_pylist()
    missing = 0
    for row in made.table.to_pylist():
        for one in row["contributions"]:
            value = raw[row["row"]][one["feature"]]
            missing += value is None
            assert one["value"] == (None if value is None else value if isinstance(value, str) else one["value"])
            assert value is None or isinstance(value, str) or math.isclose(float(one["value"]), value, rel_tol=1e-6)
    assert missing > 50


def test_the_most_important_feature_leads_the_report(tmp_path: Path) -> None:
    made = given("regression", tmp_path)
    made.explain(rows=200)
    table = made.table.to_pylist()
    means = {name: np.mean([abs(shares_of(row)[name]) for row in table]) for name in FEATURES}
    positions = [made.report.index(f'<td class="name">{name}</td>') for name in sorted(means, key=lambda n: -means[n])]
    assert positions == sorted(positions)


@pytest.mark.parametrize("kind", KINDS)
def test_the_report_needs_nothing_else(kind: str, tmp_path: Path) -> None:
    made = given(kind, tmp_path)
    made.explain()
    assert "<script" not in made.report
    assert "http" not in made.report.replace("http-equiv", "")
    assert "NaN" not in made.report
    assert "nan" not in made.report
    assert made.report.count("<h3>") >= (7 if kind == "clustering" else 8)


def test_time_that_is_over_leaves_whole_explanations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sampling, "_PROGRESS_SECONDS", -1)
    made = given("binary", tmp_path)
    figures = made.explain(max_seconds=1e-9)
    assert figures["compared_rows"] == 2
    assert figures["largest_gap"] < 1e-6
    said = capsys.readouterr().out
    assert "compared with 1 of 12 rows, 0 s" in said
    assert "compared with 2 of 12 rows; more take longer than explanation.max_seconds (1e-09)" in said


@pytest.mark.parametrize("kind", KINDS)
def test_lime_says_how_well_it_fits(kind: str, tmp_path: Path) -> None:
    made = given(kind, tmp_path)
    made.explain(method="lime")
    assert "explain" in made.report
    assert "do not add up to the prediction" in made.report
    assert "Shapley" not in made.report
