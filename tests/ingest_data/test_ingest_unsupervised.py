"""Ingesting for tasks that learn from no label."""

from typing import Any

import pytest

from components.errors import DataRejectedError
from tests.ingest_data.source import Source, months


def write(source: Source, late: Any) -> Source:
    for span, rows in months().items():
        source.write_csv(f"flights-{span}.csv", [{**row, "late": late(row)} for row in rows])
    return source


@pytest.mark.parametrize("task", ["anomaly_detection", "clustering"])
def test_no_label_is_needed(flights: Source, task: str) -> None:
    manifest = flights.ingest({"type": task, "label": None})
    assert sum(manifest.splits.values()) == 120


@pytest.mark.parametrize("task", ["anomaly_detection", "clustering"])
def test_the_train_split_may_lack_labels_and_the_eval_split_may_not(source: Source, task: str) -> None:
    by_time = {"split": {"by": "time", "column": "departs", "eval_from": "2013-03-01"}}
    write(source, lambda row: None if row["id"] < 3000 else row["id"] % 2)
    assert source.ingest({"type": task}, **by_time).splits["train"] == 80
    with pytest.raises(DataRejectedError, match=r"missing in every row of split 'eval'; .* or leave task.label out"):
        write(source, lambda row: None).ingest({"type": task}, **by_time)


def test_only_usual_rows_to_learn_from_are_taken(source: Source) -> None:
    assert write(source, lambda row: 0).ingest({"type": "anomaly_detection"}).splits["train"]


def test_an_anomaly_has_one_opposite(source: Source) -> None:
    write(source, lambda row: row["id"] % 3)
    with pytest.raises(DataRejectedError, match=r"more than two values in split 'eval'.*; fix the label$"):
        source.ingest({"type": "anomaly_detection"})
    assert source.ingest({"type": "clustering"}).splits["eval"]
