"""Each alert fires when it must, and is silent otherwise; by Prometheus's own tester. Needs: promtool."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.prometheus import ALERTS, RULES, RUNBOOK, Case, absent, check, promtool

WHERE = {"namespace": "lockgate", "service": "flights"}
STABLE = {**WHERE, "role": "stable"}
JOB = '{job="lockgate-predictor"}'

needs_promtool = pytest.mark.skipif(bool(absent("promtool")), reason=absent("promtool"))


def requests(bad: str, of_hundred: int) -> dict[str, str]:
    return {
        "lockgate_requests_total{code='200'}": f"0+{100 - of_hundred}x60",
        f"lockgate_requests_total{{code='{bad}'}}": f"0+{of_hundred}x60",
    }


def day(usual: str, now: str) -> str:
    """A counter over a day of 1,440 minutes, and two hours after it."""
    return f"0+{usual}x1440 {round(float(usual) * 1440 + float(now), 3)}+{now}x120"


def rows(metric: str, usual: str, now: str) -> dict[str, str]:
    return {"lockgate_rows_total{protocol='v1'}": day("50", "50"), metric: day(usual, now)}


MISSING = "lockgate_missing_values_total{feature='temp'}"
UNKNOWN = "lockgate_out_of_vocabulary_total{feature='carrier'}"
DROPPED = "lockgate_request_log_rows_total{result='dropped'}"
SCORES = "lockgate_predictions_bucket{le='0.5'}"
CLASSES = "lockgate_predicted_classes_total{name='yes'}"
LATENCY = "lockgate_request_seconds_bucket{phase='predict',le='%s'}"
LATE = "25h55m"
"""The second hour of now."""

FIRING = [
    Case("LockgateNoReplica", {f"up{JOB}": "1x5 0x20"}, "12m", WHERE, "flights: no replica answers"),
    Case("LockgateNoReplica", {f"up{JOB}": "1x5 stale"}, "12m", WHERE, "flights: no replica answers"),
    Case(
        "LockgateReplicaDown",
        {f"up{JOB}": "0x20", "up{job='lockgate-predictor',pod='b'}": "1x20"},
        "15m",
        {**STABLE, "job": "lockgate-predictor", "pod": "a"},
        "flights: pod a does not answer",
    ),
    Case(
        "LockgateRestarts",
        {f"process_start_time_seconds{JOB}": "1000x5 1400x5 1800x20"},
        "20m",
        {**STABLE, "job": "lockgate-predictor", "pod": "a"},
        "flights: pod a was started again 2 times in 30 minutes",
    ),
    Case(
        "LockgateMixedModels",
        {
            "lockgate_model{job='lockgate-predictor',digest='1'}": "1x60",
            "lockgate_model{job='lockgate-predictor',digest='2',pod='b'}": "1x60",
        },
        "40m",
        STABLE,
        "flights (stable): pods serve 2 different models",
    ),
    Case("LockgateRequestsFail", requests("500", 3), "15m", STABLE, "flights (stable): 3% of the requests fail"),
    Case("LockgateRequestsFail", requests("INTERNAL", 3), "15m", STABLE, "flights (stable): 3% of the requests fail"),
    Case("LockgateOverloaded", requests("503", 2), "15m", STABLE, "flights (stable): 2% of the requests are sent away"),
    Case(
        "LockgateOverloaded",
        requests("UNAVAILABLE", 2),
        "15m",
        STABLE,
        "flights (stable): 2% of the requests are sent away",
    ),
    Case(
        "LockgateQueue",
        {"lockgate_queue_requests": "0x60", "lockgate_queue_requests{pod='b'}": "30x60"},
        "20m",
        STABLE,
        "flights (stable): 30 requests wait for the model",
    ),
    Case(
        "LockgateSlow",
        {LATENCY % "0.5": "0+90x60", LATENCY % "1": "0+100x60", LATENCY % "+Inf": "0+100x60"},
        "20m",
        {**STABLE, "phase": "predict"},
        "flights (stable): phase predict takes 950ms (p99)",
    ),
    Case(
        "LockgateRequestsRefused",
        requests("400", 20),
        "35m",
        STABLE,
        "flights (stable): 20% of the requests are refused",
    ),
    Case(
        "LockgateUnknownModel",
        requests("404", 2),
        "20m",
        WHERE,
        "flights: 30 requests in 15 minutes for a model that is not there",
    ),
    Case(
        "LockgateNoTraffic",
        {"lockgate_rows_total{protocol='v1'}": "0+50x1440 72000x120"},
        "24h50m",
        WHERE,
        "flights: no row was predicted in 30 minutes",
    ),
    Case(
        "LockgateRequestLogDrops",
        {DROPPED: "0x20 0+10x20"},
        "30m",
        WHERE,
        "flights: the request log lost 90 rows in 15 minutes",
    ),
    Case(
        "LockgateRequestLogDrops",
        {DROPPED: "_x20 500x5", "up": "1x40"},
        "22m",
        WHERE,
        "flights: the request log lost 500 rows in 15 minutes",
    ),
    Case(
        "LockgateRequestLogFailures",
        {"lockgate_request_log_failures_total": "0x10 0+1x40"},
        "40m",
        WHERE,
        "flights: 29 files of the request log could not be written in 30 minutes",
    ),
    Case(
        "LockgateMissingValues",
        rows(MISSING, "1", "20"),
        LATE,
        {**WHERE, "feature": "temp"},
        "flights: temp is missing in 40% of the rows",
    ),
    Case(
        "LockgateMissingValues",
        rows(MISSING, "30", "0"),
        LATE,
        {**WHERE, "feature": "temp"},
        "flights: temp is missing in 0% of the rows",
    ),
    Case(
        "LockgateUnknownValues",
        rows(UNKNOWN, "0.5", "10"),
        LATE,
        {**WHERE, "feature": "carrier"},
        "flights: carrier has a value unknown to the model in 20% of the rows",
    ),
    Case(
        "LockgatePredictionShift",
        rows(SCORES, "40", "15"),
        LATE,
        WHERE,
        "flights: the predictions of the last hour differ by 0.49 from those of the day before",
    ),
    Case(
        "LockgatePredictionShift",
        rows(CLASSES, "10", "25"),
        LATE,
        WHERE,
        "flights: the predictions of the last hour differ by 0.29 from those of the day before",
    ),
]
FEW = {"lockgate_rows_total{protocol='v1'}": day("10", "10")}
SILENT = [
    Case("LockgateNoReplica", {f"up{JOB}": "0x20", "up{job='lockgate-predictor',pod='b'}": "1x20"}, "12m", WHERE),
    Case("LockgateNoReplica", {f"up{JOB}": "0x2 1x20"}, "12m", WHERE),
    Case("LockgateNoReplica", {"up{job='lockgate-predictor',role='canary'}": "0x20"}, "12m", WHERE),
    Case("LockgateNoReplica", {f"up{JOB}": "1x5 stale"}, "40m", WHERE),
    Case("LockgateReplicaDown", {f"up{JOB}": "0x5 1x20"}, "15m", STABLE),
    Case("LockgateRestarts", {f"process_start_time_seconds{JOB}": "1000x5 1400x25"}, "20m", STABLE),
    Case(
        "LockgateMixedModels",
        {
            "lockgate_model{job='lockgate-predictor',digest='1'}": "1x60",
            "lockgate_model{job='lockgate-predictor',digest='2',role='canary'}": "1x60",
        },
        "40m",
        STABLE,
    ),
    Case("LockgateRequestsFail", requests("500", 1), "15m", STABLE),
    Case("LockgateRequestsFail", requests("503", 50), "15m", STABLE),
    Case("LockgateOverloaded", requests("503", 1), "15m", STABLE),
    Case("LockgateQueue", {"lockgate_queue_requests": "0x10 50x3 0x40"}, "20m", STABLE),
    Case(
        "LockgateSlow",
        {LATENCY % "0.5": "0+100x60", LATENCY % "1": "0+100x60", LATENCY % "+Inf": "0+100x60"},
        "20m",
        STABLE,
    ),
    Case("LockgateRequestsRefused", requests("400", 5), "35m", STABLE),
    Case("LockgateRequestsRefused", requests("499", 50), "35m", STABLE),
    Case("LockgateUnknownModel", requests("400", 50), "20m", WHERE),
    Case("LockgateNoTraffic", {"lockgate_rows_total{protocol='v1'}": "0+50x1560"}, "24h50m", WHERE),
    Case("LockgateNoTraffic", {"lockgate_rows_total{protocol='v1'}": "0x1560"}, "24h50m", WHERE),
    Case("LockgateRequestLogDrops", {DROPPED: "0x20 0+10x20 200x40"}, "60m", WHERE),
    Case("LockgateRequestLogFailures", {"lockgate_request_log_failures_total": "0x10 1x40"}, "40m", WHERE),
    Case("LockgateMissingValues", rows(MISSING, "10", "15"), LATE, WHERE),
    Case("LockgateMissingValues", {**FEW, MISSING: day("0.2", "9")}, LATE, WHERE),
    Case("LockgateUnknownValues", rows(UNKNOWN, "0.5", "3"), LATE, WHERE),
    Case("LockgatePredictionShift", rows(SCORES, "40", "35"), LATE, WHERE),
    Case("LockgatePredictionShift", rows(CLASSES, "10", "15"), LATE, WHERE),
    Case("LockgatePredictionShift", {**FEW, SCORES: day("9", "1")}, LATE, WHERE),
]


@needs_promtool
def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(RULES), "utf-8")
    promtool("check", "rules", str(tmp_path / "rules.yaml"))


@needs_promtool
@pytest.mark.parametrize("case", [*FIRING, *SILENT], ids=str)
def test_an_alert(case: Case, tmp_path: Path) -> None:
    # The labels that PodMonitor gives.
    check(case, RULES, {**STABLE, "pod": "a"}, tmp_path)


def test_every_alert_is_tested_both_ways() -> None:
    assert {case.alert for case in FIRING} == {case.alert for case in SILENT} == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_tells_how_bad_it_is_and_where_to_read_on(name: str) -> None:
    rule: dict[str, Any] = ALERTS[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/monitoring-serving.md#{name.lower()}"
    assert re.search(rf"^### {name}$", RUNBOOK.read_text(), re.MULTILINE)
