"""What is sent before a replay. Needs: the authoring environment."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.settings import WindowFeatures
from components.window_features.values import InputColumn
from pipelines import stream_history

WINDOWS = WindowFeatures.model_validate(
    {
        "time": "at",
        "key": ["card"],
        "features": [
            {"name": "n", "of": "count", "window": "1 minute"},
            {"name": "sum", "of": "sum", "column": "amount", "window": "2 minutes"},
        ],
    }
)
COLUMNS = {
    "at": InputColumn(type="int64", is_time=True),
    "card": InputColumn(type="string"),
    "amount": InputColumn(type="float32"),
}


def write(folder: Path, times: list[int | None]) -> None:
    folder.mkdir(parents=True)
    count = len(times)
    columns = {"at": times, "card": ["a"] * count, "amount": [1.5] * count, "label": [0] * count}
    pq.write_table(pa.table(columns), folder / "part-00000.parquet")


def test_it_is_what_the_first_rows_look_back_into_in_order(tmp_path: Path) -> None:
    write(tmp_path / "train", [879, None, 999, 880, 881, 950, 1000, 1001])
    write(tmp_path / "eval", [1010, 1000])
    rows = stream_history.before(tmp_path / "eval", WINDOWS, COLUMNS)
    assert rows == [{"at": at, "card": "a", "amount": 1.5} for at in (881, 950, 999)]


def test_without_a_train_split_it_is_nothing(tmp_path: Path) -> None:
    write(tmp_path / "eval", [1000])
    assert stream_history.before(tmp_path / "eval", WINDOWS, COLUMNS) == []
    write(tmp_path / "none" / "eval", [])
    assert stream_history.before(tmp_path / "none" / "eval", WINDOWS, COLUMNS) == []


def test_events_of_one_key_share_their_message_key() -> None:
    assert stream_history.key_of({"card": "a", "at": 1}, WINDOWS) == stream_history.key_of({"card": "a"}, WINDOWS)
    assert stream_history.key_of({"card": "a"}, None) is None
