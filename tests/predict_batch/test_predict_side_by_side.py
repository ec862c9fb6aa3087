"""Several models side by side, reasons of the top rows, and the same on Beam."""

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.artifacts import read_manifest
from components.errors import DataRejectedError, InputError, UnavailableError
from components.predict_batch import engine, parts
from components.predict_batch.prediction import predict
from tests.train_model.projects import raw_rows, read_split, trained, write_dataset

KINDS = ("binary", "multiclass", "regression")
IN_PROCESS = ("--runner=DirectRunner", "--direct_running_mode=in_memory")


def predicted(examples: Path, out: Path, kind: str = "binary", **options: Any) -> dict[str, int]:
    options = {"keep_columns": ["id"], "split": "eval"} | options
    return predict(str(examples), str(trained(kind)), predictions=str(out), **options).splits


def many_rows(folder: Path, kind: str, rows: int = 200) -> Path:
    """Two files of several row groups, with rows that are rejected."""
    table = raw_rows(kind, rows)
    trip = [None if row % 17 == 3 else value for row, value in enumerate(table["trip km"].to_pylist())]
    table = table.set_column(table.column_names.index("trip km"), "trip km", pa.array(trip, pa.float32()))
    write_dataset(folder, eval=table)
    for file in (folder / "eval").glob("*.parquet"):
        pq.write_table(pq.ParquetFile(file).read(), file, row_group_size=16)
    return folder


def test_a_challenger_predicts_the_same_rows_in_columns_of_its_own(tmp_path: Path) -> None:
    examples = many_rows(tmp_path / "examples", "binary")
    alone = predicted(examples, tmp_path / "alone")
    both = predicted(examples, tmp_path / "both", challengers={"next": str(trained("binary"))})
    assert alone == both
    table = read_split(tmp_path / "both", "eval")
    assert table.column_names == ["id", "probability", "next_probability"]
    assert table["probability"].equals(table["next_probability"])
    assert table.drop_columns(["next_probability"]).equals(read_split(tmp_path / "alone", "eval"))
    assert (tmp_path / "both" / "challengers" / "next.json").read_bytes() == (
        tmp_path / "both" / "spec.json"
    ).read_bytes()


def test_rows_that_only_a_challenger_refuses_have_nulls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.predict_batch import scoring

    examples = many_rows(tmp_path / "examples", "regression")
    original = scoring.Scorer._ask

    def refuses(self: Any, name: str, batch: Any) -> Any:
        arrays, outputs, reasons = original(self, name, batch)
        if name:
            reasons[::2] = "no"
        return arrays, outputs, reasons

    monkeypatch.setattr(scoring.Scorer, "_ask", refuses)
    challengers = {"next": str(trained("regression")), "many": str(trained("multiclass"))}
    write_dataset(tmp_path / "same", eval=raw_rows("regression", 40))
    predicted(tmp_path / "same", tmp_path / "out", "regression", challengers=challengers)
    table = read_split(tmp_path / "out", "eval")
    assert table["value"].null_count == 0
    for name in ("next_value", "many_probabilities", "many_class"):
        assert table[name].null_count >= 20
    del examples


def test_a_challenger_that_takes_other_columns_is_told(tmp_path: Path) -> None:
    table = raw_rows("binary", 10)
    write_dataset(tmp_path / "examples", eval=table.drop_columns(["amount"]))
    with pytest.raises(DataRejectedError, match="amount"):
        predicted(tmp_path / "examples", tmp_path / "out", challengers={"next": str(trained("binary"))})


def test_a_challengers_column_may_not_be_taken(tmp_path: Path) -> None:
    table = raw_rows("binary", 10).append_column("next_probability", pa.array([1.0] * 10))
    write_dataset(tmp_path / "examples", eval=table)
    with pytest.raises(InputError, match="'next_probability' has the name of an output"):
        predicted(
            tmp_path / "examples", tmp_path / "out", keep_columns=[], challengers={"next": str(trained("binary"))}
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_the_top_rows_are_the_highest_and_have_the_reasons_of_all(tmp_path: Path, kind: str, rows: int) -> None:
    examples = many_rows(tmp_path / "examples", kind, 60)
    everywhere = predicted(examples, tmp_path / "all", kind, reasons=2)
    splits = predicted(examples, tmp_path / "top", kind, reasons=2, top_rows=rows)
    assert splits == {**everywhere, "top": min(rows, everywhere["eval"])}
    whole, top = read_split(tmp_path / "all", "eval"), pq.ParquetFile(tmp_path / "top/top/part-00000.parquet").read()
    assert "reasons" not in read_split(tmp_path / "top", "eval").column_names
    name = {"binary": "probability", "multiclass": "probabilities", "regression": "value"}[kind]
    scores = [max(value) if isinstance(value, list) else value for value in whole[name].to_pylist()]
    wanted = sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:rows]
    reasons = {one["id"]: one for one in whole.to_pylist()}
    for place, row in zip(top.to_pylist(), wanted, strict=True):
        assert place["data"]["id"] == whole["id"][row].as_py()
        part = pq.ParquetFile(tmp_path / "top/eval" / f"part-{place['part']:05d}.parquet").read()
        assert part["id"][place["position"]].as_py() == place["data"]["id"]
        told = [(one["feature"], one["value"]) for one in place["reasons"]]
        assert told == [(one["feature"], one["value"]) for one in reasons[place["data"]["id"]]["reasons"]]


@pytest.mark.parametrize("kind", KINDS)
def test_beam_gives_the_same_rows_the_same_predictions(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_BATCH_ROWS", 16)
    monkeypatch.setattr(engine, "_PART_ROWS", 48)
    examples = many_rows(tmp_path / "examples", kind)
    options: dict[str, Any] = {"reasons": 2, "top_rows": 9, "challengers": {"next": str(trained(kind))}}
    here = predicted(examples, tmp_path / "here", kind, **options)
    beam = predicted(examples, tmp_path / "beam", kind, **options, beam_args=IN_PROCESS)
    assert here == beam
    assert len(list((tmp_path / "beam/eval").iterdir())) > len(list((tmp_path / "here/eval").iterdir()))
    for split in ("eval", "rejected"):
        assert read_split(tmp_path / "beam", split).equals(read_split(tmp_path / "here", split))
    tops = [pq.ParquetFile(tmp_path / f"{place}/top/part-00000.parquet").read() for place in ("here", "beam")]
    assert tops[0].select(["data", "reasons"]).equals(tops[1].select(["data", "reasons"]))
    assert read_manifest(tmp_path / "here").digest == read_manifest(tmp_path / "beam").digest
    assert {path.name for path in (tmp_path / "beam").iterdir()} == {
        path.name for path in (tmp_path / "here").iterdir()
    }


@pytest.mark.parametrize("bucket", ["gcs_bucket", "s3_bucket"])
def test_beams_workers_may_be_reached_through_a_bucket_alone(
    tmp_path: Path, bucket: str, request: pytest.FixtureRequest
) -> None:
    import fsspec

    scratch = str(request.getfixturevalue(bucket))
    examples = many_rows(tmp_path / "examples", "binary")
    here = predicted(examples, tmp_path / "here")
    beam = predicted(examples, tmp_path / "beam", beam_args=IN_PROCESS, scratch=f"{scratch}/scratch")
    assert here == beam
    assert read_split(tmp_path / "beam", "eval").equals(read_split(tmp_path / "here", "eval"))
    fs, path = fsspec.core.url_to_fs(scratch, use_listings_cache=False)
    assert not fs.find(path), "the scratch is removed"


def test_faults_of_beam_are_one_line(tmp_path: Path) -> None:
    examples = many_rows(tmp_path / "examples", "binary")
    with pytest.raises(InputError, match="invalid int value: 'many'"):
        predicted(examples, tmp_path / "out", beam_args=["--direct_num_workers=many"])
    with pytest.raises(InputError, match="set top_rows"):
        predicted(examples, tmp_path / "out", beam_args=IN_PROCESS, reasons=1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"--job_endpoint=127.0.0.1:{closed.getsockname()[1]}"
        options = ["--runner=PortableRunner", endpoint, "--job_server_timeout=1", "--environment_type=LOOPBACK"]
        with pytest.raises(UnavailableError, match="does not answer"):
            predicted(examples, tmp_path / "out", beam_args=options)
    assert not (tmp_path / "out").exists()


def test_scores_are_ordered_where_they_are_equal(tmp_path: Path) -> None:
    from components.predict_batch.top import highest

    table = pa.table({"score": np.zeros(20, np.float32), "part": np.arange(20) % 3, "position": np.arange(20)[::-1]})
    assert highest(table, 4).to_pylist()[0] == {"score": 0.0, "part": 0, "position": 1}
