"""Defective inputs: each gets its error class and one line, and leaves nothing half-written."""

import shutil
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.errors import DataRejectedError, InputError
from components.model_spec import write_spec
from tests.evaluate_model.datasets import Case, binary_case, flights, multiclass_case, regression_case, spec


@dataclass(frozen=True)
class Defect:
    name: str
    make: Any
    """Gives a case for a folder."""
    error: type[Exception]
    says: str


def replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def with_scores(**at: float) -> pa.Table:
    scores = flights()["probability"].to_numpy().copy()
    for row, value in at.items():
        scores[int(row[1:])] = value
    return replaced(flights(), "probability", scores)


def truncate(case: Case) -> None:
    part = case.folder / "predictions" / "eval" / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-100])


def truncate_rejected(case: Case) -> None:
    (case.folder / "predictions" / "rejected" / "part-00000-000000000.parquet").write_bytes(b"PAR1")


def remove_manifest(case: Case) -> None:
    (case.folder / "predictions" / "manifest.json").unlink()


def remove_train(case: Case) -> None:
    shutil.rmtree(case.folder / "examples" / "train")


def five_classes(case: Case) -> None:
    write_spec(case.folder / "predictions", spec(list("abcde")))


def remove_spec(case: Case) -> None:
    (case.folder / "predictions" / "spec.json").unlink()


def evaluation(**settings: Any) -> Any:
    return lambda folder: binary_case(folder, evaluation=settings)


def binary(**changes: Any) -> Any:
    return lambda folder: binary_case(folder, **changes)


OTHER_KEYS = replaced(flights(), "flight", list(range(1, 2001)))
NEITHER = replaced(flights(), "late", np.where(flights()["late"].to_numpy() == 1, "yes", "no"))
UNLABELLED = replaced(flights(), "late", pa.nulls(2000, pa.int64()))
MULTI = multiclass_case(None).eval
SKEWED = replaced(MULTI, "probabilities", [[0.5, 0.4, 0.4]] * 600)

DEFECTS = [
    Defect("no predictions", binary(eval=None), DataRejectedError, "no row of split 'eval' was predicted: it has none"),
    Defect("rejected only", binary(eval=None, rejected=12), DataRejectedError,
           "none of 12 rows of split 'eval' could be predicted, most often because temp is missing (12 rows); "),
    Defect("torn rejected rows", binary(rejected=9, change=truncate_rejected), InputError,
           "rejected' cannot be read as Parquet"),
    Defect("empty parts", binary(eval=flights().slice(0, 0)), DataRejectedError, "no row of split 'eval'"),
    Defect("NaN score", binary(eval=with_scores(r7=np.nan)), DataRejectedError, "1 of 2,000 predictions of 'probab"),
    Defect("score above 1", binary(eval=with_scores(r1=1.5, r2=-1)), DataRejectedError, "no probabilities in [0, 1]"),
    Defect("infinite score", binary(eval=with_scores(r1=np.inf)), DataRejectedError, "e.g. inf; look at the loss"),
    Defect("no label in eval", binary(eval=flights().drop_columns("late")), InputError, "has no column 'late'; it has"),
    Defect("no label in train", binary(train=flights().select(["origin"])), InputError, "split 'train' has no column"),
    Defect("all labels missing", binary(eval=UNLABELLED), DataRejectedError, "none of 2,000 rows in split 'eval'"),
    Defect("train unlabelled", binary(train=UNLABELLED), DataRejectedError, "none of 2,000 rows in split 'train'"),
    Defect("unknown slice", evaluation(slices=[["carier"]]), InputError, "'carier'; did you mean 'carrier'?"),
    Defect("slice by the score", evaluation(slices=[["probability"]]), InputError, "has no column 'probability'"),
    Defect("neither true nor 1", binary(eval=NEITHER, train=NEITHER), InputError, "'no', 'yes': neither true nor 1"),
    Defect("positive is typed wrong", binary(task={"type": "binary", "label": "late", "positive": "late"}), InputError,
           "not 'late' (task.positive)"),
    Defect("label types mismatch", binary(train=NEITHER), InputError, "has 4 values ('0', '1', 'no', 'yes')"),
    Defect("three classes", binary(eval=replaced(flights(), "late", np.arange(2000) % 3)), InputError,
           "has 3 values ('0', '1', '2'), a binary task takes 2"),
    Defect("fractions as classes", binary(eval=replaced(flights(), "late", np.linspace(0, 1, 2000))), InputError,
           "has fractions: not classes"),
    Defect("metric of another task", evaluation(thresholds=[{"metric": "rmse", "max": 1}]), InputError,
           "evaluation.thresholds[0].metric: a binary task has no 'rmse'; use one of auc, pr_auc"),
    Defect("gain in another task's metric", evaluation(baseline={"metric": "mae"}), InputError,
           "evaluation.baseline.metric: a binary task has no 'mae'"),
    Defect("threshold on slices not computed",
           evaluation(slices=[["origin"]], slice_thresholds=[{"metric": "auc", "min": 0, "slices": [["carrier"]]}]),
           InputError, "[carrier] is not in evaluation.slices ([origin]); add it there"),
    Defect("another task's predictions", binary(task={"type": "regression", "label": "late"}), InputError,
           "have no column 'value' (they have: flight, late, carrier, origin, temp, probability)"),
    Defect("production has fewer rows", binary(production=flights().slice(1)), InputError,
           "production predicted 1,999 rows (0 rejected), the candidate 2,000"),
    Defect("production rejected all", binary(production_rejected=2000), InputError, "0 rows (2,000 rejected)"),
    Defect("no row that both take", binary(
        eval=flights().slice(0, 1000), rejected=1000, production=flights().slice(1000), production_rejected=1000,
        production_rejected_from=0), InputError, "no row that the candidate takes, too"),
    Defect("production has rows less", binary(rejected=2, production=flights()), InputError,
           "production predicted 2,000 rows (0 rejected), the candidate 2,000 (2 rejected)"),
    Defect("rejected rows of another split",
           binary(rejected=2, rejected_from=5000, production=flights(), production_rejected=2), InputError,
           "do not tell which rows were rejected; run predict_batch again"),
    Defect("production has other rows", binary(production=OTHER_KEYS), InputError, "column 'flight' differs"),
    Defect("production in another order", binary(production=flights().take(list(range(2000))[::-1])), InputError,
           "other rows than the candidate, or in another order"),
    Defect("truncated part", binary(change=truncate), InputError, "cannot be read as Parquet"),
    Defect("no manifest", binary(change=remove_manifest), InputError, "has no manifest.json"),
    Defect("no train split", binary(change=remove_train), InputError, "has no split 'train'"),
    Defect("no spec", lambda folder: multiclass_case(folder, change=remove_spec), InputError, "has no spec.json"),
    Defect("other classes", lambda folder: multiclass_case(folder, change=five_classes), InputError,
           "hold 3 probabilities a row, their spec 5 classes"),
    Defect("no distribution", lambda folder: multiclass_case(folder, eval=SKEWED), DataRejectedError,
           "600 of 600 predictions do not sum to 1, e.g. 1.3"),
    Defect("text for a number", lambda folder: regression_case(
        folder, eval=replaced(regression_case(None).eval, "late", ["x"] * 800)), InputError, "holds no numbers"),
    Defect("infinite label", lambda folder: regression_case(
        folder, eval=replaced(regression_case(None).eval, "late", [float("inf")] * 800)), DataRejectedError,
        "has 800 infinite values"),
    Defect("NaN value", lambda folder: regression_case(
        folder, eval=replaced(regression_case(None).eval, "value", [float("nan")] * 800)), DataRejectedError,
        "800 of 800 predictions of 'value' are no finite numbers"),
]  # fmt: skip


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_is_told_in_one_line_and_leaves_nothing(defect, tmp_path):
    case = defect.make(tmp_path)
    case.write()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(defect.error) as raised:
        case.read()
    assert defect.says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert sorted(tmp_path.rglob("*")) == before


# What a model can do wrong is no error: it gets a report, and the verdict `fail`.


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (replaced(flights(), "late", [0] * 2000), "classes in the eval split: all 2,000 rows have late = '0'"),
        (flights().slice(0, 1), "classes in the eval split: all 1 rows have late = "),
        (replaced(flights(), "probability", np.full(2000, 0.25, np.float32)), "all 2,000 rows get the same prediction"),
        (replaced(flights(), "probability", np.zeros(2000, np.float32)), "all 2,000 rows get the same prediction"),
    ],
    ids=["one class", "one row", "constant score", "all zero"],
)
def test_a_model_that_cannot_be_judged_fails_with_a_report(table, says, tmp_path):
    case = binary_case(tmp_path, eval=table, evaluation={"slices": [["carrier"]]})
    result = case.evaluate()
    assert result.verdict == "fail"
    assert says in result.reason
    assert case.report.is_file()
    assert (case.result / "evaluation.json").is_file()


HOSTILE = ["<script>alert(1)</script>", '"><img src=x>', "{{ 7 * 7 }}", "../../etc", "a\nb\x00c", "", "Ünïcode ✓"]


def test_hostile_slice_names_are_text_in_the_report(tmp_path):
    names = [HOSTILE[row % len(HOSTILE)] for row in range(2000)]
    table = replaced(flights(), "carrier", names)
    case = binary_case(tmp_path, eval=table, evaluation={"slices": [["carrier"]]})
    result = case.evaluate()
    page = case.report.read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    assert {one.values["carrier"] for one in result.slices} == {name or "(missing)" for name in HOSTILE}
