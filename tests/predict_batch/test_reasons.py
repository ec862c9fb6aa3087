"""Reason codes beside predictions, of really trained models."""

import asyncio
import math
import shutil
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from tensorflow_metadata.proto.v0 import statistics_pb2

from components import reasons
from components.artifacts import read_manifest
from components.errors import InputError
from components.predict_batch.prediction import predict
from components.predictor.explanation import Explainer
from components.reasons import Reasoner, typical_of_rows, typical_of_statistics
from components.rows import Arrays
from components.serving_model import ServingModel
from components.shapley import Sample
from tests.train_model.projects import arrays_of, project, raw_rows, read_split, trained, write_dataset

KINDS = ("binary", "multiclass", "regression", "anomaly_detection", "clustering")
TYPICAL = {"trip km": 4.0, "amount": 95.5, "colour": "green"}  # visits: no typical value, so missing


def predicted(kind: str, output: Path, most: int, model: Path | None = None) -> list[dict[str, Any]]:
    predict(str(project(kind).examples), str(model or trained(kind)), "eval", ["id"], str(output), most)
    rows: list[dict[str, Any]] = read_split(output, "eval").to_pylist()
    return rows


def value_of(row: dict[str, Any]) -> float:
    several = min(row["distances"]) if "distances" in row else max(row.get("probabilities", [0]))
    return float(row.get("probability", row.get("value", row.get("anomaly_score", several))))


def total(row: dict[str, Any]) -> float:
    return sum(one["contribution"] for one in row["reasons"])


def published(kind: str, folder: Path) -> Path:
    """A version with statistics of its training data."""
    shutil.copytree(trained(kind), folder / "v0001" / "model")
    statistics = statistics_pb2.DatasetFeatureStatisticsList()
    dataset = statistics.datasets.add()
    for name, value in TYPICAL.items():
        feature = dataset.features.add()
        feature.path.step.append(name)
        if isinstance(value, float):
            feature.num_stats.median = value
        else:
            feature.string_stats.top_values.add().value = str(value)
    (folder / "v0001" / "statistics").mkdir()
    (folder / "v0001" / "statistics" / "train.pb").write_bytes(statistics.SerializeToString())
    return folder / "v0001"


@pytest.mark.parametrize("kind", KINDS)
def test_all_reasons_lead_from_the_typical_row_to_the_prediction(kind: str, tmp_path: Path) -> None:
    rows = predicted(kind, tmp_path / "out", 4)
    model = ServingModel(trained(kind))
    train = arrays_of(read_split(project(kind).examples, "train"), kind)
    reference = typical_of_rows(train, model.spec.inputs)
    assert reference["colour"][0] in (b"red", b"green", "grün".encode())
    assert reference["visits"][0] == np.quantile(train["visits"][train["visits"] >= 0], 0.5)
    start = {name: values[0] for name, values in model.predict(reference).items()}
    for row in rows:
        of_class = start.get("probability", start.get("value", start.get("anomaly_score")))
        if kind == "multiclass":
            of_class = start["probabilities"][model.spec.label.classes.index(row["class"])]
        if kind == "clustering":
            of_class = start["distances"][int(row["cluster"])]
        assert of_class is not None
        assert math.isclose(of_class + total(row), value_of(row), rel_tol=1e-4, abs_tol=1e-5)
        sizes = [abs(one["contribution"]) for one in row["reasons"]]
        assert sizes == sorted(sizes, reverse=True)
        assert {one["feature"] for one in row["reasons"]} == {"amount", "trip km", "visits", "colour"}


def test_fewer_reasons_are_the_largest_of_all(tmp_path: Path) -> None:
    all_of_them, two = predicted("binary", tmp_path / "all", 99), predicted("binary", tmp_path / "two", 2)
    assert [row["reasons"][:2] for row in all_of_them] == [row["reasons"] for row in two]
    assert {len(row["reasons"]) for row in all_of_them} == {4}


def test_predictions_are_the_same_with_reasons(tmp_path: Path) -> None:
    predicted("multiclass", tmp_path / "with", 2)
    predicted("multiclass", tmp_path / "without", 0)
    with_reasons, without = read_split(tmp_path / "with", "eval"), read_split(tmp_path / "without", "eval")
    assert with_reasons.drop_columns(["reasons"]).equals(without)
    digests = {read_manifest(tmp_path / name).digest for name in ("with", "without")}
    assert len(digests) == 2


def test_values_are_the_row_s_own(tmp_path: Path) -> None:
    raw = read_split(project("binary").examples, "eval").to_pylist()
    for given, row in zip(raw, predicted("binary", tmp_path / "out", 4), strict=True):
        for one in row["reasons"]:
            value = given[one["feature"]]
            if value is None or isinstance(value, str):
                assert one["value"] == value
            else:
                assert float(one["value"]) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_reasons_are_those_of_the_model_server(kind: str, tmp_path: Path) -> None:
    version = published(kind, tmp_path)
    rows = predicted(kind, tmp_path / "out", 4, version)
    model = ServingModel(trained(kind))
    reference = typical_of_statistics(version / "model", model.spec.inputs)
    assert reference is not None
    assert math.isnan(reference["amount"][0]) is False
    assert reference["visits"][0] == np.iinfo(np.int64).min

    async def served(arrays: Arrays, _: int) -> Arrays:
        return model.predict(arrays)

    explainer = Explainer(model.spec, reference, served, 64, 1024)
    arrays = arrays_of(read_split(project(kind).examples, "eval"), kind)
    for index in range(0, 300, 20):
        wanted = asyncio.run(explainer.explain(arrays, index)).contributions
        got = {one["feature"]: one["contribution"] for one in rows[index]["reasons"]}
        assert got == pytest.approx(wanted, rel=1e-3, abs=1e-3 if kind == "regression" else 1e-6)


def test_the_typical_row_has_no_reasons(tmp_path: Path) -> None:
    table = raw_rows("binary", 3)
    for name, value in (TYPICAL | {"visits": None}).items():
        kind = table.schema.field(name).type
        table = table.set_column(table.column_names.index(name), name, pa.array([value] * 3, kind))
    write_dataset(tmp_path / "examples", eval=table)
    version = published("binary", tmp_path)
    predict(str(tmp_path / "examples"), str(version), "eval", ["id"], str(tmp_path / "out"), 4)
    for row in read_split(tmp_path / "out", "eval").to_pylist():
        assert {one["contribution"] for one in row["reasons"]} == {0.0}
        assert {one["value"] for one in row["reasons"] if one["feature"] == "visits"} == {None}


@pytest.mark.parametrize("bucket", ["gcs_bucket", "s3_bucket"])
def test_statistics_are_fetched_with_the_model(bucket: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    version = f"{request.getfixturevalue(bucket)}/models/flights/versions/v0001-87654321"
    fs, path = fsspec.core.url_to_fs(version)
    fs.put(f"{published('binary', tmp_path)}/", f"{path}/", recursive=True)
    examples = str(project("binary").examples)
    predict(examples, version, "eval", ["id"], str(tmp_path / "there"), 3)
    predict(examples, str(tmp_path / "v0001"), "eval", ["id"], str(tmp_path / "here"), 3)
    assert read_split(tmp_path / "there", "eval").equals(read_split(tmp_path / "here", "eval"))


def test_without_a_train_split_rows_are_told_against_their_own(tmp_path: Path) -> None:
    write_dataset(tmp_path / "examples", new=raw_rows("binary", 50))
    predict(str(tmp_path / "examples"), str(trained("binary")), "new", ["id"], str(tmp_path / "out"), 1)
    assert any(row["reasons"][0]["contribution"] for row in read_split(tmp_path / "out", "new").to_pylist())


def test_rejected_rows_and_missing_columns_do_not_confuse_rows(tmp_path: Path) -> None:
    table = raw_rows("binary", 50)
    trip = [None if row in (0, 8, 49) else value for row, value in enumerate(table["trip km"].to_pylist())]
    table = table.set_column(2, "trip km", pa.array(trip, pa.float32()))
    table = table.set_column(1, "amount", pa.nulls(50, pa.float32()))
    write_dataset(tmp_path / "examples", eval=table)
    manifest = predict(str(tmp_path / "examples"), str(trained("binary")), "eval", [], str(tmp_path / "out"), 4)
    assert manifest.splits == {"eval": 47, "rejected": 3}
    for row in read_split(tmp_path / "out", "eval").to_pylist():
        shown = {one["feature"]: one for one in row["reasons"]}
        assert float(shown["trip km"]["value"]) == pytest.approx(row["trip km"], rel=1e-6)
        assert shown["amount"] == {"feature": "amount", "value": None, "contribution": 0.0}


def test_batches_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = predicted("multiclass", tmp_path / "whole", 4)
    monkeypatch.setattr(reasons, "_MOST_CELLS", 500)
    for one, other in zip(whole, predicted("multiclass", tmp_path / "parts", 4), strict=True):
        shares = [{r["feature"]: r["contribution"] for r in row["reasons"]} for row in (one, other)]
        assert shares[0] == pytest.approx(shares[1], abs=1e-6)


def test_many_features_are_sampled_and_add_up() -> None:
    names = [f"f{index}" for index in range(30)]
    spec = ServingModel(trained("regression")).spec
    inputs = [spec.inputs[0].model_copy(update={"name": name, "dtype": "float32"}) for name in names]
    asked: list[int] = []

    def model(rows: Arrays) -> Arrays:
        asked.append(len(rows["f0"]))
        return {"value": np.tanh(sum(rows[name] * (index + 1) for index, name in enumerate(names))).astype("float32")}

    generator = np.random.default_rng(3)
    rows = {name: generator.normal(size=20).astype("float32") for name in names}
    reference = {name: np.zeros(1, "float32") for name in names}
    reasoner = Reasoner(spec.model_copy(update={"inputs": inputs}), model, reference, 30)
    found = reasoner.reasons(rows).to_pylist()
    assert isinstance(reasoner._game, Sample)
    assert sum(asked) == 20 * len(reasoner._game.coalitions) <= 20 * 140
    for row, value in zip(found, model(rows)["value"], strict=True):
        assert sum(one["contribution"] for one in row) == pytest.approx(value, abs=1e-6)


def test_a_mix_without_a_finite_prediction_has_no_reasons() -> None:
    spec = ServingModel(trained("regression")).spec
    inputs = [spec.inputs[0].model_copy(update={"name": name, "dtype": "float32"}) for name in "ab"]

    def model(rows: Arrays) -> Arrays:
        with np.errstate(invalid="ignore"):
            return {"value": np.sqrt(rows["a"] + rows["b"])}

    rows = {"a": np.array([-1, 4], "float32"), "b": np.array([9, 5], "float32")}
    reference = {"a": np.zeros(1, "float32"), "b": np.zeros(1, "float32")}
    found = Reasoner(spec.model_copy(update={"inputs": inputs}), model, reference, 1).reasons(rows).to_pylist()
    assert found[0] is None
    assert [one["feature"] for one in found[1]] == ["b"]


@pytest.mark.parametrize(
    ("most", "keep", "says"), [(-1, ["id"], "reasons is -1"), (1, [], "'reasons' has the name of an output")]
)
def test_what_cannot_be_is_refused(most: int, keep: list[str], says: str, tmp_path: Path) -> None:
    table = raw_rows("binary", 5).append_column("reasons", pa.array(["theirs"] * 5))
    write_dataset(tmp_path / "examples", eval=table)
    with pytest.raises(InputError, match=says):
        predict(str(tmp_path / "examples"), str(trained("binary")), "eval", keep, str(tmp_path / "out"), most)
    predict(str(tmp_path / "examples"), str(trained("binary")), "eval", [], str(tmp_path / "out"), 0)
    assert read_split(tmp_path / "out", "eval")["reasons"].to_pylist() == ["theirs"] * 5
