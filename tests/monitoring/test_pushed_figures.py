"""Figures of monitoring runs, pushed to a real Pushgateway that a real Prometheus scrapes.

Needs: the venv twin of the base image; prometheus-pushgateway and prometheus.
"""

import json
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from components.errors import InputError
from components.monitor_model import metrics
from components.monitor_model.pushing import Pushgateway
from components.monitoring_record import MonitoringRecord
from components.settings import Limits, Monitoring
from tests.monitoring import prometheus as given
from tests.monitoring.records import STABLE, feature, quality, record, version, window
from tests.servers import environment, free_port

GATEWAY, PROMETHEUS = "prometheus-pushgateway", "prometheus"
NOW = datetime.now(UTC).replace(microsecond=0)

needs_gateway = pytest.mark.skipif(bool(given.absent(GATEWAY)), reason=given.absent(GATEWAY))
needs_both = pytest.mark.skipif(
    bool(given.absent(GATEWAY) or given.absent(PROMETHEUS)), reason=given.absent(GATEWAY) or given.absent(PROMETHEUS)
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Pushgateway."""
    with running(GATEWAY, tmp_path_factory.mktemp("gateway")) as url:
        yield url


@pytest.fixture(scope="module")
def watched(gateway: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Queries a Prometheus with our rules, which has seen a record with something of everything."""
    start = NOW - timedelta(days=20)
    assert Pushgateway(gateway).push(window(start, 10), Monitoring())
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "rules.yaml").write_text(yaml.safe_dump(given.PUSHED_RULES), "utf-8")
    (folder / "config.yaml").write_text(yaml.safe_dump(_configuration(folder, gateway)), "utf-8")
    arguments = [f"--config.file={folder / 'config.yaml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with running(PROMETHEUS, folder, *arguments) as url:

        def query(expression: str) -> list[dict[str, Any]]:
            body = json.loads(get(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"))
            found: list[dict[str, Any]] = body["data"]["result"]
            return found

        wait_for(lambda: bool(query("lockgate_monitoring_info")))
        yield query


@contextmanager
def running(program: str, folder: Path, *arguments: str) -> Iterator[str]:
    address = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, *arguments, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        wait_for(lambda: process.poll() is not None or _answers(f"http://{address}/-/ready"))
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


def get(url: str) -> str:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as answer:
        return str(answer.read().decode())


def _answers(url: str) -> bool:
    try:
        get(url)
    except OSError:
        return False
    return True


def _configuration(folder: Path, gateway: str) -> dict[str, Any]:
    """What the operator makes of our ServiceMonitor."""
    names = {"sourceLabels": "source_labels", "targetLabel": "target_label"}

    def relabelings(key: str) -> list[dict[str, Any]]:
        return [{names.get(k, k): v for k, v in one.items()} for one in given.PUSHED_ENDPOINT[key]]

    target = {
        "targets": [gateway.removeprefix("http://")],
        # By the operator, for every ServiceMonitor.
        "labels": {
            "namespace": "lockgate",
            "pod": "lockgate-pushgateway-0",
            "service": "lockgate-pushgateway",
            "endpoint": "http",
            "container": "pushgateway",
        },
    }
    job = {
        "job_name": "serviceMonitor/lockgate/lockgate-pushgateway/0",
        "metrics_path": given.PUSHED_ENDPOINT["path"],
        "honor_labels": given.PUSHED_ENDPOINT["honorLabels"],
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "static_configs": [target],
        "relabel_configs": relabelings("relabelings"),
        "metric_relabel_configs": relabelings("metricRelabelings"),
    }
    rules = str(folder / "rules.yaml")
    return {"scrape_configs": [job], "rule_files": [rules], "global": {"evaluation_interval": "1s"}}


def samples(text: str, model: str = "flights") -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What a Pushgateway has of a model, without the labels that it adds."""
    added = {"job", "instance", "model"}
    return {
        (one.name, frozenset((k, v) for k, v in one.labels.items() if k not in added and v)): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.labels.get("model") == model
    }


def one(found: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float | None:
    return found.get((f"lockgate_monitoring_{name}", frozenset(labels.items())))


# ------------------------------------------------------------------------------------------------ Pushgateway


@needs_gateway
def test_a_record_arrives_whole(gateway: str) -> None:
    assert Pushgateway(gateway).push(record(project="whole"), Monitoring(limits=Limits(quality=0.03)))
    found = samples(get(f"{gateway}/metrics"), "whole")
    assert [one(found, "verdict", verdict=v) for v in ("healthy", "watch", "retrain", "page")] == [0, 0, 1, 0]
    assert one(found, "info", window="2013-10", version=STABLE, metric="auc") == 1
    assert one(found, "window_end_seconds") == datetime(2013, 11, 1, tzinfo=UTC).timestamp()
    assert one(found, "last_row_seconds") == datetime(2013, 10, 31, 22, tzinfo=UTC).timestamp()
    assert one(found, "rows") == 28_000
    assert one(found, "labelled_rows") == 27_000
    assert one(found, "left_out_rows", reason="duplicate") == 20
    assert one(found, "distance", feature="distance", against="training", measure="jensen_shannon") == 0.3
    assert one(found, "distance_low", feature="distance", against="before", measure="jensen_shannon") == pytest.approx(
        0.065
    )
    assert one(found, "missing_share", feature="carrier") == 0.2
    assert one(found, "new_value_share", feature="carrier") == 0.03
    assert one(found, "new_value_share", feature="distance") is None
    assert one(found, "quality", metric="auc") == 0.7
    assert one(found, "quality", metric="auc", version=STABLE) == 0.7
    assert one(found, "quality", metric="auc", slice="carrier=UA") == 0.6
    assert one(found, "quality", metric="log_loss", slice="carrier=UA") is None
    assert one(found, "quality", metric="recall") is None
    assert one(found, "quality_loss", metric="auc") == pytest.approx(0.06)
    assert one(found, "quality_loss", metric="auc", slice="carrier=UA") == pytest.approx(0.15)
    assert one(found, "quality", metric="auc", slice='origin="JFK"\n, carrier=é\\') == 0.8
    assert one(found, "findings", kind="quality") == 1
    assert one(found, "findings", kind="skew") == 0
    assert one(found, "limit", limit="quality") == 0.03


@needs_gateway
def test_the_next_window_takes_the_place_of_the_one_before(gateway: str) -> None:
    pushed = Pushgateway(gateway)
    assert pushed.push(record(project="twice"), Monitoring())
    empty = record(project="twice").log.model_copy(update={"rows": 0, "first": None, "last": None})
    changes: dict[str, Any] = {"log": empty, "labels": None, "features": {}, "versions": [], "slices": []}
    silent = record(project="twice", window="2013-11", quality=None, calibration=None, findings=[], **changes)
    assert pushed.push(silent, Monitoring())
    found = samples(get(f"{gateway}/metrics"), "twice")
    assert one(found, "info", window="2013-11", version=STABLE, metric="auc") == 1
    assert one(found, "info", window="2013-10", version=STABLE, metric="auc") is None
    assert one(found, "rows") == one(found, "labelled_rows") == 0
    assert not [name for name, _ in found if name.rpartition("_")[2] in ("distance", "quality", "gap")]
    assert one(found, "last_row_seconds") is None


def test_labels_stay_few_whatever_the_record_holds() -> None:
    wide = record(
        features={f"f{i}": feature("distance", i / 1000) for i in range(500)},
        slices=[quality("x" * 5000 + str(i), 0.6, 0.7) for i in range(200)],
        versions=[version(f"v{i:04d}", 10) for i in range(50)],
    )
    families = list(metrics.registry_of(wide, Monitoring()).collect())
    found = [sample for family in families for sample in family.samples]
    assert len({s.labels["feature"] for s in found if "feature" in s.labels}) == metrics.MOST_FEATURES
    assert {s.labels["feature"] for s in found if "feature" in s.labels} >= {"f499", "f400"}
    assert len({s.labels["slice"] for s in found if s.labels.get("slice")}) == metrics.MOST_SLICES
    assert len({s.labels["version"] for s in found if s.name.endswith("version_rows")}) == metrics.MOST_VERSIONS
    assert max(len(value) for s in found for value in s.labels.values()) < 150
    assert len(found) < 2000


def test_a_loss_is_positive_whichever_way_the_metric_goes() -> None:
    found = {
        metric: next(
            s.value
            for family in metrics.registry_of(
                record(metric=metric, quality=quality("", 0.7, reference), slices=[]), Monitoring()
            ).collect()
            for s in family.samples
            if family.name == "lockgate_monitoring_quality_loss"
        )
        for metric, reference in (("auc", 0.8), ("log_loss", 0.4))
    }
    assert found == pytest.approx({"auc": 0.1, "log_loss": 0.1})


# ------------------------------------------------------------------------------------------------ what does not answer


class _Answering(BaseHTTPRequestHandler):
    codes: tuple[int, ...] = ()
    seen: list[str | None]

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append(self.headers["Authorization"])
        self.send_response(self.codes[min(len(self.seen), len(self.codes)) - 1])
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def answering(*codes: int) -> Iterator[tuple[str, list[str | None]]]:
    """A server that answers one push after the other with a code; gives its URL and what came as credentials."""
    handler = type("Handler", (_Answering,), {"codes": codes, "seen": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.seen  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_proxy() -> Iterator[None]:
    with environment(no_proxy="127.0.0.1,localhost"):
        yield


def test_nobody_there_is_a_warning_that_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert not Pushgateway(url, pauses=(0, 0)).push(record(), Monitoring())
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"the Pushgateway '{url}' did not take the figures of 2013-10" in said
    assert "Connection refused" in said
    assert "(tries: 3)" in said
    assert "the verdict stands: check monitoring.pushgateway" in said


@pytest.mark.parametrize("url", ["http://256.256.256.256:9091", "http://a..b:9091", "http://127.0.0.1:port"])
def test_an_address_that_is_none_is_a_warning(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert not Pushgateway(url, pauses=()).push(record(), Monitoring())
    assert f"the Pushgateway '{url}' did not take" in capsys.readouterr().err


def test_it_is_tried_again_until_it_answers() -> None:
    with answering(503, 429, 200) as (url, seen):
        assert Pushgateway(url, pauses=(0, 0)).push(record(), Monitoring())
    assert seen == [None] * 3


def test_a_refusal_is_not_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(401) as (url, seen):
        assert not Pushgateway(url, pauses=(0, 0)).push(record(), Monitoring())
    assert len(seen) == 1
    assert "HTTP Error 401" in capsys.readouterr().err


def test_credentials_come_from_the_environment_or_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "password").write_text("sesame\n")
    user = environment(
        LOCKGATE_PUSHGATEWAY_USERNAME="ali", LOCKGATE_PUSHGATEWAY_PASSWORD_FILE=str(tmp_path / "password")
    )
    with answering(200) as (url, seen):
        with user:
            assert Pushgateway(url).push(record(), Monitoring())
        with environment(LOCKGATE_PUSHGATEWAY_TOKEN="secret"):
            assert Pushgateway(url).push(record(), Monitoring())
    assert seen == ["Basic " + b64encode(b"ali:sesame").decode(), "Bearer secret"]
    with environment(LOCKGATE_PUSHGATEWAY_TOKEN="secret"), answering(403) as (url, _):
        Pushgateway(url).push(record(), Monitoring())
    assert "secret" not in capsys.readouterr().err


def test_half_of_the_credentials_is_an_error() -> None:
    with (
        environment(LOCKGATE_PUSHGATEWAY_PASSWORD="sesame"),
        pytest.raises(InputError, match="LOCKGATE_PUSHGATEWAY_USERNAME is not"),
    ):
        Pushgateway("http://localhost:9091")


@pytest.mark.parametrize(
    "url", ["localhost:9091", "ftp://host", "http://ali:sesame@host:9091", "http://", "http://a b"]
)
def test_what_is_no_url_or_holds_a_password_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="pushgateway"):
        Monitoring(pushgateway=url)


# ------------------------------------------------------------------------------------------------ Prometheus


@needs_both
@pytest.mark.parametrize(("title", "expression"), list(given.dashboard_expressions(given.PUSHED_DASHBOARD)))
def test_a_query_of_the_dashboard_finds_something(
    watched: Callable[[str], list[dict[str, Any]]], title: str, expression: str
) -> None:
    wait_for(lambda: bool(watched(expression)) or title == "Alerts")


@needs_both
def test_series_are_the_models_and_not_the_gateways(watched: Callable[[str], list[dict[str, Any]]]) -> None:
    (found,) = watched('lockgate_monitoring_rows{model="flights"}')
    assert found["metric"] == {
        "__name__": "lockgate_monitoring_rows",
        "job": "lockgate-monitoring",
        "model": "flights",
        "namespace": "lockgate",
    }
    assert [one["metric"]["job"] for one in watched("up")] == ["lockgate-pushgateway"]
    assert watched("go_goroutines") == watched("pushgateway_http_requests_total") == []
    assert watched('push_time_seconds{model="flights"}')


@needs_both
def test_every_metric_of_rules_and_dashboard_is_pushed(watched: Callable[[str], list[dict[str, Any]]]) -> None:
    there = {one["metric"]["__name__"] for one in watched('{namespace="lockgate"}')}
    expressions = [rule["expr"] for rule in given.PUSHED_ALERTS.values()]
    expressions += [expression for _, expression in given.dashboard_expressions(given.PUSHED_DASHBOARD)]
    named = set.union(*map(given.metrics_in, expressions))
    assert {"lockgate_monitoring_verdict", "push_time_seconds"} <= named
    assert named - there - given.OF_PROMETHEUS == set()


@needs_both
def test_alerts_follow_what_is_pushed(gateway: str, watched: Callable[[str], list[dict[str, Any]]]) -> None:
    def firing() -> set[str]:
        return {one["metric"]["alertname"] for one in watched('ALERTS{alertstate="firing", model="loop"}')}

    def judged(**changes: Any) -> MonitoringRecord:
        return window(NOW - timedelta(days=10), 10, project="loop", **changes)

    assert Pushgateway(gateway).push(judged(), Monitoring())
    wanted = {"LockgateMonitoringRetrain", "LockgateQualityBelow", "LockgateLogUnreadable"}
    wait_for(lambda: firing() == wanted)
    readable = judged().log.model_copy(update={"unreadable_files": 0, "unreadable": []})
    assert Pushgateway(gateway).push(judged(verdict="healthy", findings=[], log=readable), Monitoring())
    wait_for(lambda: firing() == set())
