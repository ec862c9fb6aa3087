"""Batch prediction with really trained models."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from components.artifacts import MODEL_VERSION, read_manifest
from components.golden import compare, read_golden
from components.model_spec import read_spec
from components.predict_batch import parts
from components.predict_batch.prediction import predict
from components.rows import MISSING_INTEGER
from components.serving_model import ServingModel
from tests.train_model.projects import arrays_of, project, raw_rows, read_split, trained, write_dataset

KINDS = ("binary", "multiclass", "regression", "anomaly_detection", "clustering")


def replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_those_of_the_served_model(kind: str, tmp_path: Path) -> None:
    manifest = predict(str(project(kind).examples), str(trained(kind)), "eval", ["id", "label"], str(tmp_path / "out"))
    assert manifest.splits == {"eval": 300, "rejected": 0}
    assert read_manifest(tmp_path / "out") == manifest

    given, written = read_split(project(kind).examples, "eval"), read_split(tmp_path / "out", "eval")
    outputs = ServingModel(trained(kind)).predict(arrays_of(given, kind))
    assert written.column_names == ["id", "label", *outputs]
    assert written.select(["id", "label"]).equals(given.select(["id", "label"]))
    for name, values in outputs.items():
        if name in ("class", "cluster"):
            assert written[name].to_pylist() == [value.decode() for value in values]
        else:
            np.testing.assert_allclose(np.array(written[name].to_pylist(), np.float32), values, rtol=1e-5, atol=1e-6)
    assert read_spec(tmp_path / "out") == read_spec(trained(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_golden_tensors_are_what_the_signature_takes(kind: str, tmp_path: Path) -> None:
    predict(str(project(kind).examples), str(trained(kind)), "eval", [], str(tmp_path / "out"))
    golden = read_golden(tmp_path / "out", 60)
    assert any(value is None for row in golden.instances for value in row.values())
    signature = tf.saved_model.load(str(trained(kind) / MODEL_VERSION)).signatures["serving_default"]
    inputs = signature.structured_input_signature[1]
    rows = json.loads(json.dumps(golden.tensors))
    answer = signature(**{name: tf.constant([row[name] for row in rows], inputs[name].dtype) for name in inputs})
    columns = {name: values.numpy().tolist() for name, values in answer.items()}
    given = [
        {name: value.decode() if isinstance(value, bytes) else value for name, value in zip(columns, row, strict=True)}
        for row in zip(*columns.values(), strict=True)
    ]
    assert compare(golden, {"predictions": given}, 1e-5, {}).cause == ""


@pytest.mark.parametrize("rows", [0, 1, 300])
@pytest.mark.parametrize("kind", KINDS)
def test_the_served_model_answers_as_its_signature(kind: str, rows: int) -> None:
    arrays = {
        name: values[:rows] for name, values in arrays_of(read_split(project(kind).examples, "eval"), kind).items()
    }
    served = ServingModel(trained(kind))
    signature = tf.saved_model.load(str(trained(kind) / "1")).signatures["serving_default"]
    wanted = signature(**{i.tensor: tf.constant(arrays[i.name], tf.as_dtype(i.dtype)) for i in served.spec.inputs})
    given = served.predict(arrays)
    assert list(given) == [output.name for output in served.spec.outputs]
    for name, values in given.items():
        np.testing.assert_array_equal(values, wanted[name].numpy())


def test_no_kept_columns_means_all(tmp_path: Path) -> None:
    predict(str(project("binary").examples), str(trained("binary")), "eval", [], str(tmp_path / "out"))
    assert read_split(tmp_path / "out", "eval").column_names == [*raw_rows("binary", 1).column_names, "probability"]


def test_without_a_model_predictions_are_empty_but_valid(tmp_path: Path) -> None:
    command = (
        "import sys; from components.predict_batch.prediction import predict\n"
        "predict(sys.argv[1], '', 'eval', [], sys.argv[2]); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", command, project("binary").examples, tmp_path / "out"], check=True)
    assert read_manifest(tmp_path / "out").splits == {"eval": 0, "rejected": 0}
    assert not list((tmp_path / "out").glob("**/*.parquet"))


def test_rows_that_cannot_be_predicted_are_put_aside(tmp_path: Path) -> None:
    table = raw_rows("binary", 40)
    trip, amount = table["trip km"].to_pylist(), table["amount"].to_pylist()
    visits = [str(value) if value is not None else None for value in table["visits"].to_pylist()]
    trip[3], amount[5], visits[8], visits[39], amount[11] = None, float("inf"), "many", "", 1e300
    table = replaced(table, "trip km", pa.array(trip, pa.float32()))
    table = replaced(table, "amount", pa.array(amount, pa.float64()))
    table = replaced(table, "visits", pa.array(visits, pa.string()))
    write_dataset(tmp_path / "examples", eval=table)

    manifest = predict(str(tmp_path / "examples"), str(trained("binary")), "eval", ["id"], str(tmp_path / "out"))
    assert manifest.splits == {"eval": 35, "rejected": 5}
    rejected = read_split(tmp_path / "out", "rejected")
    assert dict(zip(rejected["id"].to_pylist(), rejected["reason"].to_pylist(), strict=True)) == {
        "row-3": "trip km is missing",
        "row-5": "amount is infinite",
        "row-8": "visits cannot be int64: many",
        "row-11": "amount cannot be float: 1e+300",
        "row-39": "visits cannot be int64: ",
    }
    assert rejected["visits"].to_pylist()[2] == "many"
    assert rejected["row"].to_pylist() == [3, 5, 8, 11, 39]
    good = read_split(tmp_path / "out", "eval")
    assert good["id"].to_pylist() == [f"row-{index}" for index in range(40) if index not in (3, 5, 8, 11, 39)]


def test_the_integer_that_stands_for_missing_is_no_value(tmp_path: Path) -> None:
    table = replaced(raw_rows("binary", 4), "visits", pa.array([1, int(MISSING_INTEGER), None, 2], pa.int64()))
    write_dataset(tmp_path / "examples", eval=table)
    predict(str(tmp_path / "examples"), str(trained("binary")), "eval", ["id"], str(tmp_path / "out"))
    assert read_split(tmp_path / "out", "rejected")["id"].to_pylist() == ["row-1"]


def test_every_row_may_be_rejected(tmp_path: Path) -> None:
    table = replaced(raw_rows("binary", 6), "trip km", pa.nulls(6, pa.float32()))
    write_dataset(tmp_path / "examples", eval=table)
    manifest = predict(str(tmp_path / "examples"), str(trained("binary")), "eval", ["id"], str(tmp_path / "out"))
    assert manifest.splits == {"eval": 0, "rejected": 6}
    assert read_split(tmp_path / "out", "eval").num_rows == 0


def test_raw_columns_named_reason_and_row_do_not_hide_ours(tmp_path: Path) -> None:
    table = replaced(raw_rows("binary", 6), "trip km", pa.nulls(6, pa.float32()))
    table = table.append_column("reason", pa.array(["raw"] * 6)).append_column("row", pa.array([9] * 6))
    write_dataset(tmp_path / "examples", eval=table)
    predict(str(tmp_path / "examples"), str(trained("binary")), "eval", [], str(tmp_path / "out"))
    rejected = read_split(tmp_path / "out", "rejected")
    assert set(rejected["reason"].to_pylist()) == {"trip km is missing"}
    assert rejected["row"].to_pylist() == list(range(6))


def test_batches_do_not_show_in_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trip = [None if row in (0, 8, 49) else 1.0 for row in range(50)]
    table = replaced(raw_rows("multiclass", 50), "trip km", pa.array(trip, pa.float32()))
    write_dataset(tmp_path / "examples", eval=table)
    results = []
    for size in (7, 50):
        monkeypatch.setattr(parts, "_BATCH_ROWS", size)
        out = tmp_path / f"out{size}"
        manifest = predict(str(tmp_path / "examples"), str(trained("multiclass")), "eval", ["id"], str(out))
        results.append((manifest, read_split(out, "eval"), read_split(out, "rejected")))
    assert results[0][0] == results[1][0]
    assert results[0][1].select(["id", "class"]).equals(results[1][1].select(["id", "class"]))
    assert results[0][2].equals(results[1][2])
    assert results[0][2]["row"].to_pylist() == [0, 8, 49]


def test_strings_may_be_dictionaries_and_columns_in_any_order(tmp_path: Path) -> None:
    table = read_split(project("binary").examples, "eval")
    shuffled = replaced(table, "colour", table["colour"].combine_chunks().dictionary_encode())
    write_dataset(tmp_path / "examples", eval=shuffled.select(sorted(table.column_names, reverse=True)))
    predict(str(tmp_path / "examples"), str(trained("binary")), "eval", ["id"], str(tmp_path / "one"))
    predict(str(project("binary").examples), str(trained("binary")), "eval", ["id"], str(tmp_path / "two"))
    assert read_split(tmp_path / "one", "eval").equals(read_split(tmp_path / "two", "eval"))


@pytest.mark.parametrize("bucket", ["gcs_bucket", "s3_bucket"])
def test_a_published_version_is_fetched(bucket: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    version = f"{request.getfixturevalue(bucket)}/models/flights/versions/v0001-12345678"
    fs, path = fsspec.core.url_to_fs(version)
    fs.put(f"{trained('binary')}/", f"{path}/model/", recursive=True)
    there = predict(str(project("binary").examples), version, "eval", ["id"], str(tmp_path / "there"))
    here = predict(str(project("binary").examples), str(trained("binary")), "eval", ["id"], str(tmp_path / "here"))
    assert there == here
    assert read_split(tmp_path / "there", "eval").equals(read_split(tmp_path / "here", "eval"))


def test_a_published_version_may_be_local(tmp_path: Path) -> None:
    shutil.copytree(trained("binary"), tmp_path / "v0001" / "model")
    for uri in (str(tmp_path / "v0001"), f"file://{tmp_path}/v0001"):
        manifest = predict(str(project("binary").examples), uri, "eval", ["id"], str(tmp_path / "out"))
        assert manifest.splits["eval"] == 300


def test_the_digest_names_rows_model_and_columns(tmp_path: Path) -> None:
    digests = {
        predict(str(project(kind).examples), str(trained(kind)), split, keep, str(tmp_path / "out")).digest
        for kind, split, keep in (
            ("binary", "eval", ["id"]),
            ("binary", "eval", ["id", "label"]),
            ("regression", "eval", ["id"]),
            ("binary", "train", ["id"]),
        )
    }
    assert len(digests) == 4


def test_a_rerun_replaces_what_a_killed_one_left(tmp_path: Path) -> None:
    partial = tmp_path / ".out.partial"
    (partial / "eval").mkdir(parents=True)
    (partial / "eval" / "part-00007.parquet").write_bytes(b"PAR1 torn")
    predict(str(project("binary").examples), str(trained("binary")), "eval", ["id"], str(tmp_path / "out"))
    assert read_split(tmp_path / "out", "eval").num_rows == 300
    assert not partial.exists()
    assert [part.name for part in sorted((tmp_path / "out" / "eval").iterdir())] == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]


def test_progress_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predict(str(project("binary").examples), str(trained("binary")), "eval", ["id"], str(tmp_path / "out"))
    assert re.fullmatch(r"predict_batch: eval: 300 rows predicted, 0 rejected\n", capsys.readouterr().out)
    assert pq.read_schema(tmp_path / "out" / "eval" / "part-00000.parquet").field("probability").type == pa.float32()
