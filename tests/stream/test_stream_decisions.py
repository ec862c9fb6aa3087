"""What becomes of each event, good or bad. Needs: the venv twin of the predictor's image; for some, a Kafka broker."""

import io
import json
import math
import time
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import InputError
from components.settings import Stream
from components.stream.decisions import Batch, Decider
from components.stream.events import CODES, milliseconds
from components.stream.scoring import LocalScorer

NAMED = Stream().named("shop")


class Message:
    """What is asked of a message; confluent-kafka only makes them itself, before 2.13."""

    def __init__(self, **parts: Any) -> None:
        for name, part in parts.items():
            setattr(self, name, lambda part=part: part)


def message(value: Any, offset: int = 0, **others: Any) -> Any:
    raw = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    return Message(
        **{
            "topic": "shop.events",
            "partition": 1,
            "offset": offset,
            "key": b"k",
            "value": raw,
            "headers": [("trace", b"7")],
            "timestamp": (1, 1_700_000_000_000),
            **others,
        }
    )


def decide(scorer: Any, *values: Any, avro_schema: str = "", **settings: Any) -> Batch:
    stream = Stream.model_validate(settings).named("shop")
    decider = Decider(stream, avro_schema)
    events, rejections = decider.read([message(value, offset) for offset, value in enumerate(values)])
    return decider.decide(events, rejections, scorer)


def decisions(batch: Batch) -> list[dict[str, Any]]:
    return [json.loads(record.value or b"") for record in batch.records if record.topic == NAMED.output_topic]


def letters(batch: Batch) -> list[tuple[str, str]]:
    found = []
    for record in batch.records:
        if record.topic == NAMED.dead_letter_topic:
            told = dict(record.headers)
            found.append((told["lockgate-reason"].decode(), told["lockgate-message"].decode()))
    return found


def test_a_decision_tells_all_there_is_to_know(scorer: LocalScorer, rows: list[dict[str, Any]]) -> None:
    row = next(row for row in rows if None not in row.values())
    event = {**row, "order": "A-1", "at": "2026-01-02T03:04:05Z", "shop": "ü"}
    batch = decide(scorer, event, event_id="order", event_time="at", pass_through=["shop"], reasons=2)
    (decision,) = decisions(batch)
    assert decision["event_id"] == "A-1"
    assert (decision["model"], decision["version"]) == ("binary", "v0001-0123abcd")
    assert decision["prediction"].keys() == {"probability", "label"}
    assert decision["prediction"]["label"] == str(int(decision["prediction"]["probability"] >= 0.4))
    assert decision["threshold"] == 0.4
    assert decision["event_time_ms"] == 1_767_323_045_000
    assert abs(decision["decided_at_ms"] / 1000 - time.time()) < 600
    assert decision["source"] == {"topic": "shop.events", "partition": 1, "offset": 0}
    assert decision["event"] == {"shop": "ü"}
    assert len(decision["reasons"]) == 2
    assert decision["reasons"][0].keys() == {"feature", "value", "contribution"}
    (record,) = batch.records
    assert record.key == b"k"
    assert dict(record.headers) == {"lockgate-event-id": b"A-1", "lockgate-model-version": b"v0001-0123abcd"}


def test_reasons_for_positive_decisions_only(scorer: LocalScorer, rows: list[dict[str, Any]]) -> None:
    made = [row for row in rows if None not in row.values()][:40]
    every, some = (decisions(decide(scorer, *made, reasons=2, reasons_for=which)) for which in ("all", "positive"))
    assert {decision["prediction"]["label"] for decision in some} == {"0", "1"}
    for decision, same in zip(every, some, strict=True):
        if decision["prediction"]["label"] == "1":
            assert [one["feature"] for one in same["reasons"]] == [one["feature"] for one in decision["reasons"]]
        else:
            assert "reasons" not in same


BAD = [
    (None, "empty", "the message has no value; send an object"),
    (b"", "empty", "the message has no value; send an object"),
    (b"{not json", "malformed", "the value is no JSON: "),
    (b"\xff\xfe{}", "malformed", "the value is no JSON: "),
    (b'{"colour": "\\ud800", "trip km": 1.0}', "malformed", "the value is no JSON: "),
    (b"[1, 2]", "malformed", "the value is [1, 2]; send an object: {feature: value, …}"),
    (b"null", "malformed", "the value is null; send an object: {feature: value, …}"),
    (b"[" * 100_000, "malformed", "the value is no JSON: "),
    ({"colour": "x" * 2_000_000}, "too_large", "bytes (allowed: 900,000); raise stream.max_event_bytes"),
    ({"colour": "red"}, "invalid", "feature 'trip km': is missing, and required"),
    ({"trip km": "far"}, "invalid", "feature 'trip km': 'far' is text; the model takes a number, or null"),
    ({"trip km": 1.0, "visits": 1.5}, "invalid", "feature 'visits': 1.5 has a fraction; the model takes an integer"),
    ({"trip km": 1.0, "visits": True}, "invalid", "feature 'visits': true is a boolean; the model takes an integer"),
    ({"trip km": 1.0, "colour": {"b64": "!"}}, "invalid", "feature 'colour': not base64"),
    ({"trip km": 1e300}, "invalid", "feature 'trip km': 1e+300 is beyond float32 (±3.4e38)"),
    (b'{"trip km": NaN}', "invalid", "feature 'trip km': NaN is no number; give a finite one, or null"),
]


@pytest.mark.parametrize(("value", "code", "says"), BAD, ids=range(len(BAD)))
def test_a_bad_event_is_a_dead_letter_and_its_neighbours_are_decided(
    scorer: LocalScorer, value: Any, code: str, says: str
) -> None:
    good = {"trip km": 2.5}
    batch = decide(scorer, good, value, good)
    assert [decision["source"]["offset"] for decision in decisions(batch)] == [0, 2]
    ((found, told),) = letters(batch)
    assert found == code in CODES
    assert says in told


def test_a_dead_letter_is_the_message_with_its_place_and_reason(scorer: LocalScorer) -> None:
    (record,) = decide(scorer, b"{oops").records
    assert (record.topic, record.key, record.value) == (NAMED.dead_letter_topic, b"k", b"{oops")
    told = dict(record.headers)
    assert told.pop("lockgate-message").startswith(b"the value is no JSON")
    assert told == {
        "trace": b"7",
        "lockgate-reason": b"malformed",
        "lockgate-topic": b"shop.events",
        "lockgate-partition": b"1",
        "lockgate-offset": b"0",
        "lockgate-timestamp-ms": b"1700000000000",
    }


def test_of_an_event_that_is_too_large_the_beginning_is_kept(scorer: LocalScorer) -> None:
    (record,) = decide(scorer, b"x" * 5000, max_event_bytes=1000).records
    assert record.value == b"x" * 1000
    assert dict(record.headers)["lockgate-original-bytes"] == b"5000"


def test_unknown_fields_are_counted_or_rejected(scorer: LocalScorer) -> None:
    decider = Decider(NAMED)
    events, _ = decider.read([message({"trip km": 1.0, "hue": 1}), message({"trip km": 1.0})])
    assert len(decider.decide(events, [], scorer).decided) == 2
    assert decider.unknown_fields == 1
    rejected = decide(scorer, {"trip km": 1.0, "colours": "red"}, unknown_fields="reject")
    assert letters(rejected) == [("unknown_field", "unknown feature 'colours'; did you mean 'colour'?")]
    assert decide(scorer, {"trip km": 1.0, "note": 1}, unknown_fields="reject", pass_through=["note"]).decided


@pytest.mark.parametrize("depth", [100, 400, 1000])
def test_what_is_passed_through_may_be_deep(scorer: LocalScorer, depth: int) -> None:
    deep = b'{"trip km": 1.0, "note": %s}' % (b"[" * depth + b"]" * depth)
    (decision,) = decisions(decide(scorer, deep, pass_through=["note"]))
    assert str(decision["event"]["note"]).startswith("[[[[")
    ((code, says),) = letters(decide(scorer, b'{"trip km": %s}' % (b"[" * depth + b"]" * depth)))
    assert code == "invalid"
    assert says.startswith("feature 'trip km': [[[[")


@pytest.mark.parametrize("given_id", [None, "", 1.5, True, ["a"]])
def test_an_event_without_its_id_is_rejected(scorer: LocalScorer, given_id: Any) -> None:
    ((code, says),) = letters(decide(scorer, {"trip km": 1.0, "order": given_id}, event_id="order"))
    assert code == "invalid"
    assert says.startswith("event_id 'order' is ")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-01-02T03:04:05.678+01:00", 1_767_319_445_678),
        ("2026-01-02", 1_767_312_000_000),
        (1_767_312_000, 1_767_312_000_000),
        (1_767_312_000_000, 1_767_312_000_000),
        (1_767_312_000.25, 1_767_312_000_250),
        ("soon", None),
        (None, None),
        (True, None),
        (math.nan, None),
        (math.inf, None),
        ("0001-01-01", -62_135_596_800_000),
    ],
)
def test_times_are_read(value: Any, expected: int | None) -> None:
    assert milliseconds(value) == expected


def test_what_the_model_refuses_does_not_hold_up_others(scorer: LocalScorer) -> None:
    class Refusing:
        """A model of which some answers are not finite, as one with an overflow gives them."""

        name, version, threshold = "odd", "v1", None
        inputs, outputs = scorer.inputs, scorer.outputs[:1]

        def predict(self, arrays: Any) -> Any:
            return {"probability": np.where(arrays["trip km"] > 5, np.nan, 0.5).astype(np.float32)}

        def reasons(self, arrays: Any) -> list[Any]:
            return []

    batch = decide(Refusing(), *({"trip km": float(km)} for km in range(10)))
    assert [decision["source"]["offset"] for decision in decisions(batch)] == [0, 1, 2, 3, 4, 5]
    assert letters(batch) == [("refused", "the model gives no finite probability for it; check its values")] * 4


@settings(max_examples=30)  # of up to 31 calls of the model each
@given(st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=5), st.floats(), st.booleans()), max_size=30))
def test_every_event_is_decided_or_rejected_in_its_order(scorer: LocalScorer, values: list[Any]) -> None:
    batch = decide(scorer, *({"trip km": value, "visits": value} for value in values))
    assert len(decisions(batch)) + len(letters(batch)) == len(values)
    offsets = [event.message.offset() for event in batch.decided]
    assert offsets == sorted(offsets)
    alone = [len(decide(scorer, {"trip km": value, "visits": value}).decided) for value in values]
    assert [offset for offset, decided in enumerate(alone) if decided] == offsets


AVRO = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "trip km", "type": "double"},
        {"name": "visits", "type": ["null", "long"], "default": None},
        {"name": "colour", "type": ["null", "string"], "default": None},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}


def avro(event: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    # The name of a field may not have a blank in Avro.
    fastavro.schemaless_writer(
        stream, fastavro.parse_schema(json.loads(json.dumps(AVRO).replace("trip km", "trip_km"))), event
    )
    return stream.getvalue()


def test_avro_with_a_schema_in_a_file(scorer: LocalScorer) -> None:
    class Renamed:
        name, version, threshold, outputs = scorer.name, scorer.version, scorer.threshold, scorer.outputs

        def __init__(self) -> None:
            self.inputs = [i.model_copy(update={"name": i.name.replace(" ", "_")}) for i in scorer.inputs]

        def predict(self, arrays: Any) -> Any:
            return scorer.predict({name.replace("_", " "): values for name, values in arrays.items()})

        def reasons(self, arrays: Any) -> list[Any]:
            return []

    value = avro({"trip_km": 2.5, "visits": None, "colour": "red", "at": 1_767_312_000_000})
    schema = json.dumps(AVRO).replace("trip km", "trip_km")
    settings = {"format": {"type": "avro", "schema_file": "order.avsc"}, "event_time": "at"}
    batch = decide(Renamed(), value, value[:-3], value + b"x", b"\xff" * 40, avro_schema=schema, **settings)
    (decision,) = decisions(batch)
    (plain,) = decisions(decide(scorer, {"trip km": 2.5, "colour": "red"}))
    assert decision["prediction"] == plain["prediction"]
    assert decision["event_time_ms"] == 1_767_312_000_000
    assert [code for code, _ in letters(batch)] == ["malformed"] * 3
    with pytest.raises(InputError, match=r"'order\.avsc' is no Avro schema"):
        decide(scorer, value, avro_schema='{"type": "recor"}', **settings)


def test_the_settings_contradict_nothing(tmp_path: Path) -> None:
    for wrong, says in [
        ({"input_topic": "a", "output_topic": "a"}, "must differ"),
        ({"duplicates": "drop"}, "give duplicate_window"),
        ({"format": {"type": "avro"}}, "either schema_file or schema_registry"),
        ({"format": {"schema_registry": "http://r"}}, "json, which needs no schema"),
        ({"endpoint": "http://m/v2/models/a", "reasons": 3}, "leave out endpoint, or reasons"),
    ]:
        with pytest.raises(ValueError, match=says):
            Stream.model_validate(wrong)
