"""`python -m pipelines stream`, as far as it goes without a broker. Needs: the authoring environment."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from components.settings import Stream
from pipelines import streaming
from pipelines.environments import ROOT

VALID = """\
name: shop
data: {source: "data/*.csv", split: {by: hash, key: [customer]}}
task: {type: binary, label: bought}
"""
STATUS = {
    "model": "flights v0003-0123abcd",
    "ready": True,
    "events_per_second": 2512.4,
    "p50_ms": 11.6,
    "p99_ms": 38.2,
    "lag": 1234,
    "partitions": [0, 1],
    "decided": 98765,
    "classes": {"0": 75_000, "1": 25_000},
    "rejected": {"malformed": 3},
    "odd": {"late": 2, "future": 0},
}
NOTHING: dict[str, Any] = {
    **STATUS,
    "model": "",
    "ready": False,
    "p50_ms": None,
    "p99_ms": None,
    "classes": {},
    "rejected": {},
    "odd": {},
}


def command(folder: Path, yaml: str, *options: str) -> "subprocess.CompletedProcess[str]":
    (folder / "pipeline.yaml").write_text(VALID + yaml)
    arguments = [sys.executable, "-W", "ignore", "-m", "pipelines", "stream", str(folder), *options]
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_what_a_deployment_is_told(tmp_path: Path) -> None:
    (tmp_path / "order.avsc").write_text('"string"')
    yaml = "stream: {format: {type: avro, schema_file: order.avsc}, event_id: order}\n"
    told = json.loads(command(tmp_path, yaml, "--show-job", "--broker", "kafka:9092").stdout)
    assert told["name"] == "shop"
    assert told["store"] == str(tmp_path / "models")
    assert told["avro_schema"] == '"string"'
    stream = Stream.model_validate(told["stream"])
    assert (stream.servers, stream.input_topic, stream.output_topic, stream.dead_letter_topic, stream.group) == (
        *("kafka:9092", "shop.events", "shop.decisions", "shop.dead-letters", "shop"),
    )


WINDOWS = """\
window_features:
  time: placed_at
  key: [card]
  features: [{name: sum_1h, of: sum, column: amount, window: 1 hour}]
"""
SCHEMA = """\
feature { name: "placed_at" type: INT time_domain { integer_format: UNIX_SECONDS } }
feature { name: "card" type: BYTES }
feature { name: "amount" type: FLOAT }
feature { name: "sum_1h" type: FLOAT }
feature { name: "customer" type: INT }
feature { name: "bought" type: INT }
"""


def test_window_features_travel_with_the_types_of_what_they_are_made_of(tmp_path: Path) -> None:
    (tmp_path / "schema.pbtxt").write_text(SCHEMA)
    told = json.loads(command(tmp_path, f"{WINDOWS}schema: schema.pbtxt\n", "--show-job").stdout)
    assert told["stream"]["features_topic"] == "shop.events.features"
    assert told["window_features"]["features"][0]["name"] == "sum_1h"
    assert told["window_columns"] == {
        "placed_at": {"type": "int64", "is_time": True},
        "card": {"type": "string", "is_time": False},
        "amount": {"type": "float32", "is_time": False},
    }


@pytest.mark.parametrize(
    ("yaml", "options", "says"),
    [
        (WINDOWS, ("--show-job",), "window_features in a stream need the types of a schema"),
        ("stream: {features_topic: a, input_topic: a}\n", (), "dead_letter_topic and features_topic must differ"),
        ("stream: {window_commit_ms: 0}\n", (), "stream.window_commit_ms: input should be greater than or equal to 1"),
        ("stream: {topic: a}\n", (), "stream.topic: unknown key"),
        ("stream: {duplicates: drop}\n", (), "stream: duplicates is drop, so give duplicate_window, e.g. 10000"),
        ("stream: {input_topic: 'a b'}\n", (), "stream.input_topic: string should match pattern"),
        ("stream: {format: {type: avro, schema_file: no.avsc}}\n", ("--show-job",), "'no.avsc' is not beside it"),
        ("", ("--broker", "local", "--replay", "5"), "no run of 'shop' under"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, yaml: str, options: tuple[str, ...], says: str) -> None:
    done = command(tmp_path, yaml, *options, "--runs", str(tmp_path))
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_the_picture_tells_how_it_is() -> None:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(streaming.picture(STATUS))
    shown = capture.get()
    for part in (
        *("flights v0003-0123abcd", "deciding", "2,512/s", "lag 1,234", "98,765 decided", "p50 12 ms   p99 38 ms"),
        *("75.0%", "25.0%", "malformed 3", "late 2"),
    ):
        assert part in shown
    assert "future" not in shown
    assert streaming.line(STATUS) == (
        "stream: 2,512 events/s, p50 12 ms, p99 38 ms, lag 1,234, 98,765 decided, 3 rejected by flights v0003-0123abcd"
    )


def test_the_picture_of_a_stream_that_waits() -> None:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(streaming.picture(NOTHING))
    assert "waiting" in capture.get()
    assert streaming.line(NOTHING).endswith("rejected by no model yet")
