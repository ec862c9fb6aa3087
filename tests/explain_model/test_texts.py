"""Raw values as text, and times in conditions and in the report."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.explain_model.texts import missing, text_of
from components.explain_model.weak_slices import find
from components.rows import MISSING_INTEGER
from tests.explain_model.made import given

DAY = 86_400
FROM = 1_380_585_600  # 2013-10-01


@pytest.mark.parametrize(
    ("value", "is_time", "text"),
    [
        (b"gr\xc3\xbcn", False, "grün"),
        (b"\xff", False, "�"),
        (b"", False, "(missing)"),
        (np.float32("nan"), False, "(missing)"),
        (np.int64(MISSING_INTEGER), True, "(missing)"),
        (np.float32(0.1), False, "0.1"),
        (np.int64(1_000_000), False, "1000000"),
        (np.int64(FROM + 3600), True, "2013-10-01 01:00"),
        (np.int64(2**62), True, str(2**62)),
        (np.int64(-1), True, "1969-12-31 23:59"),
    ],
)
def test_a_value_is_written_for_a_reader(value: Any, is_time: bool, text: str) -> None:
    assert text_of(value, is_time) == text


def test_what_is_missing_is_known() -> None:
    assert missing(np.array([b"", b"a"], object)).tolist() == [True, False]
    assert missing(np.array([np.nan, 1], "float32")).tolist() == [True, False]
    assert missing(np.array([MISSING_INTEGER, 0])).tolist() == [True, False]


def test_conditions_on_times_are_times() -> None:
    generator = np.random.default_rng(3)
    when = FROM + generator.integers(0, 60 * DAY, 4000)
    losses = generator.exponential(1, 4000) + 2 * (when >= FROM + 40 * DAY)
    (found,) = find({"when": when}, losses, None, None, 100, 3, {"when"}).slices
    (condition,) = found.conditions
    assert condition.startswith(("when ≥ 2013-11-09 ", "when ≥ 2013-11-10 "))
    assert abs(found.rows - (when >= FROM + 40 * DAY).sum()) < 100


def test_the_schema_tells_what_is_a_time(tmp_path: Path) -> None:
    made = given("binary", tmp_path)
    (tmp_path / "schema").mkdir()
    described = 'feature { name: "visits" type: INT time_domain { integer_format: UNIX_SECONDS } }'
    (tmp_path / "schema" / "schema.pbtxt").write_text(described)
    made.explain(rows=200)
    assert "1970-01-01" not in made.report
    made.schema = str(tmp_path / "schema")
    made.explain(rows=200)
    assert "1970-01-01 00:00" in made.report
