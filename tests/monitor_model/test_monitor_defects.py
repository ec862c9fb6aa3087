"""What comes of logs, labels, histories and stores that are not as they should be. Needs: TFDV's environment."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import InputError
from components.monitor_model.monitoring import monitor
from components.monitoring_record import MonitoringRecord
from tests.monitor_model.world import World, draw_rows


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.publish()
    return made


def rewrite(world: World, change: Callable[[pa.Table], pa.Table], parts: int = 1) -> None:
    """Changes all logged rows, and files them anew in some parts."""
    files = sorted((world.folder / "log").rglob("*.parquet"))
    table = change(pa.concat_tables([pq.ParquetFile(file).read() for file in files]))
    for file in files:
        file.unlink()
    size = -(-table.num_rows // parts)
    for part in range(parts):
        day = table["request_time"][part * size].as_py()
        folder = world.folder / "log" / f"{day:%Y-%m-%d}"
        folder.mkdir(exist_ok=True)
        # All lie under the first day; the reader looks at times, not at folders.
        pq.write_table(table.slice(part * size, size), folder / f"part-{part}.parquet")


def decisive(record: MonitoringRecord) -> dict[str, Any]:
    """What must not depend on how the rows lie."""
    whole = record.model_dump(mode="json", exclude={"created"})
    whole["log"].pop("files")
    return dict(whole)


@pytest.mark.parametrize("seed", [1, 2])
def test_order_and_files_decide_nothing(world: World, seed: int) -> None:
    rows = draw_rows(1500, seed=2, shift=0.8)
    rows.city[:40] = "Bitcoin"
    world.months(rows)
    before = world.judge()

    def shuffle(table: pa.Table) -> pa.Table:
        order = list(range(table.num_rows))
        random.Random(seed).shuffle(order)
        return table.take(pa.array(order))

    rewrite(world, shuffle, parts=1 + 3 * seed)
    world_files = list((world.folder / "log").rglob("*.parquet"))
    for file in world_files:  # so that each lies under a day of the window
        (world.folder / "log" / "2025-03-15").mkdir(exist_ok=True)
        file.rename(world.folder / "log" / "2025-03-15" / file.name)
    after = world.judge()
    assert decisive(after) == decisive(before)


def test_copies_do_not_count_twice(world: World) -> None:
    world.months(draw_rows(1500, seed=2, shift=0.8))
    before = world.judge()
    copies = list((world.folder / "log").rglob("*.parquet"))
    for file in copies:
        shutil.copy(file, file.with_name(f"copy-{file.name}"))
    after = world.judge()
    assert after.log.duplicates == 1500
    assert after.evidence == before.evidence
    whole, was = decisive(after), decisive(before)
    whole.pop("log")
    was.pop("log")
    assert whole == was


def test_one_row_is_too_few_to_compare(world: World) -> None:
    world.months(draw_rows(1, seed=2))
    record = world.judge(rules={"silence": "ignore"})
    assert record.verdict == "healthy"
    assert "1 rows are too few to compare (needed: 100)" in record.notes[0]
    assert record.quality is None
    assert all(one.skew is None for one in record.features.values())


def test_no_row_and_none_before_is_no_alarm(world: World) -> None:
    (world.folder / "log").mkdir()
    record = world.judge()
    assert (record.verdict, record.log.rows, record.notes) == ("healthy", 0, ["no row was logged"])
    assert "no row was logged" in (world.folder / "out/report.html").read_text()


def without(*names: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.select([name for name in table.column_names if name not in names])


def with_column(name: str, make: Callable[[pa.Table], Any]) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.column_names.index(name), name, make(table))


DEFECTS: dict[str, tuple[Callable[[pa.Table], pa.Table], str, str]] = {
    "a feature that is not logged": (without("shop"), "healthy", ""),
    "no version": (without("model_version"), "healthy", ""),
    "a version that nobody knows": (
        with_column("model_version", lambda t: pa.array(["v9999-00000000"] * t.num_rows)),
        "healthy",
        "",
    ),
    "no key": (without("visit"), "healthy", ""),
    "numbers as text": (with_column("price", lambda t: t["price"].cast(pa.string())), "healthy", ""),
    "text for numbers": (with_column("price", lambda t: pa.array(["much"] * t.num_rows)), "page", "price"),
    "broken text": (with_column("shop", lambda t: pa.array([b"\xff\xfe"] * t.num_rows)), "page", "shop"),
    "all missing": (with_column("shop", lambda t: pa.nulls(t.num_rows, pa.string())), "page", "shop"),
    "infinite numbers": (
        with_column("price", lambda t: pa.array(np.full(t.num_rows, np.inf, np.float32))),
        "page",
        "price",
    ),
    "no numbers": (with_column("price", lambda t: pa.array(np.full(t.num_rows, np.nan, np.float32))), "page", "price"),
    "no prediction": (without("probability"), "healthy", ""),
    "a huge category": (
        with_column("shop", lambda t: pa.array([f"{'x' * 200}{i}" for i in range(t.num_rows)])),
        "watch",
        "shop",
    ),
    "hostile text": (
        with_column("shop", lambda t: pa.array(["<script>alert(1)</script>\u202e\x00"] * t.num_rows)),
        "watch",
        "shop",
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_no_log_stops_it(world: World, name: str) -> None:
    change, verdict, subject = DEFECTS[name]
    world.months(draw_rows(600, seed=2))
    rewrite(world, change)
    record = world.judge()
    assert record.verdict == verdict, record.reason
    assert record.log.rows == 600
    assert not subject or subject in {finding.subject for finding in record.findings}
    report = (world.folder / "out/report.html").read_text()
    assert "<script" not in report
    assert MonitoringRecord.model_validate_json((world.folder / "out/record/record.json").read_text()) == record


@pytest.mark.parametrize("values", [["yes"] * 300, [""] * 300, ["0.5"] * 300, ["1"] * 300])
def test_labels_of_any_kind_are_no_reason_to_stop(world: World, values: list[str]) -> None:
    rows = draw_rows(300, seed=2)
    world.serve(rows)
    world.label(rows, values=values)
    record = world.judge(rules={"calibration": "watch", "quality": "watch"})
    assert record.labels is not None
    usable = values[0] == "1"
    assert record.labels.rows == (300 if usable else 0)
    assert record.labels.unused == (300 if values[0] in ("yes", "0.5") else 0)


def test_a_model_without_a_profile_is_judged_by_the_rest(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.publish(profile=False)
    world.months(draw_rows(600, seed=2))
    record = world.judge()
    assert record.features == {}
    assert record.quality is not None
    assert any("published without a profile: train again" in note for note in record.notes)


def test_labels_in_a_topic_are_no_reason_to_stop(world: World) -> None:
    world.months(draw_rows(300, seed=2))
    settings, out = world.settings(), world.folder / "out"
    settings = replace(settings, data=settings.data.model_copy(update={"source": "kafka://broker:9092/visits"}))
    record = monitor("shop", settings, "2025-03", "", str(out / "record"), str(out / "report.html"))
    assert (record.verdict, record.labels) == ("healthy", None)
    assert "no labels: they are found in files" in record.notes[0]


def test_what_a_user_can_mend_is_told(tmp_path: Path, world: World) -> None:
    world.months(draw_rows(200, seed=2))
    with pytest.raises(InputError, match="has no version; publish one, then monitor it"):
        World(tmp_path / "other").judge()
    with pytest.raises(InputError, match="'march' is no time"):
        world.judge("march")
    (world.folder / "data/visits-2025-03.csv").write_text("visit\na\n")
    with pytest.raises(InputError, match="has no column 'bought'"):
        world.judge()
    out = world.folder / "out"
    with pytest.raises(InputError, match="the schedule's time 'soon' is no time"):
        monitor("shop", world.settings(), "", "soon", str(out / "record"), str(out / "report.html"))
    history = world.folder / "models/monitoring/shop"
    history.mkdir(parents=True, exist_ok=True)
    (history / "2025-01.json").write_text("{}")
    with pytest.raises(InputError, match="remove the file, then judge its window again"):
        world.judge("2025-02")


def test_a_run_that_is_killed_leaves_the_history_as_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.months(draw_rows(200, seed=2))
    world.judge()
    record = world.folder / "models/monitoring/shop/2025-03.json"
    before = record.read_bytes()

    def die(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("components.monitor_model.monitoring.write_whole", die)
    with pytest.raises(KeyboardInterrupt):
        world.judge()
    assert record.read_bytes() == before
    assert [path.name for path in record.parent.iterdir()] == [record.name]


def test_a_scheduled_run_judges_the_window_before_its_time(world: World) -> None:
    world.months(draw_rows(300, seed=2))
    out = world.folder / "out"
    settings = world.settings(window="month")
    result = monitor("shop", settings, "", "2025-04-01T00:00:00Z", str(out / "record"), str(out / "report.html"))
    assert result.window == "2025-03"
    assert json.loads((world.folder / "models/monitoring/shop/2025-03.json").read_text())["log"]["rows"] == 300
