"""What the server leaves behind: metrics and the request log."""

import base64
import contextlib
import io
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as oip
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from tensorflow.core.example import example_pb2

from components.predictor.request_log import LogOptions, RequestLog
from components.predictor.served_model import read_facts
from components.typical_row import arrays_of
from tests.predictor import running
from tests.predictor.running import RunningServer, wait_for

ROW = {"trip km": 2.5, "amount": 100.0, "visits": 3, "colour": "red"}


def test_metrics_count_requests_rows_and_values(models: Path) -> None:
    with running.serving(models / "binary") as server:
        server.rows([ROW, ROW | {"colour": "Bitcoin"}, {"trip km": 1}])
        server.rows([{}])
        server.columns(inputs=[{"name": "trip km", "shape": [2], "datatype": "FP32", "data": [1, 2]}])
        server.client.get("/v1/models/toy")
        wait_for(lambda: server.metrics()["lockgate_predictions_count"] == 5)
        samples = server.metrics()
    assert samples['lockgate_requests_total{code="200",protocol="v1"}'] == 1
    assert samples['lockgate_requests_total{code="400",protocol="v1"}'] == 1
    assert samples['lockgate_requests_total{code="200",protocol="v2"}'] == 1
    assert samples['lockgate_rows_total{protocol="v1"}'] == 3
    assert samples['lockgate_rows_total{protocol="v2"}'] == 2
    assert samples['lockgate_missing_values_total{feature="amount"}'] == 3
    assert samples['lockgate_out_of_vocabulary_total{feature="colour"}'] == 1
    assert samples[f'lockgate_model{{digest="{digest(models)}",name="toy",version="v0001-0123abcd"}}'] == 1
    assert (
        samples['lockgate_predicted_classes_total{name="0"}'] + samples['lockgate_predicted_classes_total{name="1"}']
        == 5
    )
    for phase in ("decode", "queue", "predict", "encode"):
        assert samples[f'lockgate_request_seconds_count{{phase="{phase}",protocol="v1"}}'] == 1
        assert 0 < samples[f'lockgate_request_seconds_sum{{phase="{phase}",protocol="v1"}}'] < 5


def test_the_log_holds_what_was_asked_and_answered(models: Path, tmp_path: Path) -> None:
    with running.serving(models / "binary", log_uri=tmp_path / "log") as server:
        given = server.rows([ROW, {"trip km": 1}], headers={"x-request-id": "mine"}).json()["predictions"]
        server.columns(inputs=[{"name": "trip km", "shape": [1], "datatype": "FP32", "data": [1]}])
        server.rows([{}])
        assert server.stop() == 0  # writes what waits
    table = read_log(str(tmp_path / "log"))
    assert table.column_names == [
        *("request_time", "request_id", "request_row", "model_name", "model_version", "id"),
        *("amount", "visits", "trip km", "colour", "probability", "label"),
    ]
    rows = table.to_pylist()
    assert [row["request_id"] for row in rows[:2]] == ["mine", "mine"]
    assert len(rows[2]["request_id"]) == 16
    assert [row["request_row"] for row in rows] == [0, 1, 0]
    assert {name: rows[0][name] for name in ROW} == ROW
    assert (rows[1]["amount"], rows[1]["visits"], rows[1]["colour"]) == (None, None, None)
    assert [row["label"] for row in rows[:2]] == [prediction["label"] for prediction in given]
    assert pa.scalar(rows[0]["probability"], pa.float32()) == pa.scalar(given[0]["probability"], pa.float32())
    assert {row["model_version"] for row in rows} == {"v0001-0123abcd"}
    assert table.schema.field("request_time").type == pa.timestamp("us", "UTC")
    assert len(rows) == 3


def test_keys_come_in_every_protocol_and_go_to_the_log_only(models: Path, tmp_path: Path) -> None:
    tensor = {"name": "trip km", "shape": [2], "datatype": "FP32", "data": [1, 2]}
    key: dict[str, Any] = {"name": "id", "shape": [2], "datatype": "INT64", "data": [8, 9]}
    example = example_pb2.Example()
    example.features.feature["trip km"].float_list.value.append(1.0)
    plain = base64.b64encode(example.SerializeToString()).decode()
    example.features.feature["id"].bytes_list.value.append(b"e")
    keyed = base64.b64encode(example.SerializeToString()).decode()
    with running.serving(models / "binary", log_uri=tmp_path / "log") as server:
        bare = server.rows([{"trip km": 1}]).json()
        assert server.rows([{"trip km": 1, "id": "a"}]).json() == bare
        assert server.rows([{"trip km": 1, "id": 7}, {"trip km": 1, "id": None}, {"trip km": 1}]).status_code == 200
        assert server.columns(inputs=[tensor, key]).status_code == 200
        assert server.rows([{"b64": keyed}]).json() == server.rows([{"b64": plain}]).json() == bare
        explained = server.client.post("/v1/models/toy:explain", json={"instances": [{"trip km": 1, "id": "a"}]})
        assert "id" not in explained.json()["explanations"][0]["contributions"]
        assert "row 0, feature 'id': 1.5 is a number" in server.rows([{"trip km": 1, "id": 1.5}]).json()["error"]
        wrong = server.columns(inputs=[tensor, key | {"datatype": "FP32"}])
        assert "key 'id' has the datatype 'FP32'; give BYTES or INT64" in wrong.json()["error"]
        request = oip.ModelInferRequest(model_name="toy")
        request.inputs.add(name="trip km", datatype="FP32", shape=[1]).contents.fp32_contents.append(1)
        request.inputs.add(name="id", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"g")
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            GRPCInferenceServiceStub(channel).ModelInfer(request)
        server.stop()
    assert read_log(str(tmp_path / "log"))["id"].to_pylist() == [None, "a", "7", None, None, "8", "9", "e", None, "g"]


@pytest.mark.parametrize("options", [{}, {"log_file_rows": 7}, {"log_sample": 0.5}])
def test_requests_that_were_predicted_together_are_logged_each_as_it_was(
    models: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    def ask(number: int) -> list[float]:
        rows = [{"trip km": number + part / 4, "id": f"{number}-{part}"} for part in range(number % 4 + 1)]
        answer = server.rows(rows, headers={"x-request-id": str(number)})
        return [prediction["probability"] for prediction in answer.json()["predictions"]]

    with running.serving(models / "binary", log_uri=tmp_path / "log", **options) as server:
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, range(120)))
        assert server.stop() == 0
    logged = read_log(str(tmp_path / "log")).to_pylist()
    expected = {
        (str(number), part): (f"{number}-{part}", number + part / 4, pa.scalar(one, pa.float32()).as_py())
        for number, given in enumerate(answers)
        for part, one in enumerate(given)
    }
    found = {(row["request_id"], row["request_row"]): (row["id"], row["trip km"], row["probability"]) for row in logged}
    assert len(found) == len(logged)
    assert found.items() <= expected.items()
    # A sample takes whole requests.
    asked = {number for number, _ in found}
    assert found.keys() == {place for place in expected if place[0] in asked}
    assert options.get("log_sample") or len(asked) == len(answers)


def test_the_log_leaves_out_what_is_personal(models: Path, tmp_path: Path) -> None:
    version = tmp_path / "version"
    shutil.copytree(models / "binary", version)
    schema = version / "schema.pbtxt"
    personal = schema.read_text().replace('name: "amount"', 'name: "amount" annotation { tag: "PII" }')
    schema.write_text(personal)
    with running.serving(version, log_uri=tmp_path / "log", redact="visits") as server:
        server.rows([ROW])
        server.stop()
    names = read_log(str(tmp_path / "log")).column_names
    assert "trip km" in names
    assert not {"amount", "visits"} & set(names)


def test_the_log_takes_a_sample(models: Path, tmp_path: Path) -> None:
    with running.serving(models / "binary", log_uri=tmp_path / "log", log_sample=0.2) as server:
        for _ in range(200):
            server.rows([ROW])
        server.stop()
    assert 10 < read_log(str(tmp_path / "log")).num_rows < 80


def test_the_log_is_written_meanwhile_and_files_appear_whole(models: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running.serving(models / "binary", log_uri=log, log_file_rows=10, log_seconds=0.5) as server:
        for _ in range(5):
            server.rows([ROW] * 10)
        server.rows([ROW])
        wait_for(lambda: server.metrics().get('lockgate_request_log_rows_total{result="written"}') == 51)
        assert read_log(str(log)).num_rows == 51
    assert not list(log.rglob("*.partial"))


@pytest.mark.parametrize("kind", ["gcs_bucket", "s3_bucket"])
def test_the_log_goes_to_buckets(models: Path, kind: str, request: pytest.FixtureRequest) -> None:
    uri = f"{request.getfixturevalue(kind)}/logs/toy"
    with running.serving(models / "binary", log_uri=uri) as server:
        server.rows([ROW] * 3)
        assert server.stop() == 0
    assert read_log(uri).num_rows == 3


def test_a_storage_that_fails_is_waited_for_and_never_felt(models: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "log"
    blocked.write_text("a file where the folder should be")
    settings: dict[str, Any] = {"log_file_rows": 5, "log_buffer_rows": 20, "log_seconds": 0.2}
    with running.serving(models / "binary", log_uri=blocked, **settings) as server:
        for _ in range(30):
            assert server.rows([ROW]).status_code == 200
        wait_for(lambda: server.metrics().get("lockgate_request_log_failures_total", 0) >= 1)
        assert server.metrics()['lockgate_request_log_rows_total{result="dropped"}'] == 10
        blocked.unlink()  # it recovers
        wait_for(lambda: server.metrics().get('lockgate_request_log_rows_total{result="written"}') == 20)
        assert read_log(str(blocked)).num_rows == 20
        assert server.stop() == 0


def test_a_storage_that_never_answers_does_not_hold_up_the_end(models: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "log"
    blocked.write_text("a file where the folder should be")
    with running.serving(models / "binary", log_uri=blocked, grace_seconds=2) as server:
        server.rows([ROW] * 7)
        assert server.stop() == 0
        assert "7 rows could not be written" in server.log()


def test_rows_that_were_gathered_bit_by_bit_come_into_files_in_their_order(models: Path, tmp_path: Path) -> None:
    with logging(models, tmp_path, file_rows=700) as (add, told):
        for number in range(2000):
            add(number)
            if number % 100 == 0:
                time.sleep(0.01)
    files = sorted(tmp_path.rglob("*.parquet"))
    assert [700 <= pq.read_metadata(file).num_rows < 1400 for file in files[:-1]] == [True] * (len(files) - 1)
    assert read_log(str(tmp_path))["request_id"].to_pylist() == [str(number) for number in range(2000)]
    assert told == {"written": 2000}


def test_rows_that_cannot_be_written_are_dropped_and_the_log_goes_on(models: Path, tmp_path: Path) -> None:
    with logging(models, tmp_path, file_rows=1) as (add, told):
        add(0, colour=b"\xff")
        wait_for(lambda: told["dropped"] == 1)
        add(1)
    assert read_log(str(tmp_path))["request_id"].to_pylist() == ["1"]
    assert told == {"dropped": 1, "written": 1}


@contextlib.contextmanager
def logging(models: Path, folder: Path, file_rows: int) -> Iterator[tuple[Callable[..., None], Counter[str]]]:
    """A log without a server; gives what adds a row by its number, and what was counted."""
    facts = read_facts(str(models / "binary"))
    told: Counter[str] = Counter()

    def count(what: str, rows: int) -> None:
        told[what] += rows

    log = RequestLog(LogOptions(str(folder), 1.0, 10_000, file_rows, 60.0), facts, count)
    outputs = {o.name: np.array([b"0"], object) if o.dtype == "string" else np.zeros(1, "f4") for o in facts.outputs}

    def add(number: int, **changes: Any) -> None:
        arrays = arrays_of([ROW], facts.spec.inputs) | {name: np.array([one], object) for name, one in changes.items()}
        log.add(str(number), 1, arrays, outputs, {})

    yield add, told
    log.close(60)


def read_log(uri: str) -> pa.Table:
    fs, root = fsspec.core.url_to_fs(uri, use_listings_cache=False)
    files = sorted(fs.glob(f"{root}/*/*.parquet"))
    return pa.concat_tables([pq.read_table(io.BytesIO(fs.cat_file(file))) for file in files])


def digest(models: Path) -> str:
    from components.model_spec import read_spec

    return read_spec(models / "binary" / "model").weights_digest[:12]


def test_the_log_refuses_features_named_like_its_columns(models: Path, tmp_path: Path) -> None:
    version = tmp_path / "version"
    shutil.copytree(models / "binary", version)
    spec = version / "model" / "spec.json"
    spec.write_text(spec.read_text().replace('"name": "colour"', '"name": "request_id"'))
    says = "'request_id' has the name of another column"
    with pytest.raises(RuntimeError, match=says), running.serving(version, log_uri=tmp_path / "log"):
        pass


def test_many_servers_write_into_one_folder(models: Path, tmp_path: Path) -> None:
    with running.serving(models / "binary", log_uri=tmp_path) as one:
        one.rows([ROW])
        one.stop()
        with running.serving(models / "binary", log_uri=tmp_path) as two:
            two.rows([ROW])
            two.stop()
    assert read_log(str(tmp_path)).num_rows == 2


def test_the_page_and_probes_are_not_counted(server: RunningServer) -> None:
    before = {name: value for name, value in server.metrics().items() if name.startswith("lockgate_requests_total")}
    server.client.get("/", headers={"accept": "text/html"})
    server.client.get("/v2/health/ready")
    server.client.get("/v2/models/toy")
    after = {name: value for name, value in server.metrics().items() if name.startswith("lockgate_requests_total")}
    assert before == after
