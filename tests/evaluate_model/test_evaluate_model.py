import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components.evaluation_result import read_evaluation
from components.model_spec import write_spec
from tests.evaluate_model.datasets import Case, binary_case, flights, multiclass_case, regression_case, spec

CASES = {"binary": binary_case, "multiclass": multiclass_case, "regression": regression_case}


def check(result, kind):
    (found,) = [one for one in result.checks if one.kind == kind]
    return found


@pytest.mark.parametrize("kind", CASES)
def test_a_good_model_passes_and_the_result_can_be_read_back(kind, tmp_path):
    case = CASES[kind](tmp_path, evaluation={"slices": [["carrier"]]})
    result = case.evaluate()
    assert result.verdict == "pass"
    assert re.search(r"\(trivial [0-9.]+\); 1 of 1 checks passed$", result.reason)
    assert read_evaluation(case.result) == result
    assert result.rows == case.eval.num_rows
    assert result.production is None
    for one in [*result.metrics.values(), *(m for s in result.slices for m in s.metrics.values())]:
        assert one.low <= one.value <= one.high
    assert all(math.isfinite(value) for value in result.scalars().values())
    assert sum(one.rows for one in result.slices) == result.rows


@pytest.mark.parametrize("kind", CASES)
def test_the_report_needs_nothing_else(kind, tmp_path):
    case = CASES[kind](tmp_path, evaluation={"slices": [["carrier"]]})
    case.production = case.eval
    case.evaluate()
    page = case.report.read_text()
    assert "://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in page
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL).lower().split()
    assert page.count("<svg") >= 4


def test_the_same_input_gives_the_same_files(tmp_path):
    settings = {"slices": [["carrier"], ["temp"]], "decision_threshold": "max_f1"}
    one, other = (binary_case(tmp_path / name, evaluation=settings, production=flights()) for name in "ab")
    assert one.evaluate() == other.evaluate()
    assert one.report.read_bytes() == other.report.read_bytes()
    one.read()
    assert one.report.read_bytes() == other.report.read_bytes()


def test_a_threshold_that_is_missed_fails_with_value_interval_bound_and_next_step(tmp_path):
    settings = {"thresholds": [{"metric": "auc", "min": 0.99}, {"metric": "brier", "max": 0.5}]}
    result = binary_case(tmp_path, evaluation=settings).evaluate()
    assert result.verdict == "fail"
    number = r"0\.\d+"
    assert re.fullmatch(
        rf"auc {number} \[{number}, {number}\] \(needed: ≥ 0.99\); improve the features or the model, or change "
        r"evaluation.thresholds in pipeline.yaml",
        result.reason,
    )
    assert [one.ok for one in result.checks] == [False, True, True]


@pytest.mark.parametrize(("bound", "ok"), [({"min": 0.5}, True), ({"max": 0.5}, False), ({"min": 0.1, "max": 1}, True)])
def test_bounds_work_in_both_directions(bound, ok, tmp_path):
    result = binary_case(tmp_path, evaluation={"thresholds": [{"metric": "auc", **bound}]}).evaluate()
    assert check(result, "threshold").ok is ok


def shuffled_where(carrier: str) -> pa.Table:
    """Predictions that mean nothing for one carrier."""
    table = flights()
    scores, there = table["probability"].to_numpy().copy(), np.array(table["carrier"].to_pylist()) == carrier
    scores[there] = np.random.default_rng(0).permutation(scores[there])
    return table.set_column(table.num_columns - 1, "probability", pa.array(scores))


def test_a_bad_slice_fails_and_is_named(tmp_path):
    settings = {"slices": [["carrier"], ["origin"]], "slice_thresholds": [{"metric": "auc", "min": 0.65}]}
    result = binary_case(tmp_path, eval=shuffled_where("AA"), evaluation=settings).evaluate()
    assert result.verdict == "fail"
    assert re.match(r"auc of 1 of 5 slices outside: carrier=AA 0\.\d+ \(needed: ≥ 0.65\)", result.reason)
    assert [one.name for one in result.slices if not one.ok] == ["carrier=AA"]
    assert result.slices[0].name == "carrier=AA"
    assert "bad" in re.findall(r'<tr class="(\w*)"><td class="name">AA<', (tmp_path / "report.html").read_text())


def test_a_slice_threshold_binds_only_the_slices_that_it_names_and_those_with_enough_rows(tmp_path):
    settings = {
        "slices": [["carrier"], ["origin"]],
        "slice_thresholds": [{"metric": "auc", "min": 0.65, "slices": [["origin"]]}],
    }
    assert binary_case(tmp_path / "a", eval=shuffled_where("AA"), evaluation=settings).evaluate().verdict == "pass"
    everything = {**settings, "slice_thresholds": [{"metric": "auc", "min": 0.65}], "min_slice_rows": 500}
    result = binary_case(tmp_path / "b", eval=shuffled_where("AA"), evaluation=everything).evaluate()
    assert result.verdict == "pass"
    assert {one.name for one in result.slices if not one.supported} == {"carrier=AA", "carrier=(missing)"}
    few = {**everything, "min_slice_rows": 5000}
    result = binary_case(tmp_path / "c", evaluation=few).evaluate()
    assert result.verdict == "pass"
    assert result.warnings == [
        "no slice by carrier has enough rows: no threshold binds it",
        "no slice by origin has enough rows: no threshold binds it",
    ]


def test_a_metric_without_a_value_in_a_slice_fails_nothing_and_is_a_dash(tmp_path):
    table = flights()
    never = pa.array(np.where(np.array(table["carrier"].to_pylist()) == "DL", 0, table["late"].to_numpy()))
    table = table.set_column(1, "late", never)
    settings = {
        "slices": [["carrier"]],
        "slice_thresholds": [{"metric": "auc", "min": 0.6}],
        "baseline": {"metric": "auc"},
    }
    result = binary_case(tmp_path, eval=table, evaluation=settings).evaluate()
    (delta,) = [one for one in result.slices if one.name == "carrier=DL"]
    assert delta.metrics["auc"].value is None
    assert delta.metrics["log_loss"].value is not None
    assert delta.supported
    assert result.verdict == "pass"
    assert "0 of 2 slices outside" in check(result, "slices").detail
    assert re.search(r'class="name">DL</td>.*?<b>–</b>', (tmp_path / "report.html").read_text(), re.DOTALL)


def test_an_overall_metric_without_a_value_fails_its_threshold(tmp_path):
    settings = {"thresholds": [{"metric": "precision", "min": 0.1}], "decision_threshold": 0.9999}
    result = binary_case(tmp_path, evaluation=settings).evaluate()
    assert result.verdict == "fail"
    assert result.reason.startswith("precision undefined (needed: ≥ 0.1)")


def test_a_model_no_better_than_the_prior_fails(tmp_path):
    table = flights(noise=0)
    random = np.random.default_rng(0).permutation(table["probability"].to_numpy())
    result = binary_case(tmp_path, eval=table.set_column(5, "probability", pa.array(random))).evaluate()
    assert result.verdict == "fail"
    assert re.match(r"log_loss 0\.\d+ \(trivial 0\.\d+\): gain -0\.\d+ \(needed: > 0\); add features", result.reason)


def test_a_required_gain_is_in_the_metrics_unit(tmp_path):
    for gain, verdict in ((0.05, "pass"), (0.5, "fail")):
        settings = {"baseline": {"metric": "auc", "min_gain": gain}}
        result = binary_case(tmp_path / verdict, evaluation=settings).evaluate()
        assert result.verdict == verdict
        assert result.baseline["auc"] == 0.5


def test_production_on_the_same_rows_may_be_better_by_the_tolerance_only(tmp_path):
    better, worse = flights(noise=0.2), flights(noise=2)
    result = binary_case(tmp_path / "worse", eval=worse, production=better).evaluate()
    assert result.verdict == "fail"
    assert "(production 0." in result.reason
    assert "(needed: ≥ -0.005)" in result.reason
    assert result.difference["auc"].high < 0
    settings = {"production": {"tolerance": 0.5}, "baseline": {"metric": "auc"}}
    result = binary_case(tmp_path / "tolerant", eval=worse, production=better, evaluation=settings).evaluate()
    assert result.verdict == "pass"
    assert binary_case(tmp_path / "better", eval=better, production=worse).evaluate().verdict == "pass"
    same = binary_case(tmp_path / "same", eval=better, production=better).evaluate()
    assert same.verdict == "pass"
    assert (same.difference["auc"].low, same.difference["auc"].high) == (0, 0)


def test_lower_is_better_for_an_error_against_production(tmp_path):
    table = regression_case(None).eval
    far = table.set_column(2, "value", pa.array(table["value"].to_numpy() + 3))
    assert regression_case(tmp_path / "a", eval=far, production=table).evaluate().verdict == "fail"
    assert regression_case(tmp_path / "b", eval=table, production=far).evaluate().verdict == "pass"


def test_rows_without_a_label_are_left_out_and_counted(tmp_path):
    table = flights()
    holes = pa.array([None if row % 4 == 0 else value for row, value in enumerate(table["late"].to_pylist())])
    case = binary_case(
        tmp_path, eval=table.set_column(1, "late", holes), rejected=3, evaluation={"slices": [["origin"]]}
    )
    result = case.evaluate()
    assert (result.rows, result.missing_labels, result.rejected) == (1500, 500, 3)
    assert sum(one.rows for one in result.slices) == 1500
    assert len(result.warnings) == 2


REASONS = ("temp cannot be float: warm", "temp cannot be float: a: b\nc", "origin is missing")


def test_more_rejected_rows_than_allowed_fail_with_share_limit_commonest_reason_and_next_step(tmp_path):
    case = binary_case(tmp_path, rejected=60, reasons=REASONS)
    result = case.evaluate()
    assert result.verdict == "fail"
    assert result.reason == (
        "rows rejected by the model: 60 of 2,060, 2.913 % (allowed: 1 %), most often because temp cannot be float "
        "(40 rows); fix the source, or raise evaluation.max_rejected in pipeline.yaml"
    )
    found = check(result, "data")
    assert (found.value, found.bound, found.ok) == (pytest.approx(60 / 2060), "≤ 0.01", False)
    assert "most often because temp cannot be float (40 rows)" in case.report.read_text()


@pytest.mark.parametrize(
    ("limit", "rejected", "verdict"),
    [(0, 0, "pass"), (0, 1, "fail"), (0.2, 500, "pass"), (0.2, 501, "fail"), (1, 9000, "pass")],
)
def test_the_limit_itself_is_allowed(limit, rejected, verdict, tmp_path):
    result = binary_case(tmp_path, rejected=rejected, evaluation={"max_rejected": limit}).evaluate()
    assert result.verdict == verdict
    assert len(result.warnings) == (1 if rejected and verdict == "pass" else 0)


def test_few_rejected_rows_are_a_warning_with_the_reason(tmp_path):
    result = binary_case(tmp_path, rejected=12).evaluate()
    assert result.warnings == [
        "rows rejected by the model: 12 of 2,012, 0.5964 % (allowed: 1 %), most often because temp is missing "
        "(12 rows); they are not evaluated"
    ]


def without(table: pa.Table, start: int, stop: int) -> pa.Table:
    return pa.concat_tables([table.slice(0, start), table.slice(stop)])


def test_models_that_reject_different_rows_are_compared_on_the_rows_that_both_take(tmp_path):
    case = binary_case(
        tmp_path,
        eval=without(flights(), 0, 5),
        rejected=5,
        rejected_from=0,
        production=without(flights(noise=2), 3, 13),
        production_rejected=10,
        production_rejected_from=3,
    )
    result = case.evaluate()
    both = binary_case(tmp_path / "both", eval=without(flights(), 0, 13), production=without(flights(noise=2), 0, 13))
    expected = both.evaluate()
    assert result.rows == 1987
    assert (result.metrics, result.production, result.difference) == (
        expected.metrics,
        expected.production,
        expected.difference,
    )
    assert result.rejected == 5
    assert result.warnings[1:] == ["8 rows that the model in production rejected are not evaluated"]


@pytest.mark.parametrize(
    ("labels", "positive"),
    [
        (["late", "ok"], "late"),
        ([True, False], None),
        ([True, False], 1),
        ([1, 0], True),
        ([0, 1], 0),
        (["1", "0"], None),
        (["TRUE", "FALSE"], None),
        ([1.0, 0.0], 1),
        ([2, 1], 2),
    ],
)
def test_a_label_of_any_type_has_its_positive_class(labels, positive, tmp_path):
    yes, no = labels
    table, train = (
        one.set_column(
            one.column_names.index("late"), "late", pa.array([yes if v else no for v in one["late"].to_pylist()])
        )
        for one in (flights(), flights(seed=7).select(["late"]))
    )
    task = {"type": "binary", "label": "late", "positive": positive}
    result = binary_case(tmp_path / "a", eval=table, train=train, task=task).evaluate()
    assert result.metrics == binary_case(tmp_path / "b").evaluate().metrics


def test_the_threshold_of_highest_f1_is_found(tmp_path):
    result = binary_case(tmp_path / "a", evaluation={"decision_threshold": "max_f1"}).evaluate()
    for threshold in (0.1, 0.3, 0.5, 0.7):
        other = binary_case(tmp_path / str(threshold), evaluation={"decision_threshold": threshold}).evaluate()
        assert other.threshold == threshold
        assert result.metrics["f1"].value >= other.metrics["f1"].value


def test_the_roc_curve_is_short_finite_and_monotonic(tmp_path):
    roc = binary_case(tmp_path).evaluate().roc
    assert len(roc.fpr) == len(roc.tpr) == len(roc.thresholds) <= 200
    assert np.isfinite(roc.thresholds).all()
    assert (roc.fpr[0], roc.tpr[0], roc.fpr[-1], roc.tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(roc.fpr) >= 0).all()
    assert (np.diff(roc.tpr) >= 0).all()
    assert (np.diff(roc.thresholds) < 0).all()


def test_a_class_that_the_model_does_not_know_counts_against_it(tmp_path):
    case = multiclass_case(tmp_path)
    labels = ["other" if row < 60 else value for row, value in enumerate(case.eval["late"].to_pylist())]
    case.eval = case.eval.set_column(0, "late", pa.array(labels))
    result = case.evaluate()
    assert result.confusion.classes == ["setosa", "versicolor", "virginica", "other"]
    assert sum(result.confusion.counts[3]) == 60
    assert result.per_class["other"]["recall"] == 0
    assert result.metrics["log_loss"].value > 1.5


def test_production_with_its_classes_in_another_order_is_read_by_name(tmp_path):
    case = multiclass_case(tmp_path)
    turned = [one[::-1] for one in case.eval["probabilities"].to_pylist()]
    case.production = case.eval.set_column(2, "probabilities", pa.array(turned, pa.list_(pa.float32())))

    def turn_spec(written: Case) -> None:
        write_spec(written.folder / "production", spec(["virginica", "versicolor", "setosa"]))

    case.change = turn_spec
    result = case.evaluate()
    assert result.production == {name: pytest.approx(one.value) for name, one in result.metrics.items()}


def test_a_nearly_perfect_model_gets_a_warning(tmp_path):
    table = flights()
    leak = table.set_column(5, "probability", pa.array(table["late"].to_numpy().astype(np.float32)))
    result = binary_case(tmp_path, eval=leak).evaluate()
    assert result.verdict == "pass"
    assert "auc 1 is nearly perfect: look for a feature that is known only after the label" in result.warnings


def test_the_trivial_baseline_of_a_regression_is_the_best_constant_of_the_training_labels(tmp_path):
    case = regression_case(tmp_path, evaluation={"quantile": 0.9})
    truth = case.train["late"].to_numpy()
    baseline = case.evaluate().baseline
    assert baseline["rmse"] == pytest.approx(truth.std())
    assert baseline["mae"] == pytest.approx(np.abs(truth - np.median(truth)).mean())
    errors = truth - np.quantile(truth, 0.9)
    assert baseline["quantile_loss"] == pytest.approx(np.maximum(0.9 * errors, -0.1 * errors).mean())
    assert baseline["r2"] == pytest.approx(0, abs=1e-9)


def test_no_resamples_no_intervals(tmp_path):
    settings = {"bootstrap": {"resamples": 0}, "slices": [["carrier"]]}
    result = binary_case(tmp_path, evaluation=settings, production=flights()).evaluate()
    assert result.metrics["auc"].value > 0.7
    assert result.metrics["auc"].low is None
    assert "[" not in result.reason


def test_more_slices_than_can_be_listed_are_summed_up_and_all_are_checked(tmp_path):
    table = flights(6000)
    keys = [f"k{row % 3000}" if row != 5999 else "k0" for row in range(6000)]
    settings = {
        "slices": [["carrier"]],
        "min_slice_rows": 3,
        "slice_thresholds": [{"metric": "log_loss", "max": 0.01}],
        "bootstrap": {"resamples": 5},
    }
    result = binary_case(tmp_path, eval=table.set_column(2, "carrier", pa.array(keys)), evaluation=settings).evaluate()
    assert len(result.slices) == 1000
    assert result.slices_left_out == 2000
    assert sum(one.rows for one in result.slices) + result.rows_left_out == 6000
    assert result.slices[0].name == "carrier=k0"  # the only one with 3 rows
    assert check(result, "slices").detail.startswith("1 of 1 slices outside: carrier=k0 ")
    assert "900 more are in evaluation.json" in (tmp_path / "report.html").read_text()


def test_kfp_takes_what_the_result_offers(tmp_path):
    case = binary_case(tmp_path, production=flights(noise=2))
    case.write()
    written = execute(case)
    artifacts = {name: one["artifacts"][0]["metadata"] for name, one in written["artifacts"].items()}
    assert written["parameterValues"]["verdict"] == "pass"
    assert written["parameterValues"]["reason"].startswith("auc 0.")
    assert artifacts["metrics"]["rows"] == 2000
    assert 0.7 < artifacts["metrics"]["auc"] < 1
    assert set(artifacts["classification_metrics"]) == {"confidenceMetrics", "confusionMatrix"}


def execute(case: Case) -> dict:
    """Runs the component's body as a task does: in KFP's executor."""
    source = (Path(__file__).parents[2] / "components" / "evaluate_model" / "component.py").read_text()
    module = case.folder / "ephemeral.py"
    body = source[source.index("def evaluate_model") :]
    module.write_text(f"from kfp import dsl\nfrom kfp.dsl import *\nfrom typing import *\n\n{body}")

    def artifact(name: str, kind: str) -> dict:
        title = {"schemaTitle": f"system.{kind}", "schemaVersion": "0.0.1"}
        return {"artifacts": [{"name": name, "type": title, "uri": str(case.folder / name), "metadata": {}}]}

    inputs = {name: artifact(name, "Dataset") for name in ("predictions", "examples")}
    inputs["production_predictions"] = artifact("production", "Dataset")
    kinds = {"metrics": "Metrics", "classification_metrics": "ClassificationMetrics"}
    kinds |= {"evaluation_result": "Artifact", "report": "HTML"}
    written = case.folder / "executor_output.json"
    executor_input = {
        "inputs": {"parameterValues": {"task": case.task, "evaluation": case.evaluation}, "artifacts": inputs},
        "outputs": {
            "parameters": {name: {"outputFile": str(case.folder / name)} for name in ("verdict", "reason")},
            "artifacts": {name: artifact(name, kind) for name, kind in kinds.items()},
            "outputFile": str(written),
        },
    }
    command = [sys.executable, "-m", "kfp.dsl.executor_main", "--component_module_path", str(module)]
    command += ["--function_to_execute", "evaluate_model", "--executor_input", json.dumps(executor_input)]
    subprocess.run(command, env={**os.environ, "_KFP_RUNTIME": "true"}, check=True)
    return json.loads(written.read_text())


RUN = """
import os, signal, sys
from pathlib import Path
from components.evaluate_model import evaluation
from tests.evaluate_model.datasets import Case

def killed(step):
    def step_and_kill(*arguments):
        step(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)
    return step_and_kill

setattr(evaluation, sys.argv[2], killed(getattr(evaluation, sys.argv[2])))
Case(Path(sys.argv[1]), evaluation={"slices": [["carrier"]]}).read()
"""


@pytest.mark.parametrize("step", ["judge", "write_evaluation", "write_whole"])
def test_a_killed_evaluation_run_again_ends_like_an_undisturbed_one(step, tmp_path):
    undisturbed = binary_case(tmp_path / "a", evaluation={"slices": [["carrier"]]})
    undisturbed.evaluate()
    case = binary_case(tmp_path / "b", evaluation={"slices": [["carrier"]]})
    case.write()
    killed = subprocess.run([sys.executable, "-c", RUN, str(case.folder), step], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert case.result.exists() == case.report.exists() == (step == "write_whole")
    case.read()
    assert case.report.read_bytes() == undisturbed.report.read_bytes()
    written = sorted(path.name for path in case.folder.iterdir())
    assert written == ["examples", "predictions", "production", "report.html", "result"]
