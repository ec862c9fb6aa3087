"""Messages on their way to window features, without a broker. Needs: the venv twin of the predictor's image."""

import io
import json
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.settings import Stream, WindowFeatures
from components.stream.events import Event, Reader
from components.stream.windows.enriched import Enriched
from components.stream.windows.steps import NO_EVENT, Reading, Step
from components.window_features.values import InputColumn
from tests.stream.test_stream_decisions import message

WINDOWS = WindowFeatures.model_validate(
    {
        "time": "at",
        "key": ["card"],
        "features": [
            {"name": "sum_1h", "of": "sum", "column": "amount", "window": "1 hour"},
            {"name": "n_pair", "of": "count", "key": ["card", "shop"], "window": "1 hour"},
        ],
    }
)
COLUMNS = {
    "at": InputColumn(type="int64", is_time=True),
    "card": InputColumn(type="string"),
    "shop": InputColumn(type="int64"),
    "amount": InputColumn(type="float32"),
}
SCHEMA = {
    "type": "record",
    "name": "order",
    "fields": [
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "card", "type": "string"},
        {"name": "shop", "type": ["null", "long"]},
        {"name": "amount", "type": "double"},
    ],
}
ORIGIN = ("shop.events", 3, 17)


def read(value: bytes | None, avro: bool = False, headers: Any = None, **settings: Any) -> Enriched:
    form = {"format": {"type": "avro", "schema_file": "order.avsc"}} if avro else {}
    stream = Stream.model_validate({**form, **settings}).named("shop")
    reading = Reading(stream, WINDOWS, COLUMNS, json.dumps(SCHEMA) if avro else "")
    return reading.read(value, b"k", headers, ORIGIN)


def test_avro_is_read_and_stays_avro() -> None:
    stream = io.BytesIO()
    order = {"at": 1_767_312_000_123, "card": "a", "shop": None, "amount": 12.5}
    fastavro.schemaless_writer(stream, SCHEMA, order)
    found = read(stream.getvalue(), avro=True)
    assert found.value == stream.getvalue()
    # Avro's times become seconds, for features as for the model.
    assert (found.time, found.inputs) == (1_767_312_000_000, {"card": "a", "shop": None, "amount": 12.5})
    assert read(b"\xff", avro=True).fault == NO_EVENT


@given(
    value=st.none() | st.binary(),
    key=st.none() | st.binary(),
    headers=st.lists(
        st.tuples(st.text().filter(lambda name: not name.startswith("lockgate-")), st.none() | st.binary())
    ),
    time=st.none() | st.integers(-(2**50), 2**50),
    features=st.dictionaries(
        st.text(),
        st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
    fault=st.text(),
)
def test_what_is_known_travels_beside_the_bytes(
    value: Any, key: Any, headers: Any, time: Any, features: Any, fault: str
) -> None:
    origin = [("lockgate-topic", b"t"), ("lockgate-partition", b"0"), ("lockgate-offset", b"5")]
    made = Enriched(value, key, headers, origin, time, {"card": "ü"}, {} if fault else features, fault)
    assert Enriched.parse(value, made.between()) == made
    outside = dict(made.outside()[len(headers) :])
    assert "lockgate-window-inputs" not in outside
    assert "lockgate-window-key" not in outside


def test_events_of_one_key_come_together_and_those_without_need_no_store() -> None:
    pair = Step(WINDOWS, ["card", "shop"])
    one, other = read(b'{"at": 1, "card": "a", "shop": 7}'), read(b'{"at": 99, "shop": 7, "card": "a", "x": 1}')
    assert pair.key_of(one) == pair.key_of(other) == b'["a",7]'
    without = read(b'{"at": 1, "card": "a"}')
    assert pair.key_of(without) == b"k"
    assert pair.add(without, None, 0).features == {"n_pair": None}  # type: ignore[arg-type]
    assert pair.key_of(read(b"{bad")) == b"k"


def test_what_is_kept_is_named_by_what_it_is_made_of() -> None:
    more = WINDOWS.model_dump()
    more["features"] += [{"name": "sum_1d", "of": "sum", "column": "amount", "window": "1 day"}]
    assert Step(WindowFeatures.model_validate(more), ["card"]).name == Step(WINDOWS, ["card"]).name
    more["features"] += [{"name": "shops", "of": "distinct", "column": "shop", "window": "1 day"}]
    assert Step(WindowFeatures.model_validate(more), ["card"]).name != Step(WINDOWS, ["card"]).name


def test_large_headers_are_dropped_and_the_event_is_kept() -> None:
    found = read(b'{"at": 1, "card": "a"}', headers=[("big", b"x" * 900)], max_event_bytes=500)
    assert (found.headers, found.fault, found.inputs["card"]) == ([], "", "a")
    assert read(b" " * 501, max_event_bytes=500).origin[-1] == ("lockgate-original-bytes", b"501")


def test_the_stream_takes_features_from_the_header_only() -> None:
    reader = Reader(Stream().named("shop"), "", WINDOWS)
    value = {"sum_1h": 99, "amount": 1.5}
    origin = [("lockgate-topic", b"shop.events"), ("lockgate-partition", b"3"), ("lockgate-offset", b"17")]

    def one(*headers: tuple[str, bytes]) -> Any:
        events, rejections = reader.read([message(value, headers=[*origin, *headers])])
        return events[0] if events else rejections[0]

    event = one(("lockgate-window-features", b'{"sum_1h": 2.5, "n_pair": null}'))
    assert isinstance(event, Event)
    assert event.fields == {"sum_1h": 2.5, "amount": 1.5, "n_pair": None}
    assert event.id == "shop.events-3-17"
    faulty = one(("lockgate-window-fault", b"'card' is 7"))
    assert (faulty.code, faulty.says) == ("invalid", "'card' is 7")
    missing = one()
    assert missing.code == "invalid"
    assert "send events to the input topic" in missing.says


@pytest.mark.parametrize(
    "headers", [None, [], [("lockgate-window-features", None)], [("lockgate-window-features", b"[1")]]
)
def test_a_message_that_came_another_way_is_told(headers: Any) -> None:
    reader = Reader(Stream().named("shop"), "", WINDOWS)
    events, (rejection,) = reader.read([message({"amount": 1}, headers=headers)])
    assert not events
    assert rejection.code == "invalid"
