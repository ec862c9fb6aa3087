"""What is shown of a stream's alerts: on a terminal, at its end, and in a picture. Needs: the authoring environment."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from components.settings import Project, Stream, Task
from pipelines import stream_picture, streaming
from pipelines.demo_fraud import truth_of_reports
from pipelines.stream_alerts import RECENT, Alerts, Decision, Truth
from pipelines.stream_view import line, picture, reasons_of, summary
from tests.pipelines.test_stream_command import STATUS

HOUR = 3_600_000
BEGAN = 1_727_740_800_000
"""1 October 2024."""
DONE = {**STATUS, "p50_ms_of_all": 9.4, "p99_ms_of_all": 31.2}


def message(number: int, score: float, hours: float = 0.0, **more: Any) -> bytes:
    told = {
        "event_id": f"T{number}",
        "event_time_ms": int(BEGAN + hours * HOUR),
        "prediction": {"probability": score, "label": "1"},
        "threshold": 0.5,
        "event": {"card": f"C<{number}>", "amount": 12.5},
        **more,
    }
    return json.dumps(told).encode()


def decided(*given: tuple[float, float], truth: Truth | None = None) -> Alerts:
    """Decides events of a score and an hour, T0, T1, …"""
    alerts = Alerts(truth)
    for number, (score, hours) in enumerate(given):
        decision = Decision.read(message(number, score, hours))
        assert decision
        alerts.add(decision)
    return alerts


def shown(alerts: Alerts, budget: float | None = None) -> str:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(picture(DONE, alerts, budget))
    return capture.get()


# --------------------------------------------------------------------------------------------------- what is known


def test_an_alert_is_a_score_at_the_threshold() -> None:
    alerts = decided((0.49, 0), (0.5, 1), (0.9, 2))
    assert (alerts.decided, alerts.alerts) == (3, 2)
    assert [alert.id for alert in alerts.last] == ["T2", "T1"]
    assert alerts.recent_rate == pytest.approx(2000 / 3)


def test_only_the_last_decisions_count_against_the_budget() -> None:
    alerts = decided(*[(0.9, 0)] * 10, *[(0.1, 1)] * RECENT)
    assert (alerts.alerts, alerts.recent_rate) == (10, 0.0)


def test_a_model_without_a_threshold_raises_no_alert() -> None:
    told = json.loads(message(1, 0.5))
    del told["threshold"]
    assert Decision.read(json.dumps(told).encode()) is None
    told = {**told, "prediction": {"class": "a", "probabilities": [1.0]}, "threshold": None}
    assert Decision.read(json.dumps(told).encode()) is None


def test_what_is_known_comes_later_than_what_is_true() -> None:
    truth = Truth(
        {"T0": BEGAN + 100 * HOUR, "T1": BEGAN + 30 * HOUR, "T4": BEGAN + 500 * HOUR},
        known=frozenset({"T0", "T1", "T2", "T3", "T4"}),
        alert_ms=24 * HOUR,
    )
    alerts = decided((0.9, 0), (0.1, 1), (0.8, 2), (0.1, 25), (0.2, 25.5), (0.9, 25.5), truth=truth)
    known, true = alerts.known(), alerts.known(2**62)
    assert (known.alerts, known.right, known.reported) == (1, 1, 0)  # T0 has been looked at; T1 is not yet reported
    assert (true.alerts, true.right, true.reported) == (2, 1, 2)  # T5 is of those of which nothing will be known
    assert [alerts.verdict(alert) for alert in alerts.last] == [None, None, True]
    assert alerts.known(BEGAN + 30 * HOUR).reported == 1


def test_labels_of_replayed_rows_are_known_at_once(tmp_path: Path) -> None:
    for positive, labels in ((None, [0, 1, None]), ("yes", ["no", "yes", None])):
        pq.write_table(pa.table({"order": ["a", "b", "c"], "bought": labels}), tmp_path / "part.parquet")
        task = Task(type="binary", label="bought", positive=positive)
        truth = streaming.truth_of(streaming.Replay(5, tmp_path, task), Stream(event_id="order"))
        assert truth is not None
        assert (set(truth.positive), truth.alert_ms) == ({"b"}, 0)
    assert streaming.truth_of(streaming.Replay(5, tmp_path, task), Stream()) is None
    regression = Task(type="regression", label="bought")
    assert streaming.truth_of(streaming.Replay(5, tmp_path, regression), Stream(event_id="order")) is None


def test_reports_tell_what_is_known_of_the_payments_that_are_replayed(tmp_path: Path) -> None:
    reports = pa.table({"transaction_id": ["T1"], "reported_at": pa.array([1_727_740_800], pa.timestamp("s"))})
    pq.write_table(reports, tmp_path / "reports.parquet")
    pq.write_table(pa.table({"transaction_id": ["T1", "T2"]}), tmp_path / "eval.parquet")
    truth = truth_of_reports(tmp_path / "reports.parquet", tmp_path / "eval.parquet")
    assert truth.positive == {"T1": BEGAN}
    assert truth.known == {"T1", "T2"}


def test_so_many_rows_are_replayed_as_are_wanted(tmp_path: Path) -> None:
    pq.write_table(pa.table({"at": range(2500)}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"at": range(2500, 2600)}), tmp_path / "b.parquet")
    task = Task(type="regression", label="y")
    for events in (1, 2500, 2550, 6000):
        rows = [row["at"] for row in streaming._rows(streaming.Replay(5, tmp_path, task, events))]
        assert rows == [number % 2600 for number in range(events)]


@pytest.mark.parametrize(
    ("settings", "budget"),
    [
        ({}, None),
        ({"training": {"decision": {"by": "alert_budget", "alerts_per_1000_rows": 4}}}, 4),
        ({"evaluation": {"alert_budget": {"alerts": 7}}}, 7),
        ({"evaluation": {"alert_budget": {"alerts": 7, "per": "day", "time": "at"}}}, None),
    ],
)
def test_the_budget_is_that_of_the_settings(settings: dict[str, Any], budget: float | None) -> None:
    project = {
        "name": "shop",
        "data": {"source": "a.csv", "split": {"by": "hash", "key": ["order"]}},
        "task": {"type": "binary", "label": "bought"},
    }
    assert streaming.budget_of(Project.model_validate(project | settings)) == budget


# ----------------------------------------------------------------------------------------------------- what is shown


def test_the_terminal_shows_the_last_alerts_with_their_reasons() -> None:
    truth = Truth({"T0": BEGAN}, frozenset({"T0"}))
    alerts = decided((0.9, 1), (0.1, 2), truth=truth)
    reasons = [
        {"feature": "count", "value": "6", "contribution": 0.4},
        {"feature": "hour", "value": "3", "contribution": -0.2},
        {"feature": "amount", "value": "1234.56", "contribution": 0.1},
    ]
    decision = Decision.read(message(7, 0.75, 3, reasons=reasons))
    assert decision
    alerts.add(decision)
    text = shown(alerts, 400)
    for part in ("C<7>", "12.5", "0.75", "count 6, amount 1,235", "10-01 03:00", "✓", "?", "666.7 of 400 per 1,000"):
        assert part in text
    assert reasons_of(decision, 1) == "count 6"


def test_without_alerts_the_terminal_shows_classes() -> None:
    assert "75.0%" in shown(Alerts())
    assert "2 alerts" in line(DONE, decided((0.9, 0), (0.8, 0)))


def test_the_end_tells_what_was_known_and_what_was_true() -> None:
    truth = Truth({"T0": BEGAN, "T2": BEGAN + 900 * HOUR}, frozenset({"T0", "T1", "T2"}), 24 * HOUR)
    text = "\n".join(summary(DONE, decided((0.9, 0), (0.8, 1), (0.1, 30), truth=truth), 500))
    assert "98,768: 98,765 decided, 3 rejected; latency p50 9 ms, p99 31 ms" in text
    assert "2, 666.7 per 1,000 events (budget: 500)" in text
    assert "known    2 alerts looked at, 1 (50%) right; 0 positive events reported that raised none" in text
    assert "in truth 1 (50%) of 2 alerts right; 1 (50%) of 2 positive events raised one" in text
    assert len(summary(DONE, Alerts())) == 1


def drawn(tmp_path: Path, alerts: Alerts, budget: float | None = None) -> str:
    stream_picture.write(tmp_path / "stream.svg", alerts, "shop", budget)
    return (tmp_path / "stream.svg").read_text()


def test_the_picture_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    truth = Truth({"T0": BEGAN, "T2": BEGAN}, frozenset(f"T{number}" for number in range(5000)))
    scores = [(0.9, 0), (0.8, 1), (0.3, 2), *[(0.01, hour / 10) for hour in range(4000)]]
    text = drawn(tmp_path, decided(*scores, truth=truth), 4)
    root = ET.fromstring(text)
    assert "href" not in text
    assert "1 alerts, right" in text
    assert "1 missed" in text
    assert "1 alerts, wrong" in text
    assert "4,000 others" in text
    assert "(3,000 drawn)" in text
    assert "50% of them right" in text
    assert "card C&lt;0&gt;, amount 12.5" in text
    width, height = (float(number) for number in root.attrib["viewBox"].split()[2:])
    for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', text):
        assert 0 <= float(x) <= width
        assert 0 <= float(y) <= height


@pytest.mark.parametrize("given", [[(0.9, 0)], [(0.0, 0), (1.0, 0)], [(0.5, 0), (0.2, 10_000)]])
def test_any_stream_has_a_picture(given: list[tuple[float, float]], tmp_path: Path) -> None:
    for budget in (None, 4.0):
        ET.fromstring(drawn(tmp_path, decided(*given), budget))
