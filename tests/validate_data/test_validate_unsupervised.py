"""Validating for tasks that learn from no label."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from components.errors import InputError
from components.schema import parse_schema
from tests.validate_data.datasets import EVAL_ROWS, SCHEMA, TRAIN_ROWS, Place

OPTIONAL = SCHEMA.replace('name: "late" type: INT presence { min_fraction: 1 }', 'name: "late" type: INT')
ANOMALIES: dict[str, Any] = {"type": "anomaly_detection", "label": "late"}


@pytest.mark.parametrize("kind", ["anomaly_detection", "clustering"])
def test_no_label_is_needed(tmp_path: Path, kind: str) -> None:
    place = Place(tmp_path).write()
    assert place.validate(task={"type": kind, "label": None}).verdict == "pass"
    assert place.report.read_text().count("late") > 0


def test_an_inferred_schema_has_no_label_to_hide(tmp_path: Path) -> None:
    place = Place(tmp_path).write()
    assert place.validate("", task={"type": "clustering", "label": None}).verdict == "pass"
    schema = parse_schema((place.outputs / "schema" / "schema.pbtxt").read_text())
    assert not [feature.name for feature in schema.feature if feature.not_in_environment]


def test_labels_may_be_missing_or_all_alike_in_what_is_learned_from(tmp_path: Path) -> None:
    missing = Place(tmp_path / "missing").write({"late": pa.nulls(TRAIN_ROWS, pa.int64())})
    assert missing.validate(OPTIONAL, task=ANOMALIES).verdict == "pass"
    alike = Place(tmp_path / "alike").write({"late": pa.array([0] * TRAIN_ROWS)})
    assert alike.validate(task=ANOMALIES).verdict == "pass"


def test_a_column_may_tell_the_label(tmp_path: Path) -> None:
    place = Place(tmp_path)
    late = [row % 2 for row in range(TRAIN_ROWS)]
    place.write({"late": pa.array(late), "hour": pa.array(late)}, {"hour": pa.array([0] * EVAL_ROWS)})
    place.validate(task=ANOMALIES)
    assert "LABEL_LEAK" not in {type_ for *_, type_ in place.found()}


def test_a_third_class_is_no_anomalys(tmp_path: Path) -> None:
    schema = SCHEMA.replace("int_domain { min: 0 max: 1 }", "int_domain { min: 0 max: 2 }")
    place = Place(tmp_path).write({"late": pa.array([row % 3 for row in range(TRAIN_ROWS)])})
    result = place.validate(schema, task=ANOMALIES)
    assert result.verdict == "fail"
    assert "has 3 values" in result.reason


def test_a_misspelled_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"task.label 'latte' is no column .* did you mean 'late'"):
        Place(tmp_path).write().validate(task={"type": "clustering", "label": "latte"})
