"""The golden test. Needs: the venv twin of the base image."""

import json
import math
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.artifacts import Manifest, write_manifest
from components.errors import InputError
from components.features import Label
from components.golden import GoldenRows, compare, read_golden
from components.model_spec import ModelInput, ModelSpec, outputs_of, write_spec

LABEL = Label(name="late", kind="binary", positive="1", classes=["0", "1"])
INPUTS = [
    ModelInput(name="carrier", tensor="carrier", dtype="string", required=True),
    ModelInput(name="distance", tensor="distance", dtype="float32", required=False),
    ModelInput(name="hour", tensor="hour", dtype="int64", required=False),
]


def predictions(folder: Path, rows: int = 100, drop: str = "") -> Path:
    spec = ModelSpec(
        inputs=INPUTS, outputs=outputs_of(LABEL), label=LABEL, weights_digest="0", train_rows=1, libraries={}
    )
    (folder / "eval").mkdir(parents=True)
    write_spec(folder, spec)
    table = pa.table(
        {
            "carrier": pa.array([f"é{i}" for i in range(rows)]),
            "distance": pa.array([None if i == 0 else i + 0.1 for i in range(rows)], pa.float64()),
            "hour": pa.array([None if i == 0 else i for i in range(rows)], pa.int64()),
            "probability": pa.array([i / rows for i in range(rows)], pa.float32()),
        }
    )
    if drop:
        table = table.drop_columns([drop])
    for part in range(2):
        half = table.slice(part * rows // 2, (part + 1) * rows // 2 - part * rows // 2)
        pq.write_table(half, folder / "eval" / f"part-{part:05d}.parquet")
    write_manifest(folder, Manifest(splits={"eval": rows, "rejected": 0}, digest="0"))
    return folder


def test_rows_are_taken_at_equal_distances_and_missing_values_are_null(tmp_path: Path) -> None:
    rows = read_golden(predictions(tmp_path), 12)
    assert [instance["carrier"] for instance in rows.instances] == [f"é{9 * i}" for i in range(12)]
    assert rows.instances[0] == {"carrier": "é0", "distance": None, "hour": None}
    assert json.loads(json.dumps(rows.instances)) == rows.instances
    first = rows.tensors[0]
    assert (first["carrier"], math.isnan(first["distance"]), first["hour"]) == ("é0", True, -(2**63))
    assert rows.expected[11] == {"probability": pytest.approx(0.99)}


def test_fewer_rows_than_wanted_are_all_taken(tmp_path: Path) -> None:
    assert len(read_golden(predictions(tmp_path, 5), 50).instances) == 5


def test_predictions_without_the_columns_of_the_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lack column 'hour' .*keep_columns: \[\]"):
        read_golden(predictions(tmp_path, drop="hour"), 5)


def test_predictions_without_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="have no rows"):
        read_golden(predictions(tmp_path, 0), 5)


ROWS = GoldenRows([{"a": 1}, {"a": 2}], [{"value": 1000.0, "class": "x"}, {"value": 0.5, "class": "y"}])


@pytest.mark.parametrize(
    ("given", "tolerance", "cause"),
    [
        ([{"value": 1000.05, "class": "x"}, {"value": 0.50005, "class": "y"}], 1e-4, ""),
        (
            [{"value": 1001.0, "class": "x"}, {"value": 0.5, "class": "y"}],
            1e-4,
            "1 of 2 .* value is 1001 instead of 1000",
        ),
        ([{"value": 1000.0, "class": "x"}, {"value": 0.5, "class": "z"}], 1e-4, "row 1: class is z instead of y"),
        ([{"value": 1000.0, "class": "x"}], 1e-4, "1 predictions for 2 rows"),
        ([{"value": None, "class": "x"}, {"value": 0.5, "class": "y"}], 9.0, "value is None"),
        ([{"value": math.nan, "class": "x"}, {"value": 0.5, "class": "y"}], 9.0, "value is nan"),
        (["x", "y"], 9.0, "value is None"),
    ],
)
def test_answers_are_compared_within_a_tolerance(given: list[object], tolerance: float, cause: str) -> None:
    found = compare(ROWS, {"predictions": given}, tolerance, {})
    assert re.fullmatch(f".*{cause}.*" if cause else "", found.cause), found.cause


def test_an_output_can_have_its_own_tolerance() -> None:
    given = {"predictions": [{"value": 1100.0, "class": "x"}, {"value": 0.5, "class": "y"}]}
    assert compare(ROWS, given, 1e-4, {"value": 0.2}).cause == ""
    assert compare(ROWS, given, 0.2, {"value": 1e-4}).differing == 1


@pytest.mark.parametrize("answer", [None, [], "x", {"error": "no"}])
def test_an_answer_of_another_form_fails_all_rows(answer: object) -> None:
    assert compare(ROWS, answer, 1.0, {}).differing == 2


def test_lists_of_numbers_are_compared_one_by_one() -> None:
    rows = GoldenRows([{}], [{"probabilities": [0.2, 0.8]}])
    assert compare(rows, {"predictions": [[0.2, 0.8]]}, 0, {}).cause == ""
    assert compare(rows, {"predictions": [[0.2]]}, 9, {}).differing == 1
