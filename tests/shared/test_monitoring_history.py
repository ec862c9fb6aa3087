"""The records of monitoring, on the local disk and in buckets."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.errors import InputError
from components.monitoring_history import MonitoringHistory, history_of
from components.monitoring_record import LogFacts, MonitoringRecord, Verdict

START = datetime(2025, 1, 1, tzinfo=UTC)
EMPTY = dict.fromkeys(("files", "unreadable_files", "rows", "duplicates", "outside", "without_time"), 0)
LOG = LogFacts(
    **EMPTY,
    unanswered=0,
    malformed=0,
    late=0,
    unreadable=[],
    unfit={},
    unlogged=[],
    first=None,
    last=None,
)


def record(day: int, days: int = 1, verdict: Verdict = "healthy") -> MonitoringRecord:
    start = START + timedelta(days=day)
    return MonitoringRecord(
        project="shop",
        window=f"{start:%Y-%m-%d}",
        verdict=verdict,
        reason="",
        evidence="",
        model="",
        version="",
        metric="auc",
        start=start,
        end=start + timedelta(days=days),
        created=START,
        log=LOG,
        labels=None,
        features={},
        versions=[],
        quality=None,
        calibration=None,
        slices=[],
        findings=[],
        notes=[],
    )


@pytest.mark.parametrize("place", ["local", "gcs", "s3"])
def test_a_window_has_one_record(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    uri = str(tmp_path / "history") if place == "local" else request.getfixturevalue(f"{place}_bucket") + "/history"
    history = MonitoringHistory(uri, "shop")
    assert history.records() == []
    assert history.read("2025-01-01") is None
    for day in (1, 0, 2):
        history.write(f"2025-01-{day + 1:02d}", record(day))
    assert history.write("2025-01-02", record(1, verdict="page")) == f"{uri}/shop/2025-01-02.json"
    assert [one.verdict for one in history.records()] == ["healthy", "page", "healthy"]
    assert history.read("2025-01-02") == record(1, verdict="page")
    assert [one.window for one in history.before(START + timedelta(days=2), 86_400)] == ["2025-01-01", "2025-01-02"]


def test_windows_of_another_length_are_no_windows_before(tmp_path: Path) -> None:
    history = MonitoringHistory(str(tmp_path), "shop")
    history.write("a", record(0, days=31))
    history.write("b", record(31))
    assert [one.end - one.start for one in history.before(START + timedelta(days=40), 86_400)] == [timedelta(days=1)]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"format": 2}'])
def test_a_file_that_is_no_record_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "2025-01.json").write_bytes(content)
    (tmp_path / "shop" / ".2025-02.json.partial").write_bytes(b"what a killed writer leaves")
    with pytest.raises(InputError, match=r"2025-01\.json"):
        MonitoringHistory(str(tmp_path), "shop").records()


def test_the_history_lies_beside_the_models_unless_it_is_named() -> None:
    assert history_of("", "s3://models/") == "s3://models/monitoring"
    assert history_of("gs://other", "s3://models") == "gs://other"
