"""The training pipeline on Kubeflow Pipelines, from submission to served predictions, as a user types it.

Needs: a cluster such as `make kind-up` makes, with this code's images on its nodes (README.md). Takes most of an hour
on two cores. After a failure it names the folder with what the cluster knew.
"""

import json
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.model_store import ModelStore
from pipelines.environments import DEV
from tests import servers
from tests.cluster import kubeflow
from tests.cluster.kubeflow import SERVED, Project, pipelines, states
from tests.cluster.lab import ROOT, Client, kubectl
from tests.local.project import write_project

FLIGHTS = ROOT / "examples" / "flights"
FIRST_SPANS = [f"flights-2013-{month:02d}.parquet" for month in range(1, 12)]
NEW_SPAN = "flights-2013-12.parquet"
LATER_SPLIT = ("--set", "data.split.eval_from=2013-11-01")
"""With the new span, the month before it is for training; else the model would be the one that is there."""
_WHY = kubeflow.missing()
pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(_WHY), reason=f"no Kubeflow Pipelines to test on: {_WHY}"),
]


@pytest.fixture(scope="module", autouse=True)
def store_within_reach() -> Iterator[None]:
    """This process and its children reach the cluster's object store."""
    with servers.environment(**kubeflow.credentials()):
        yield


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The example with all spans but the last, served by KServe."""
    subprocess.run([str(DEV.executable), str(FLIGHTS / "prepare_data.py")], check=True)
    name = f"flights-{uuid.uuid4().hex[:6]}"
    changes = {"data": {"window": "all"}, "deployment": kubeflow.served(f"{name}.example.com")}
    folder = tmp_path_factory.mktemp("flights") / "project"
    with kubeflow.project(folder, name, FLIGHTS / "pipeline.yaml", changes) as made:
        made.put(*(FLIGHTS / "data" / span for span in FIRST_SPANS))
        yield made


@pytest.fixture(scope="module")
def row() -> dict[str, Any]:
    """A flight that no model here was trained on."""
    (found,) = pq.read_table(FLIGHTS / "data" / NEW_SPAN).slice(0, 1).to_pylist()
    features = {name: value for name, value in found.items() if name not in ("flight_id", "late")}
    return features | {"scheduled_departure": int(found["scheduled_departure"].replace(tzinfo=UTC).timestamp())}


@pytest.fixture(scope="module")
def trained(flights: Project, row: dict[str, Any]) -> dict[str, Any]:
    """The outcome of the first run, to the first prediction."""
    started = time.monotonic()
    outcome = flights.run()
    assert outcome["verdict"] == "PASSED", outcome
    prediction = kubeflow.predict(flights.hostname, flights.name, row)
    print(f"from submit to a served prediction: {time.monotonic() - started:.0f} s")
    print(kubeflow.where_time_went(outcome["id"]))
    return {**outcome, "prediction": prediction}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A small project that is not served."""
    source = write_project(tmp_path_factory.mktemp("shop") / "source")
    folder, name = tmp_path_factory.mktemp("shop") / "project", f"shop-{uuid.uuid4().hex[:6]}"
    with kubeflow.project(folder, name, source / "pipeline.yaml", {}) as made:
        made.put(*sorted((source / "data").iterdir()))
        yield made


def test_a_run_ends_in_a_served_prediction(flights: Project, trained: dict[str, Any]) -> None:
    # A gate that was told the same in another run comes from the cache: it has no other input.
    assert {state for label, state in states(trained).items() if not label.endswith(" gate")} == {"succeeded"}
    (card,) = flights.store.cards()
    assert (card.version, card.data.spans[0], card.data.spans[-1]) == (flights.store.latest(), "2013-01", "2013-11")
    assert 0 < trained["prediction"]["probability"] < 1
    served = json.loads(kubectl("-n", SERVED, "get", "isvc", flights.name, "-o=json"))
    assert served["spec"]["predictor"]["model"]["storageUri"].startswith(flights.store.uri_of(card.version))


def test_the_model_is_as_good_as_on_a_laptop(flights: Project, trained: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(FLIGHTS, tmp_path / "flights", ignore=shutil.ignore_patterns("models"))
    ended = pipelines(
        *("run", tmp_path / "flights", "--runs", tmp_path / "runs", "--set", "data.window=2013-01..2013-11"),
        seconds=900,
    )
    assert ended.code == 0, ended
    (here,) = ModelStore(str(tmp_path / "flights" / "models"), "flights").cards()
    (there,) = flights.store.cards()
    assert there.data.splits == here.data.splits
    assert there.evaluation.metrics == pytest.approx(here.evaluation.metrics, abs=0.003)


def test_an_unchanged_rerun_does_nothing_twice(flights: Project, trained: dict[str, Any]) -> None:
    outcome = flights.run()
    assert outcome["verdict"] == "PASSED", outcome
    executed = {label for label, state in states(outcome).items() if state != "cached"}
    assert executed == {"publish-model", "deploy-model", "deployment gate", "report-run"}
    (card,) = flights.store.cards()
    assert kubeflow.reason(outcome, "deployment gate") == f"{card.version} is in service (unchanged)"


def test_a_rejected_span_makes_a_red_run_with_a_report(
    flights: Project, trained: dict[str, Any], row: dict[str, Any], tmp_path: Path
) -> None:
    flights.put(_garbage(tmp_path))
    try:
        run = flights.submit()
        ended = kubeflow.wait(run)
    finally:
        flights.drop(NEW_SPAN)
    assert (ended.code, ended.json["verdict"]) == (3, "FAILED"), ended
    assert "data gate: data rejected: " in ended.json["cause"]
    assert "carrier" in ended.json["cause"]
    assert states(ended.json)["validate-data"] == "succeeded"
    assert "train-model" not in {label for label, state in states(ended.json).items() if state == "succeeded"}
    assert "data rejected" in pipelines("logs", run).stdout
    written = pipelines("report", run, "--output", tmp_path / "report")
    assert written.code == 0, written
    assert "Bitcoin" in (tmp_path / "report" / "validate-data.html").read_text()
    assert "data rejected" in (tmp_path / "report" / "index.html").read_text()
    assert len(flights.store.cards()) == 1
    assert kubeflow.predict(flights.hostname, flights.name, row) == trained["prediction"]


def test_a_new_span_is_trained_on_and_promoted_by_canary(
    flights: Project, trained: dict[str, Any], row: dict[str, Any]
) -> None:
    flights.put(FLIGHTS / "data" / NEW_SPAN)
    client = Client(flights.hostname, row, flights.name)
    client.start()
    try:
        outcome = flights.run(*LATER_SPLIT)
    finally:
        client.stop()
    assert outcome["verdict"] == "PASSED", outcome
    assert not client.failures, client.failures[:3]
    before, after = flights.store.cards()
    assert (after.parent, after.data.spans[-1]) == (before.version, "2013-12")
    assert kubeflow.reason(outcome, "deployment gate") == f"{after.version} is in service (promoted)"
    served = json.loads(kubectl("-n", SERVED, "get", "isvc", flights.name, "-o=json"))
    assert served["spec"]["predictor"]["model"]["storageUri"].startswith(flights.store.uri_of(after.version))
    assert kubeflow.predict(flights.hostname, flights.name, row) != trained["prediction"]


def test_a_run_that_may_not_deploy_says_so(flights: Project, trained: dict[str, Any]) -> None:
    ended = kubeflow.wait(flights.submit("--service-account", "pipeline-runner", *LATER_SPLIT))
    assert (ended.code, ended.json["verdict"]) == (2, "FAILED"), ended
    assert "deploy_model: " in ended.json["cause"]
    assert "forbidden" in ended.json["cause"]


def test_a_stage_whose_pod_is_lost_is_run_again(shop: Project) -> None:
    run = shop.submit("--no-cache", "--set", "training.epochs=100")
    lost = kubeflow.running_pod(run, "train-model")
    kubeflow.lose(lost)
    assert kubeflow.running_pod(run, "train-model", after=lost)
    ended = kubeflow.wait(run)
    assert (ended.code, ended.json["verdict"]) == (0, "PASSED"), ended
    assert len(shop.store.cards()) == 1


def test_a_run_can_be_canceled(shop: Project) -> None:
    run = shop.submit("--no-cache")
    kubeflow.running_pod(run, "ingest-data")
    assert pipelines("cancel", run).code == 0
    ended = kubeflow.wait(run)
    assert (ended.code, ended.json["verdict"]) == (4, "CANCELED"), ended


def test_a_schedule_starts_a_run(shop: Project) -> None:
    ended = kubeflow.run_by_schedule(shop.folder, "--set", "data.window=all")
    assert (ended.code, ended.json["verdict"]) == (0, "PASSED"), ended


def test_a_backfill_runs_each_span_once(shop: Project) -> None:
    command = ("backfill", shop.folder, "--from", "2025-01", "--to", "2025-02", "--concurrency", "2", "--json")
    # The model in production may have seen more than one span.
    command += ("--set", "evaluation.production.tolerance=1")
    ended = pipelines(*command, seconds=1800)
    assert ended.code == 0, ended
    assert [(one["span"], one["run"]["state"]) for one in ended.json] == [
        ("2025-01", "SUCCEEDED"),
        ("2025-02", "SUCCEEDED"),
    ]
    again = pipelines(*command)
    assert [one["run"]["id"] for one in again.json] == [one["run"]["id"] for one in ended.json]


def _garbage(folder: Path) -> Path:
    """Writes the new span as if a carrier that does not exist flew a third of the flights."""
    month = pq.read_table(FLIGHTS / "data" / NEW_SPAN)
    carriers = ["Bitcoin" if row % 3 == 0 else carrier for row, carrier in enumerate(month["carrier"].to_pylist())]
    month = month.set_column(month.schema.get_field_index("carrier"), "carrier", pa.array(carriers))
    path = folder / NEW_SPAN
    pq.write_table(month, path)
    return path
