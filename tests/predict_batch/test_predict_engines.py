"""Batch prediction on engines of their own. Needs: what tests/engines.py needs; what is not there is skipped."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.predict_batch import engine, parts
from tests.engines import ENGINES, running
from tests.predict_batch.test_predict_side_by_side import many_rows, predicted
from tests.train_model.projects import read_split, trained


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_gives_the_same_rows_the_same_predictions(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_BATCH_ROWS", 16)
    monkeypatch.setattr(engine, "_PART_ROWS", 48)
    with running(name, tmp_path) as beam_args:
        examples = many_rows(tmp_path / "examples", "binary", 400)
        options: dict[str, Any] = {"reasons": 2, "top_rows": 9, "challengers": {"next": str(trained("binary"))}}
        here = predicted(examples, tmp_path / "here", **options)
        there = predicted(examples, tmp_path / "there", **options, beam_args=beam_args)
    assert here == there
    for split in ("eval", "rejected"):
        assert read_split(tmp_path / "there", split).equals(read_split(tmp_path / "here", split))
    tops = [pq.ParquetFile(tmp_path / f"{place}/top/part-00000.parquet").read() for place in ("here", "there")]
    assert tops[0].select(["data", "reasons"]).equals(tops[1].select(["data", "reasons"]))
