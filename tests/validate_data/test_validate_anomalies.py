"""Severities, skew, drift, inference: what becomes an anomaly and how much it matters."""

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from components.schema import parse_schema
from tests.validate_data.datasets import EVAL_ROWS, SCHEMA, TRAIN_ROWS, Place, good, replaced

TRAIN, EVAL = good(TRAIN_ROWS), good(EVAL_ROWS, seed=1)
GARBAGE = {"carrier": replaced(TRAIN["carrier"], "Bitcoin", 600)}
OUTSIDE = "ENUM_TYPE_UNEXPECTED_STRING_VALUES"
INFINITY, JENSEN = "COMPARATOR_L_INFTY_HIGH", "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH"


def test_good_data_pass_without_anomalies(place: Place) -> None:
    result = place.write().validate()
    assert (result.verdict, result.reason) == ("pass", "0 anomalies in 2,500 rows")
    assert place.anomalies() == []


def test_warnings_are_counted_in_the_reason(place: Place) -> None:
    result = place.write({"wind": pa.array([1.0] * TRAIN_ROWS, pa.float32())}).validate()
    assert (result.verdict, result.reason) == ("pass", "0 anomalies in 2,500 rows (1 warning)")


@pytest.mark.parametrize(
    ("severity", "expected"),
    [
        ({OUTSIDE: "warn"}, "warn"),
        ({"carrier": "warn"}, "warn"),
        ({f"carrier/{OUTSIDE}": "warn", "carrier": "error", OUTSIDE: "error"}, "warn"),
        ({"carrier": "warn", OUTSIDE: "error"}, "warn"),
        ({f"hour/{OUTSIDE}": "warn"}, "error"),
        ({OUTSIDE: "ignore"}, None),
    ],
)
def test_the_most_exact_severity_wins(severity: dict[str, str], expected: str | None, place: Place) -> None:
    result = place.write(GARBAGE).validate(validation={"severity": severity})
    assert {one[0] for one in place.found()} == ({expected} if expected else set())
    assert result.verdict == ("fail" if expected == "error" else "pass")


def test_a_feature_may_have_a_slash_in_its_name(place: Place) -> None:
    schema = SCHEMA + 'feature { name: "a/b" type: BYTES string_domain { value: "x" value: "z" } }'
    place.write({"a/b": pa.array(["y", "x"] * 1000)}, {"a/b": pa.array(["x", "z"] * 250)})
    assert place.validate(schema).verdict == "fail"
    assert place.validate(schema, {"severity": {f"a/b/{OUTSIDE}": "warn"}}).verdict == "pass"


@pytest.mark.parametrize("count", [0, 1, 7, 600, TRAIN_ROWS])
def test_shares_and_examples_are_exact(count: int, place: Place) -> None:
    values = [f"X{i % 7}" for i in range(count)]
    place.write({"carrier": pa.concat_arrays([pa.array(values, pa.string()), TRAIN["carrier"].slice(count)])})
    place.validate(validation={"max_examples": 3})
    anomalies = [one for one in place.anomalies() if one["type"] == OUTSIDE]
    assert [one["share"] for one in anomalies] == ([count / TRAIN_ROWS] if count else [])
    if count >= 7:
        (one,) = anomalies
        assert len(one["examples"]) == 3
        assert all(example["rows"] == values.count(example["value"]) for example in one["examples"])


def test_examples_of_a_million_distinct_offending_values_stay_few(place: Place) -> None:
    rows = 1_000_000
    place.write_splits(
        {"train": good(rows) | {"carrier": pa.array([f"plane-{i}" for i in range(rows)])}, "eval": EVAL}
    ).validate()
    (one,) = [one for one in place.anomalies() if one["type"] == OUTSIDE]
    assert one["share"] == 1.0
    assert len(one["examples"]) == 5


def first_value(content: bytes) -> pa.Array:
    """The carriers, the first of them replaced by any bytes."""
    offsets = pa.py_buffer(np.array([0, len(content)], np.int32))
    value = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(content)])
    return pa.concat_arrays([value, TRAIN["carrier"].slice(1)])


@pytest.mark.parametrize(
    ("content", "type_", "shown"),
    [
        (b"x" * 1_000_000, OUTSIDE, f"{'x' * 60}… (1,000,000 bytes)"),
        ("ü".encode() * 100, OUTSIDE, f"{'ü' * 60}… (200 bytes)"),
        (b"a\nb\x00", OUTSIDE, "a\\x0ab\\x00"),
        (b"\xff!", "ENUM_TYPE_INVALID_UTF8", "\N{REPLACEMENT CHARACTER}!"),
    ],
    ids=["long", "wide characters", "control characters", "no UTF-8"],
)
def test_odd_values_are_shown_short_and_on_one_line(content: bytes, type_: str, shown: str, place: Place) -> None:
    place.write({"carrier": first_value(content)}).validate()
    (one,) = [one for one in place.anomalies() if one["type"] == type_]
    assert one["share"] == 1 / TRAIN_ROWS
    assert one["examples"] == [{"value": shown, "rows": 1}]


def test_skew_between_the_splits_is_a_warning_beyond_its_limit(place: Place) -> None:
    place.write(
        evaluation={
            "carrier": pa.array(["UA"] * 400 + ["DL"] * 100),
            "distance": pa.array(np.linspace(4000, 5000, EVAL_ROWS).astype(np.float32)),
        }
    )
    limits = {"default": {"l_infinity": 0.2, "jensen_shannon": 0.2}}
    result = place.validate(validation={"skew": limits})
    assert result.verdict == "pass"
    assert {("warn", "train", "carrier", INFINITY), ("warn", "train", "distance", JENSEN)} <= place.found()
    assert not any(feature == "hour" for _, _, feature, _ in place.found())
    (one,) = [one for one in place.anomalies() if one["type"] == INFINITY]
    assert one["examples"][0]["value"].startswith("UA: ")
    assert one["against"] == "eval"
    assert place.validate(validation={"skew": limits, "severity": {"SKEW": "error"}}).verdict == "fail"
    assert place.validate(validation={"skew": limits, "severity": {"DRIFT": "error"}}).verdict == "pass"


def test_a_limit_of_a_feature_replaces_the_default(place: Place) -> None:
    place.write(evaluation={"carrier": pa.array(["UA"] * 400 + ["DL"] * 100)})
    limits = {"default": {"l_infinity": 0.2}, "features": {"carrier": {"l_infinity": 0.9}}}
    place.validate(validation={"skew": limits})
    assert place.found() == set()


def test_the_schemas_own_comparators_hold_where_the_configuration_is_silent(place: Place) -> None:
    schema = SCHEMA.replace(
        '"carrier" type: BYTES', '"carrier" type: BYTES skew_comparator { infinity_norm { threshold: 0.2 } }'
    )
    place.write(evaluation={"carrier": pa.array(["UA"] * 400 + ["DL"] * 100)}).validate(schema)
    assert place.found() == {("warn", "train", "carrier", INFINITY)}


def test_default_limits_leave_identifiers_alone(place: Place) -> None:
    schema = SCHEMA + 'feature { name: "id" type: BYTES }'
    place.write({"id": pa.array(map(str, range(TRAIN_ROWS)))}, {"id": pa.array([f"e{i}" for i in range(EVAL_ROWS)])})
    place.validate(schema, {"skew": {"default": {"l_infinity": 0.0001, "jensen_shannon": 0.5}}})
    assert not any(feature == "id" for _, _, feature, _ in place.found())


def publish(place: Place, uri: str) -> str:
    """Puts the statistics of the place's train split into a published model."""
    with fsspec.open(f"{uri}/statistics/train.pb", "wb") as file:
        file.write((place.outputs / "statistics" / "train.pb").read_bytes())
    return uri


def assert_drift_is_found(place: Place, uri: str) -> None:
    place.write().validate()
    model = publish(place, uri)
    assert place.validate(production=model).verdict == "pass"
    place.write({"carrier": pa.array(["UA"] * TRAIN_ROWS)})
    limits = {"default": {"l_infinity": 0.3}}
    place.validate(validation={"drift": limits}, production=model)
    assert ("warn", "train", "carrier", INFINITY) in place.found()
    assert {one["against"] for one in place.anomalies() if one["type"] == INFINITY} == {"production"}
    result = place.validate(validation={"drift": limits, "severity": {"DRIFT": "error"}}, production=model)
    assert "carrier: largest difference of one value's share 0.6" in result.reason


def test_drift_against_a_model_on_disk(place: Place) -> None:
    (place.root / "model" / "statistics").mkdir(parents=True)
    assert_drift_is_found(place, str(place.root / "model"))


def test_drift_against_a_model_on_cloud_storage(place: Place, gcs_bucket: str) -> None:
    assert_drift_is_found(place, f"{gcs_bucket}/model")


def test_drift_against_a_model_on_s3(place: Place, s3_bucket: str) -> None:
    assert_drift_is_found(place, f"{s3_bucket}/model")


def test_without_a_schema_one_is_inferred_for_review(place: Place) -> None:
    result = place.write().validate(schema="")
    assert result.reason == "0 anomalies in 2,500 rows (schema inferred from the same data: review it)"
    assert "proves little" in place.report.read_text(encoding="utf-8")
    text = (place.outputs / "schema" / "schema.pbtxt").read_text(encoding="utf-8")
    schema = parse_schema(text)
    assert {feature.name for feature in schema.feature} == set(TRAIN)
    assert [feature.name for feature in schema.feature if "SERVING" in feature.not_in_environment] == ["late"]
    assert place.validate(text).reason == "0 anomalies in 2,500 rows"


def test_against_an_inferred_schema_the_reason_says_what_to_do(place: Place) -> None:
    result = place.write(evaluation={"carrier": replaced(EVAL["carrier"], "AA", 50)}).validate(schema="")
    assert result.reason == (
        "1 anomaly in split 'eval' (allowed: 0): carrier: 10.0 % of values outside the domain, e.g. 'AA' … "
        "widen schema.pbtxt or fix the source; it was inferred: review it and name it under `schema`"
    )


def test_a_curated_schema_is_written_out_unchanged_in_meaning(place: Place) -> None:
    place.write().validate()
    assert parse_schema((place.outputs / "schema" / "schema.pbtxt").read_text()) == parse_schema(SCHEMA)


def test_categorical_integers_are_compared_by_value(place: Place) -> None:
    schema = SCHEMA.replace("int_domain { min: 0 max: 23 }", "int_domain { min: 0 max: 23 is_categorical: true }")
    place.write(evaluation={"hour": pa.array([7] * EVAL_ROWS)})
    place.validate(schema, {"skew": {"features": {"hour": {"l_infinity": 0.5}}}})
    assert ("warn", "train", "hour", INFINITY) in place.found()


def test_a_random_column_is_no_leak_however_many_values_it_has(place: Place) -> None:
    schema = SCHEMA + 'feature { name: "id" type: BYTES } feature { name: "number" type: INT }'
    ids = {"id": pa.array(map(str, range(TRAIN_ROWS))), "number": pa.array(range(TRAIN_ROWS))}
    place.write(ids, {"id": pa.array(map(str, range(EVAL_ROWS))), "number": pa.array(range(EVAL_ROWS))})
    place.validate(schema)
    assert place.found() == set()


def test_a_leak_in_a_regression(place: Place) -> None:
    schema = (
        SCHEMA
        + 'feature { name: "price" type: FLOAT not_in_environment: "SERVING" } feature { name: "tax" type: FLOAT }'
    )
    train, evaluation = (np.random.default_rng(2).gamma(2, 50, rows).astype(np.float32) for rows in (2000, 500))
    place.write(
        {"price": pa.array(train), "tax": pa.array(train * np.float32(0.2))},
        {"price": pa.array(evaluation), "tax": pa.array(evaluation * np.float32(0.2))},
    )
    place.validate(schema, task={"type": "regression", "label": "price"})
    assert {(feature, type_) for _, _, feature, type_ in place.found()} == {("tax", "LABEL_LEAK")}
