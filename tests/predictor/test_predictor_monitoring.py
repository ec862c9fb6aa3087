"""The alerts and the dashboard of manifests/suite, with a real Prometheus that scrapes a real server.

Needs: the tensorflow environment, for the models; prometheus.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.monitoring import prometheus as given
from tests.predictor import running
from tests.predictor.running import RunningServer, free_port, wait_for

ROW = {"trip km": 2.5, "amount": 100.0, "visits": 3, "colour": "red"}
DISCOVERED = {
    "__meta_kubernetes_pod_label_lockgate_dev_service": "flights",
    # By the operator, for every PodMonitor.
    "namespace": "lockgate",
    "container": "kserve-container",
    "endpoint": "http1",
}
SCRAPE_SECONDS = 1

pytestmark = pytest.mark.skipif(bool(given.absent("prometheus")), reason=given.absent("prometheus"))


class Prometheus:
    """A Prometheus that is up."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, trust_env=False, timeout=30)
        body = answer.json()
        assert body["status"] == "success", f"{body['error']}: {expression}"
        result: list[dict[str, Any]] = body["data"]["result"]
        return result


def explain(server: RunningServer) -> None:
    server.client.post(f"/v1/models/{server.name}:explain", json={"instances": [ROW]}).raise_for_status()


@pytest.fixture(scope="module")
def served(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, RunningServer]]:
    """The stable model and a canary, both with a request log; that of the stable one cannot be written."""
    folder = tmp_path_factory.mktemp("log")
    (folder / "stable").write_text("no folder")
    log = {"log_seconds": 0.2}
    with (
        running.serving(models / "binary", log_uri=folder / "stable", log_buffer_rows=2, **log) as stable,
        running.serving(models / "binary", log_uri=folder / "canary", **log) as canary,
    ):
        yield stable, canary


@pytest.fixture(scope="module")
def watched(
    served: tuple[RunningServer, RunningServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus with the rules, which has seen some traffic of every kind."""
    with _prometheus(tmp_path_factory.mktemp("prometheus"), *served) as found:
        end = time.monotonic() + 180
        while not all(
            found.query(expression) for _, expression in given.dashboard_expressions() if "ALERTS" not in expression
        ):
            assert time.monotonic() < end, [
                title for title, expression in given.dashboard_expressions() if not found.query(expression)
            ]
            for server in served:
                server.rows([ROW, ROW | {"colour": "Bitcoin"}, {"trip km": 1}])
                server.rows([{}])
                explain(server)
            time.sleep(0.1)
        yield found


@contextmanager
def _prometheus(folder: Path, stable: RunningServer, canary: RunningServer) -> Iterator[Prometheus]:
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump(given.RULES), "utf-8")
    config = folder / "prometheus.yaml"
    config.write_text(yaml.safe_dump(_configuration(rules, stable, canary)), "utf-8")
    port = free_port()
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        wait_for(lambda: process.poll() is not None or _is_ready(port))
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(timeout=30)


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/-/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _configuration(rules: Path, stable: RunningServer, canary: RunningServer) -> dict[str, Any]:
    """What the operator makes of our PodMonitor, with the pods' labels given."""
    targets = [
        {
            "targets": [f"127.0.0.1:{server.http_port}"],
            "labels": {
                **DISCOVERED,
                "pod": name,
                "__meta_kubernetes_pod_label_serving_kserve_io_inferenceservice": name,
            },
        }
        for name, server in (("flights", stable), ("flights-canary", canary))
    ]
    job = {
        "job_name": "lockgate/lockgate-predictor",
        "metrics_path": given.ENDPOINT["path"],
        "scrape_interval": f"{SCRAPE_SECONDS}s",
        "scrape_timeout": f"{SCRAPE_SECONDS}s",
        "static_configs": targets,
        "relabel_configs": [_snake_case(one) for one in given.ENDPOINT["relabelings"]],
        "metric_relabel_configs": [_snake_case(one) for one in given.ENDPOINT["metricRelabelings"]],
    }
    return {"scrape_configs": [job], "rule_files": [str(rules)], "global": {"evaluation_interval": "1s"}}


def _snake_case(relabeling: dict[str, Any]) -> dict[str, Any]:
    names = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    return {names.get(key, key): value for key, value in relabeling.items()}


def test_every_metric_of_rules_and_dashboard_is_one_of_the_server(served: tuple[RunningServer, RunningServer]) -> None:
    for server in served:
        server.rows([ROW])
        explain(server)
    wait_for(lambda: served[1].metrics().get('lockgate_request_log_rows_total{result="written"}', 0) > 0)
    there = {sample.partition("{")[0] for sample in served[1].metrics()}
    expressions = [rule["expr"] for group in given.RULES["groups"] for rule in group["rules"]]
    expressions += [expression for _, expression in given.dashboard_expressions()]
    named = set.union(*map(given.metrics_in, expressions))
    assert {"lockgate_requests_total", "lockgate_model", "process_start_time_seconds"} <= named
    assert named - there - given.RECORDED - given.OF_PROMETHEUS == set()


@pytest.mark.parametrize(("title", "expression"), list(given.dashboard_expressions()))
def test_a_query_of_the_dashboard_finds_something(watched: Prometheus, title: str, expression: str) -> None:
    assert watched.query(expression) or title == "Alerts"


@pytest.mark.parametrize("name", given.ALERTS)
def test_the_query_of_an_alert_is_valid(watched: Prometheus, name: str) -> None:
    watched.query(given.ALERTS[name]["expr"])


def test_the_labels_tell_canary_from_stable(watched: Prometheus) -> None:
    found = [one["metric"] for one in watched.query("lockgate_model")]
    wanted = [("flights", "flights", "stable"), ("flights", "flights-canary", "canary")]
    assert sorted((one["service"], one["inferenceservice"], one["role"]) for one in found) == sorted(wanted)
    assert {one["job"] for one in found} == {"lockgate-predictor"}
    assert watched.query("request_predict_seconds_count") == watched.query("python_info") == []


def test_rows_that_the_log_drops_are_told_of(watched: Prometheus) -> None:
    def alerts() -> set[str]:
        return {one["metric"]["alertname"] for one in watched.query('ALERTS{alertstate="firing"}')}

    wait_for(lambda: {"LockgateRequestLogDrops"} <= alerts(), seconds=60)
