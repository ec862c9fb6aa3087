"""The closed loop on Kubeflow Pipelines and KServe: a served model is asked, logged, judged, and replaced by a canary.

Needs: what test_training_on_cluster.py needs. Takes about 40 minutes on two cores. Where the suite's Pushgateway is
there (manifests/suite/components/pushgateway), the verdicts must have reached it.
"""

import csv
import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components import storage
from components.monitoring_history import MonitoringHistory
from components.monitoring_record import MonitoringRecord
from tests import servers
from tests.cluster import kubeflow
from tests.cluster.kubeflow import SERVED, Project, pipelines
from tests.cluster.lab import Client, kubectl
from tests.local.project import write_project

_WHY = kubeflow.missing()
pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(_WHY), reason=f"no Kubeflow Pipelines to test on: {_WHY}"),
]
_COLUMNS = ["visit", "price", "age", "city", "bought"]
_ASKED = 600
_SECONDS_TO_LOG = 180
PUSHGATEWAY = "lockgate-pushgateway"


@pytest.fixture(scope="module", autouse=True)
def store_within_reach() -> Iterator[None]:
    """This process and its children reach the cluster's object store."""
    with servers.environment(**kubeflow.credentials()):
        yield


@pytest.fixture(scope="module")
def months() -> tuple[str, str]:
    """The month before, and this one."""
    now = datetime.now(UTC)
    return f"{now.replace(day=1) - timedelta(days=1):%Y-%m}", f"{now:%Y-%m}"


@pytest.fixture(scope="module")
def has_pushgateway() -> bool:
    return "NotFound" not in kubectl("-n", SERVED, "get", "service", PUSHGATEWAY, "-o=name", check=False)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    source = write_project(tmp_path_factory.mktemp("rows") / "source", months=1)
    with (source / "data" / "visits-2025-01.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory,
    months: tuple[str, str],
    rows: list[dict[str, str]],
    has_pushgateway: bool,
) -> Iterator[Project]:
    """A small project that is served, logs, and has the data of the month before."""
    name, folder = f"shop-{uuid.uuid4().hex[:6]}", tmp_path_factory.mktemp("shop")
    source = write_project(folder / "source", months=0)
    served = kubeflow.served(f"{name}.example.com")
    changes = {
        "deployment": {
            **served,
            # The new model has learned that those buy who did not: of the same row it says the opposite.
            "canary": {**served["canary"], "max_prediction_shift": 1},
            "request_log": {"uri": f"s3://{name}/requests"},
        },
        "monitoring": {
            "window": "month",
            "confirmations": 1,
            "bootstrap": {"resamples": 20},
            "response": {"retrain": True, "window": "last 1 month"},
            "pushgateway": f"http://{PUSHGATEWAY}.{SERVED}:9091" if has_pushgateway else "",
        },
        "cluster": {"all_stages": {"cpu": "100m"}},  # a node may have two cores, and others on it
    }
    with kubeflow.project(folder / "project", name, source / "pipeline.yaml", changes) as made:
        made.put(_written(folder, months[0], rows))
        yield made


@pytest.fixture(scope="module")
def trained(shop: Project) -> dict[str, Any]:
    outcome = shop.run("--set", "data.window=all")
    assert outcome["verdict"] == "PASSED", outcome
    return outcome


@pytest.fixture(scope="module")
def asked(
    shop: Project,
    trained: dict[str, Any],
    months: tuple[str, str],
    rows: list[dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[dict[str, str]]:
    """Rows of this month, in which those buy who did not before: asked through the gateway, labelled afterwards."""
    turned = [{**row, "visit": f"new-{row['visit']}", "bought": str(1 - int(row["bought"]))} for row in rows]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda row: kubeflow.predict(shop.hostname, shop.name, _features(row)), turned))
    assert len(answers) == len(rows) >= _ASKED
    shop.put(_written(tmp_path_factory.mktemp("new"), months[1], turned))
    return turned


@pytest.fixture(scope="module")
def training_schedule(shop: Project) -> Iterator[str]:
    """What retrainings are copies of; it starts nothing by itself."""
    made = pipelines(
        *("schedule", "create", shop.folder, "--every", "1w", "--paused", "--json"), "--set", "data.window=all"
    )
    assert made.code == 0, made
    yield str(made.json["name"])
    assert pipelines("schedule", "delete", made.json["name"]).code == 0


@pytest.fixture(scope="module")
def retrained(
    shop: Project, asked: list[dict[str, str]], training_schedule: str, months: tuple[str, str]
) -> dict[str, Any]:
    """The training that a monitoring run started, at its end; a client asked all the while."""
    _wait_for_log(shop, len(asked))
    client = Client(shop.hostname, _features(asked[0]), shop.name)
    client.start()
    try:
        outcome = shop.run("--pipeline", "monitoring", "--window", months[1])
        assert outcome["verdict"] == "PASSED", outcome
        (started,) = _retrainings(shop)
        ended = kubeflow.wait(started)
    finally:
        client.stop()
    assert not client.failures, client.failures[:3]
    return dict(ended.json)


def test_the_served_model_logs_what_it_is_asked(shop: Project, asked: list[dict[str, str]]) -> None:
    logged = _wait_for_log(shop, len(asked))
    assert {row["visit"] for row in asked} <= set(logged["visit"])
    (version,) = {one for one in logged["model_version"] if one}
    assert version == shop.store.latest()


def test_a_verdict_in_a_pod_trains_and_a_canary_takes_over(
    shop: Project, retrained: dict[str, Any], months: tuple[str, str], has_pushgateway: bool
) -> None:
    assert retrained["verdict"] == "PASSED", retrained
    (record,) = _records(shop)
    assert (record.window, record.verdict) == (months[1], "retrain")
    before, after = shop.store.cards()
    assert (after.parent, after.data.spans, shop.store.latest()) == (before.version, [months[1]], after.version)
    assert kubeflow.reason(retrained, "deployment gate") == f"{after.version} is in service (promoted)"
    served = json.loads(kubectl("-n", SERVED, "get", "isvc", shop.name, "-o=json"))
    assert served["spec"]["predictor"]["model"]["storageUri"].startswith(shop.store.uri_of(after.version))
    if has_pushgateway:
        proxied = f"/api/v1/namespaces/{SERVED}/services/{PUSHGATEWAY}:9091/proxy/metrics"
        metrics = kubectl("get", "--raw", proxied)
        (line,) = [
            line
            for line in metrics.splitlines()
            if line.startswith("lockgate_monitoring_verdict{") and shop.name in line and 'verdict="retrain"' in line
        ]
        assert line.endswith(" 1")


def test_the_same_evidence_trains_once(shop: Project, retrained: dict[str, Any], months: tuple[str, str]) -> None:
    (first,) = _retrainings(shop)
    # The version that was judged is no longer the one in production, and what is logged since is the new one's.
    outcome = shop.run("--pipeline", "monitoring", "--window", months[1])
    assert outcome["verdict"] == "PASSED", outcome
    (record,) = _records(shop)
    assert first in _retrainings(shop)
    assert len(_retrainings(shop)) == 1, record.reason


def test_a_scheduled_run_judges_the_period_before_its_time(shop: Project, retrained: dict[str, Any]) -> None:
    options = ("--set", "monitoring.window=hour", "--set", "monitoring.response.retrain=false")
    ended = kubeflow.run_by_schedule(shop.folder, "--pipeline", "monitoring", *options)
    assert (ended.code, ended.json["verdict"]) == (0, "PASSED"), ended
    hourly = [record for record in _records(shop) if record.end - record.start == timedelta(hours=1)]
    assert len(hourly) == 1
    began = datetime.fromisoformat(ended.json["created"]).astimezone(UTC)
    assert hourly[0].end == began.replace(minute=0, second=0, microsecond=0)


def _features(row: dict[str, str]) -> dict[str, Any]:
    return {
        "visit": row["visit"],
        "price": float(row["price"]),
        "age": int(row["age"]) if row["age"] else None,
        "city": row["city"],
    }


def _written(folder: Path, month: str, rows: list[dict[str, str]]) -> Path:
    path = folder / f"visits-{month}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def _wait_for_log(shop: Project, rows: int) -> dict[str, list[Any]]:
    """Gives what is logged, by column, once so many rows are."""
    fs, root = storage.filesystem(f"s3://{shop.bucket}/requests")
    deadline = time.monotonic() + _SECONDS_TO_LOG
    found: dict[str, list[Any]] = {"visit": [], "model_version": []}
    while time.monotonic() < deadline:
        found = {"visit": [], "model_version": []}
        fs.invalidate_cache()
        for path in fs.glob(f"{root}/*/*.parquet"):
            with fs.open(path, "rb") as file:
                part = pq.read_table(file, columns=list(found)).to_pydict()
            for name, values in part.items():
                found[name] += values
        if len(set(found["visit"])) >= rows:
            return found
        time.sleep(5)
    raise AssertionError(f"{len(set(found['visit']))} of {rows} rows are logged after {_SECONDS_TO_LOG} s")


def _retrainings(shop: Project) -> list[str]:
    found = pipelines("runs", "--tag", f"project={shop.name}", "--json").json
    return [str(run["id"]) for run in found if "evidence" in run["tags"]]


def _records(shop: Project) -> list[MonitoringRecord]:
    return MonitoringHistory(f"s3://{shop.bucket}/models/monitoring", shop.name).records()
