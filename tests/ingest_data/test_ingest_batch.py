"""Rows that are only to be predicted: no label, no division. Needs: the venv twin of the base image."""

import pytest

from components.errors import DataRejectedError, InputError
from tests.ingest_data.source import COLUMNS, SCHEMA, Source, months

WITHOUT_LABEL = [name for name in COLUMNS if name != "late"]
SERVING = {"environment": "SERVING"}


@pytest.fixture
def unlabelled(source: Source) -> Source:
    for month, table in months().items():
        source.write_csv(f"flights-{month}.csv", table, WITHOUT_LABEL)
    return source


def test_rows_without_a_label_are_one_split_in_their_order(unlabelled: Source) -> None:
    manifest = unlabelled.ingest(**SERVING)
    assert manifest.splits == {"batch": 120}
    table = unlabelled.split("batch")
    assert "late" not in table.column_names
    assert table["id"].to_pylist() == [row["id"] for rows in months().values() for row in rows]
    assert [file.rows for file in manifest.files] == [40, 40, 40]


def test_a_label_that_is_there_changes_nothing(unlabelled: Source, flights: Source) -> None:
    without = unlabelled.ingest(**SERVING)
    rows = unlabelled.split("batch")
    with_label = flights.ingest(**SERVING)
    assert flights.split("batch").equals(rows)
    assert with_label.splits == without.splits


def test_without_a_schema_the_label_is_left_out_too(flights: Source) -> None:
    flights.schema = ""
    flights.ingest(**SERVING)
    assert "late" not in flights.split("batch").column_names


def test_columns_outside_of_the_environment_are_not_read(unlabelled: Source) -> None:
    later = 'feature { name: "arrived" type: INT not_in_environment: "SERVING" }'
    unlabelled.schema = f'default_environment: "TRAINING" default_environment: "SERVING" {SCHEMA} {later}'
    unlabelled.ingest(**SERVING)
    assert "arrived" not in unlabelled.split("batch").column_names


def test_training_still_needs_the_label(unlabelled: Source) -> None:
    with pytest.raises(DataRejectedError, match="'late'"):
        unlabelled.ingest()


def test_the_column_that_divides_is_not_needed(unlabelled: Source) -> None:
    split = {"by": "time", "column": "nowhere", "eval_from": "2025-01-01"}
    assert unlabelled.ingest(**SERVING, split=split).splits == {"batch": 120}


def test_one_row(source: Source) -> None:
    source.write_csv("flights-2013-01.csv", months(1).popitem()[1][:1], WITHOUT_LABEL)
    assert source.ingest(**SERVING).splits == {"batch": 1}


@pytest.mark.parametrize(
    ("break_it", "error", "says"),
    [
        (lambda rows: [], DataRejectedError, "no rows in"),
        (lambda rows: [*rows, rows[0]], DataRejectedError, "data.key id: 1 rows repeat the key of another"),
        (lambda rows: [{**row, "seats": "many"} for row in rows], DataRejectedError, "seats"),
    ],
)
def test_bad_rows(source: Source, break_it, error, says) -> None:  # type: ignore[no-untyped-def]
    source.write_csv("flights-2013-01.csv", break_it(months(1).popitem()[1]), WITHOUT_LABEL)
    with pytest.raises(error, match=says):
        source.ingest(**SERVING, key=["id"])


def test_a_missing_column_and_an_unknown_key(source: Source) -> None:
    rows = months(1).popitem()[1]
    source.write_csv("flights-2013-01.csv", rows, [name for name in WITHOUT_LABEL if name != "carrier"])
    with pytest.raises(DataRejectedError, match=r"1 of . columns missing: 'carrier'"):
        source.ingest(**SERVING)
    with pytest.raises(InputError, match=r"data\.key: column 'idd'"):
        source.ingest(**SERVING, key=["idd"])
