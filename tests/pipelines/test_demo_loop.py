"""Parts of the demonstration of the closed loop. Needs: the authoring environment."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import InputError
from components.request_columns import TIME
from pipelines.demo_loop import DEPARTURE, KEY, Loop, Month, auc, draw, mirrored, set_clock
from pipelines.environments import ROOT


def flights(minutes: list[int]) -> pa.Table:
    midnight = np.datetime64("2013-06-30", "us")
    minute = np.array(minutes)
    return pa.table(
        {
            KEY: [f"flight-{number}" for number in range(len(minutes))],
            DEPARTURE: midnight + minute.astype("timedelta64[m]"),
            "departure_minute": pa.array(minute, pa.int64()),
            "arrival_minute": pa.array((minute + 90) % 1440, pa.int64()),
        }
    )


@given(st.lists(st.integers(0, 1439), min_size=1))
def test_a_mirrored_timetable_stays_within_the_day(minutes: list[int]) -> None:
    before = flights(minutes)
    after = mirrored(before)
    assert after.schema == before.schema
    assert {one.day for one in after[DEPARTURE].to_pylist()} == {30}
    assert [one.hour * 60 + one.minute for one in after[DEPARTURE].to_pylist()] == after["departure_minute"].to_pylist()
    gaps = (after["arrival_minute"].to_numpy() - after["departure_minute"].to_numpy()) % 1440
    assert set(gaps) == {90}
    assert mirrored(after) == before


@pytest.mark.parametrize(
    ("scores", "labels", "wanted"),
    [([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 1.0), ([0.9, 0.1], [0, 1], 0.0), ([0.5] * 4, [0, 1, 0, 1], 0.5)],
)
def test_the_area_under_the_curve(scores: list[float], labels: list[int], wanted: float) -> None:
    assert auc(np.array(scores), np.array(labels)) == wanted


def test_logged_rows_get_the_time_of_their_flight(tmp_path: Path) -> None:
    rows = flights([30, 700, 1400])
    now = pa.array([datetime.now(UTC)] * 3, pa.timestamp("us", "UTC"))
    (tmp_path / "raw" / "2026-01-01").mkdir(parents=True)
    pq.write_table(pa.table({TIME: now, KEY: rows[KEY]}), tmp_path / "raw" / "2026-01-01" / "a.parquet")
    set_clock(tmp_path / "raw", tmp_path / "log", rows)
    logged = pa.concat_tables([pq.read_table(file) for file in sorted((tmp_path / "log").rglob("*.parquet"))])
    assert logged.schema.field(TIME).type == now.type
    assert [f"{one:%d %H:%M}" for one in logged.sort_by(TIME)[TIME].to_pylist()] == ["29 23:30", "30 10:40", "30 22:20"]
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == ["2013-06-29", "2013-06-30"]


def test_the_picture_is_whole_and_needs_nothing_else() -> None:
    months = [
        Month("2013-06", "v0001-a", "watch", "", 0.52, 0.52, "", False),
        Month("2013-07", "v0001-a", "retrain", "", 0.51, 0.51, "v0002-b promoted & <done>", True),
        Month("2013-08", "v0002-b", "healthy", "", 0.7, 0.5, "", False),
    ]
    text = draw(months, 6)
    root = ET.fromstring(text)
    marks = [one for one in root.iter("{http://www.w3.org/2000/svg}circle") if len(one)]
    assert [one[0].text for one in marks] == [
        "2013-06: watch",
        "2013-07: retrain; v0002-b promoted & <done>",
        "2013-08: healthy",
    ]
    assert "planted drift" in text
    assert "planted drift" not in draw(months, 0)
    assert "planted drift" not in draw(months[:1], 9)
    assert "href" not in text


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else; name a new --folder"):
        Loop(tmp_path, 1000, 6).prepare()
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("options", [["--until", "2"], ["--until", "13"], ["--rows", "10"]])
def test_options_that_make_no_sense(options: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.demo_loop", "--folder", str(tmp_path / "loop"), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "demo-loop: fix your input: --until is 3 to 12, --rows 500 or more\n",
    )
    assert not (tmp_path / "loop").exists()
