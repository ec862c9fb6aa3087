"""Rows that are only to be predicted, against the schema without a label and the model in production."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components.artifacts import BATCH
from components.errors import InputError
from tests.validate_data.datasets import SCHEMA, Columns, Place, good, replaced


def rows(count: int = 500, seed: int = 3) -> Columns:
    return {name: values for name, values in good(count, seed).items() if name != "late"}


def batch(folder: Path, columns: Columns) -> Place:
    return Place(folder).write_splits({BATCH: columns})


@pytest.fixture
def model(tmp_path: Path) -> str:
    """What a published model has: statistics of its train split, and the schema."""
    trained = Place(tmp_path / "training").write()
    trained.validate()
    folder = tmp_path / "model"
    folder.mkdir()
    (trained.outputs / "statistics").rename(folder / "statistics")
    (folder / "schema.pbtxt").write_text(SCHEMA)
    return str(folder)


def test_good_rows_pass_without_a_label(tmp_path: Path, model: str) -> None:
    place = batch(tmp_path / "batch", rows())
    result = place.validate(production=model)
    assert (result.verdict, result.reason) == ("pass", "0 anomalies in 500 rows")
    assert (place.outputs / "statistics" / f"{BATCH}.pb").is_file()
    page = place.report.read_text()
    assert "The rows are compared with the data that" in page


def test_the_schema_may_be_the_published_one(tmp_path: Path, model: str) -> None:
    offending = rows() | {"carrier": replaced(rows()["carrier"], "Bitcoin", 100)}
    result = batch(tmp_path / "batch", offending).validate(schema="", production=model)
    assert result.verdict == "fail"
    assert "carrier: 20.0 % of values outside the domain, e.g. 'Bitcoin'" in result.reason
    assert f"split '{BATCH}'" in result.reason


def test_a_schema_without_environments_asks_for_no_label(tmp_path: Path, model: str) -> None:
    plain = SCHEMA.replace('default_environment: "TRAINING"\ndefault_environment: "SERVING"\n', "")
    plain = plain.replace('  not_in_environment: "SERVING"\n', "")
    assert batch(tmp_path / "batch", rows()).validate(schema=plain, production=model).verdict == "pass"


def test_drift_from_training_is_told(tmp_path: Path, model: str) -> None:
    far = rows() | {"wind": pa.array(np.random.default_rng(0).normal(60, 3, 500).astype(np.float32))}
    place = batch(tmp_path / "batch", far)
    limits = {"drift": {"default": {"jensen_shannon": 0.3}}, "severity": {"DRIFT": "error"}}
    result = place.validate(validation=limits, production=model)
    assert result.verdict == "fail"
    assert "wind: Jensen-Shannon divergence" in result.reason
    (anomaly,) = [one for one in place.anomalies() if one["feature"] == "wind"]
    assert (anomaly["split"], anomaly["against"]) == (BATCH, "production")
    assert "(batch)" in anomaly["examples"][0]["value"]


def test_one_row_is_enough(tmp_path: Path, model: str) -> None:
    assert batch(tmp_path / "batch", rows(1)).validate(production=model).verdict == "pass"


def test_without_a_schema_and_a_model_there_is_nothing_to_hold_rows_against(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is none; name one under `schema`"):
        batch(tmp_path / "batch", rows()).validate(schema="")
