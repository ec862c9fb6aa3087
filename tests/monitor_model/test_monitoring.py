"""What a window is judged to be. Needs: the environment in which TFDV runs."""

import json
from pathlib import Path

import pytest

from components.monitoring_history import MonitoringHistory
from tests.monitor_model.world import World, draw_rows


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.publish()
    return made


def kinds(record: object) -> set[tuple[str, str]]:
    return {finding.key for finding in record.findings}  # type: ignore[attr-defined]


def test_rows_like_those_of_training_are_healthy(world: World) -> None:
    rows = draw_rows(4000, seed=2)
    world.months(rows)
    record = world.judge()
    assert record.verdict == "healthy", record.reason
    assert record.reason.startswith("nothing found in 4,000 rows, 4,000 with a label")
    assert record.log.rows == 4000
    assert record.quality is not None
    assert record.quality.rows == 4000
    assert record.quality.metrics["auc"].value == pytest.approx(0.808, abs=0.02)
    assert {one.name for one in record.slices} == {"city=Paris", "city=Rome", "city=Oslo"}
    assert record.version == world.version
    assert [(one.version, one.rows, one.known) for one in record.versions] == [(world.version, 4000, True)]
    assert record.features["age"].missing.share.value == pytest.approx(0.1, abs=0.02)
    report = (world.folder / "out" / "report.html").read_text()
    assert "healthy" in report
    assert "http" not in report.replace("http-equiv", "")


def test_a_shifted_feature_is_watched_and_nothing_else(world: World) -> None:
    world.months(draw_rows(4000, seed=2, shift=1.0))
    record = world.judge(limits={"quality": 0.2})
    assert record.verdict == "watch"
    assert ("skew", "price") in kinds(record)
    assert not {("skew", "age"), ("skew", "city"), ("skew", "shop")} & kinds(record)
    skew = record.features["price"].skew
    assert skew is not None
    assert skew.jensen_shannon.low is not None
    assert 0.1 < skew.jensen_shannon.low < (skew.jensen_shannon.value or 0) < (skew.jensen_shannon.high or 0) < 0.3


def test_a_retrain_needs_two_windows_and_then_cools_down(world: World) -> None:
    world.months(draw_rows(3000, seed=2), *(draw_rows(3000, seed=seed, flip=True) for seed in (3, 4, 5)))
    verdicts = {month: world.judge(f"2025-0{month}", rules={"calibration": "watch"}) for month in (3, 4, 5, 6)}
    assert [record.verdict for record in verdicts.values()] == ["healthy", "watch", "retrain", "watch"]
    assert "retrain once it stands for 2 windows (now: 1)" in verdicts[4].reason
    assert verdicts[5].findings[0].kind == "quality"
    assert verdicts[5].findings[0].windows == 2
    assert verdicts[6].reason.startswith("quality: ")
    assert "the retrain of 2025-05 is not older than 1 windows" in verdicts[6].reason


def test_judging_again_replaces_the_record_of_the_window_and_no_other(world: World) -> None:
    world.months(draw_rows(1000, seed=2), draw_rows(1000, seed=3))
    first, second = world.judge("2025-03"), world.judge("2025-04")
    history = MonitoringHistory(str(world.folder / "models" / "monitoring"), "shop")
    files = {path.name: path.read_bytes() for path in (world.folder / "models/monitoring/shop").iterdir()}
    again = world.judge("2025-03")
    assert again.evidence == first.evidence
    assert again.model_dump(exclude={"created"}) == first.model_dump(exclude={"created"})
    after = {path.name: path.read_bytes() for path in (world.folder / "models/monitoring/shop").iterdir()}
    assert after.keys() == files.keys() == {"2025-03.json", "2025-04.json"}
    assert after["2025-04.json"] == files["2025-04.json"]
    assert [one.window for one in history.records()] == [first.window, second.window]
    assert json.loads((world.folder / "out/record/record.json").read_text())["window"] == "2025-03"


def test_late_rows_are_counted_when_a_window_is_judged_again(world: World) -> None:
    world.serve(draw_rows(1000, seed=2))
    world.judge()
    world.serve(draw_rows(200, seed=3), batch=20)
    record = world.judge()
    assert record.log.rows == 1200
    assert record.log.late == 200
    assert record.labels is not None
    assert record.labels.absent_spans == ["2025-03"]
    assert record.quality is None
    assert any("0 rows with a label are too few to judge quality" in note for note in record.notes)


def test_a_worse_canary_pages(world: World) -> None:
    stable = world.version
    canary = world.publish(seed=2)
    world.serve(draw_rows(4000, seed=5), version=stable)
    worse = draw_rows(1500, seed=6, flip=True)
    world.serve(worse, version=canary)
    both = draw_rows(4000, seed=5)
    world.label(both)
    with (world.folder / "data/visits-2025-03.csv").open("a") as file:
        for visit, label in zip(worse.visit, worse.label, strict=True):
            file.write(f"{visit},1,{label}\n")
    record = world.judge()
    assert record.verdict == "page"
    assert ("canary", canary) in kinds(record)
    assert record.version == stable
    assert [one.version for one in record.versions] == [stable, canary]
    assert {one.version: one.quality.rows for one in record.versions if one.quality} == {stable: 4000, canary: 1500}


def test_values_outside_of_the_schema_page_with_share_and_examples(world: World) -> None:
    rows = draw_rows(1000, seed=2)
    rows.city[:100] = "Bitcoin"
    world.months(rows)
    record = world.judge()
    assert record.verdict == "page"
    finding = record.findings[0]
    assert (finding.kind, finding.subject) == ("anomaly", "city")
    assert finding.detail.startswith("10.0 % of values outside the domain")
    assert finding.examples == ["Bitcoin (100 rows)"]


def test_one_odd_value_in_many_rows_is_no_anomaly(world: World) -> None:
    rows = draw_rows(3000, seed=2)
    rows.city[0] = "Bitcoin"
    world.months(rows)
    assert world.judge().verdict == "healthy"


def test_new_values_and_missing_ones_are_found(world: World) -> None:
    rows = draw_rows(2000, seed=2, missing=0.4)
    rows.shop[:200] = "shop-new"
    world.months(rows)
    record = world.judge()
    assert {("new_values", "shop"), ("missing", "age")} <= kinds(record)
    assert record.features["shop"].new_values is not None
    assert record.features["shop"].new_values.examples == ["shop-new (200 rows)"]


def test_nothing_at_all_pages_when_there_was_something_before(world: World) -> None:
    world.months(draw_rows(500, seed=2))
    assert world.judge("2025-03").verdict == "healthy"
    record = world.judge("2025-05", rules={"volume": "ignore"})
    assert record.verdict == "page"
    assert record.findings[0].kind == "no_rows"
    assert record.log.rows == 0


@pytest.mark.parametrize("kind", ["regression", "multiclass"])
def test_other_tasks_are_judged_too(tmp_path: Path, kind: str) -> None:
    world = World(tmp_path, kind)
    world.publish(auc=0.7)
    rows = draw_rows(2000, seed=2)
    world.serve(rows)
    values = rows.label if kind == "regression" else ["a" if one else "b" for one in rows.label]
    world.label(rows, values=values)
    record = world.judge(limits={"quality": 1.0, "calibration": 0.3})
    assert record.verdict == "healthy", record.reason
    assert record.quality is not None
    assert record.metric == {"regression": "rmse", "multiclass": "log_loss"}[kind]
    assert record.quality.metrics[record.metric].value is not None
    assert record.calibration is not None
