"""Each alert about monitoring runs fires when it must, and is silent otherwise. Needs: promtool."""

import re
from pathlib import Path

import pytest
import yaml

from tests.monitoring.prometheus import PUSHED_ALERTS, PUSHED_RULES, ROOT, Case, absent, check, promtool

RUNBOOK = ROOT / "docs" / "monitoring-dashboards.md"
WHERE = {"namespace": "lockgate", "job": "lockgate-monitoring", "model": "flights"}
GONE = {"namespace": "lockgate", "model": "flights"}
HOUR, DAY = 3600, 86400

needs_promtool = pytest.mark.skipif(bool(absent("promtool")), reason=absent("promtool"))


def m(name: str) -> str:
    return f"lockgate_monitoring_{name}"


def verdict(said: str) -> dict[str, str]:
    """The verdict that the newest window has from the sixth minute on."""
    states = ("healthy", "watch", "retrain", "page")
    return {m(f"verdict{{verdict='{one}'}}"): f"{int(one == 'healthy')}x5 {int(one == said)}x100" for one in states}


def window(start: int, end: int, **figures: float) -> dict[str, str]:
    """Figures of a window, which begin at time 0 of the test; start and end in seconds since then."""
    shown = {
        "window_start_seconds": start,
        "window_end_seconds": end,
        "judged_seconds": end,
        "label_delay_windows": 0,
        **figures,
    }
    return {m(name): f"{value}x3000" for name, value in shown.items()}


LIMIT = {m("limit{limit='silence'}"): "0.25x3000"}
LOSS = {
    m("quality_loss{metric='auc',slice=''}"): "0.055x10",
    m("quality_loss{metric='auc',slice='carrier=UA'}"): "0.2x10",
}
FIRING = [
    Case(
        *("LockgateMonitoringPage", verdict("page"), "7m", {**WHERE, "verdict": "page"}),
        "flights: monitoring says page",
    ),
    Case(
        *("LockgateMonitoringRetrain", verdict("retrain"), "7m", {**WHERE, "verdict": "retrain"}),
        "flights: monitoring says retrain",
    ),
    Case(
        *("LockgateMonitoringStale", window(-DAY, 0), "32h", WHERE),
        "flights: the newest judged window ended 1d 8h 0m 0s ago",
    ),
    Case(
        *("LockgateMonitoringStale", window(-HOUR, 0), "3h", WHERE),
        "flights: the newest judged window ended 3h 0m 0s ago",
    ),
    Case(
        *("LockgateMonitoringGone", {m("judged_seconds"): "1x5 stale"}, "30m", GONE),
        "flights: the figures of its monitoring are gone",
    ),
    Case(
        "LockgateMonitoringPushRefused",
        {"push_time_seconds": "100x10", "push_failure_time_seconds": "0x5 200x5"},
        "7m",
        WHERE,
        "flights: the Pushgateway refused the figures of a window",
    ),
    Case(
        *("LockgateLogSilent", {**window(0, DAY, last_row_seconds=DAY / 2, rows=9), **LIMIT}, "5m", WHERE),
        "flights: the request log fell silent",
    ),
    Case(
        *("LockgateLogSilent", {**window(0, DAY, rows=0), **LIMIT}, "5m", WHERE),
        "flights: the request log fell silent",
    ),
    Case(
        *("LockgateLogUnreadable", {m("unreadable_files"): "0x5 2x5"}, "7m", WHERE),
        "flights: 2 files of the request log cannot be read",
    ),
    Case(
        "LockgateQualityBelow",
        {**LOSS, m("findings{kind='quality'}"): "1x10", m("findings{kind='skew'}"): "1x10"},
        "5m",
        {**WHERE, "metric": "auc"},
        "flights: auc is 0.055 worse than at evaluation",
    ),
]
SILENT = [
    Case("LockgateMonitoringPage", verdict("retrain"), "7m", WHERE),
    Case("LockgateMonitoringPage", verdict("page"), "3m", WHERE),
    Case("LockgateMonitoringRetrain", verdict("watch"), "7m", WHERE),
    # A daily run at six o'clock, of the day before.
    Case("LockgateMonitoringStale", window(-DAY, 0), "30h", WHERE),
    Case("LockgateMonitoringStale", window(-28 * DAY, 0), "32h", WHERE),
    Case("LockgateMonitoringStale", window(-HOUR, 0, label_delay_windows=2), "4h", WHERE),
    Case("LockgateMonitoringGone", {m("judged_seconds"): "1x60"}, "30m", GONE),
    Case("LockgateMonitoringGone", {m("judged_seconds"): "1x5 stale 1x60"}, "30m", GONE),
    Case(
        "LockgateMonitoringPushRefused",
        {"push_time_seconds": "300x10", "push_failure_time_seconds": "200x10"},
        "7m",
        WHERE,
    ),
    Case("LockgateLogSilent", {**window(0, DAY, last_row_seconds=0.8 * DAY, rows=9), **LIMIT}, "5m", WHERE),
    Case("LockgateLogUnreadable", {m("unreadable_files"): "0x10"}, "7m", WHERE),
    Case("LockgateQualityBelow", {**LOSS, m("findings{kind='quality'}"): "0x10"}, "5m", WHERE),
]


@needs_promtool
def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(PUSHED_RULES), "utf-8")
    promtool("check", "rules", str(tmp_path / "rules.yaml"))


@needs_promtool
@pytest.mark.parametrize("case", [*FIRING, *SILENT], ids=str)
def test_an_alert(case: Case, tmp_path: Path) -> None:
    check(case, PUSHED_RULES, WHERE, tmp_path)


def test_every_alert_is_tested_both_ways() -> None:
    assert {case.alert for case in FIRING} == {case.alert for case in SILENT} == set(PUSHED_ALERTS)


@pytest.mark.parametrize("name", PUSHED_ALERTS)
def test_an_alert_tells_how_bad_it_is_and_where_to_read_on(name: str) -> None:
    rule = PUSHED_ALERTS[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/monitoring-dashboards.md#{name.lower()}"
    assert re.search(rf"^### {name}$", RUNBOOK.read_text(), re.MULTILINE)
