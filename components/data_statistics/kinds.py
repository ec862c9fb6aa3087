"""The kinds of anomalies: TFDV's, by TFDV's names, and those that TFDV does not look for."""

from dataclasses import dataclass
from typing import Literal

from tensorflow_metadata.proto.v0 import anomalies_pb2

Level = Literal["error", "warn"]


@dataclass(frozen=True)
class Kind:
    """What is said about every anomaly of a type."""

    text: str
    """After the share of rows: "30.1 % of values outside the domain"; empty: TFDV's own words."""
    advice: str
    """The next step."""
    severity: Level = "error"


_WIDEN = "widen schema.pbtxt or fix the source"
_PRESENCE = "lower presence in schema.pbtxt or fix the source"
_TYPE = "correct the type in schema.pbtxt or fix the source"
_DISTANCE = "compare the distributions in the report; retrain on newer data, or raise the limit"
_REGRET = "fix the source, or leave the column out"

_TFDV = {
    "ENUM_TYPE_UNEXPECTED_STRING_VALUES": Kind("of values outside the domain", _WIDEN),
    "BOOL_TYPE_UNEXPECTED_STRING": Kind("of values outside the domain", _WIDEN),
    "ENUM_TYPE_INVALID_UTF8": Kind("of values are not UTF-8", "set data.csv.encoding, or fix the source"),
    "INT_TYPE_BIG_INT": Kind("of values above the maximum", _WIDEN),
    "INT_TYPE_SMALL_INT": Kind("of values below the minimum", _WIDEN),
    "FLOAT_TYPE_BIG_FLOAT": Kind("of values above the maximum", _WIDEN),
    "FLOAT_TYPE_SMALL_FLOAT": Kind("of values below the minimum", _WIDEN),
    "FLOAT_TYPE_HAS_NAN": Kind("of values are NaN", "write them as missing"),
    "FLOAT_TYPE_HAS_INF": Kind("of values are infinite", "fix the source, or write them as missing"),
    "INT_TYPE_NOT_INT_STRING": Kind("of values are no integers", _WIDEN),
    "FLOAT_TYPE_STRING_NOT_FLOAT": Kind("of values are no numbers", _WIDEN),
    "FEATURE_TYPE_LOW_FRACTION_PRESENT": Kind("of rows without a value", _PRESENCE),
    "FEATURE_TYPE_LOW_NUMBER_PRESENT": Kind("of rows without a value", _PRESENCE),
    "FEATURE_TYPE_NOT_PRESENT": Kind("of rows without a value", _PRESENCE),
    "SCHEMA_MISSING_COLUMN": Kind("the column is missing", "bring it back, or take it out of schema.pbtxt"),
    "SCHEMA_NEW_COLUMN": Kind("the column is not in the schema", "describe it in schema.pbtxt, or drop it"),
    "UNEXPECTED_DATA_TYPE": Kind("", _TYPE),
    "COMPARATOR_L_INFTY_HIGH": Kind("", _DISTANCE, "warn"),
    "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH": Kind("", _DISTANCE, "warn"),
    "COMPARATOR_CONTROL_DATA_MISSING": Kind("", _DISTANCE, "warn"),
    "COMPARATOR_TREATMENT_DATA_MISSING": Kind("", _DISTANCE, "warn"),
}

OWN = {
    "EMPTY_SPLIT": Kind("no rows", "widen data.window, or change data.split"),
    "CONSTANT_FEATURE": Kind("the same value in every row", "leave the column out: it teaches nothing", "warn"),
    "ALL_MISSING": Kind("of rows without a value", "leave the column out, or fix the source", "warn"),
    "INFINITE_VALUES": Kind("of values are infinite", "fix the source, or write them as missing"),
    "NAN_VALUES": Kind("of values are NaN", "write them as missing"),
    "HUGE_STRINGS": Kind("of values longer than 10,000 bytes", _REGRET, "warn"),
    "LABEL_LEAK": Kind("determines the label almost alone", "leave it out if it is known only afterwards", "warn"),
    "MISSING_LABELS": Kind(
        "of rows without a label", "no stage learns from them or measures by them: drop them in the source", "warn"
    ),
    "SINGLE_CLASS": Kind("only one class", "widen data.window, or check task.label"),
    "UNEXPECTED_CLASSES": Kind("", "check task.type and task.positive"),
    "LABEL_WHEN_SERVING": Kind(
        "the schema expects the label when serving", "add not_in_environment to it in schema.pbtxt", "warn"
    ),
    "SERVING_ENVIRONMENT_ABSENT": Kind(
        "the schema has no such environment", "add default_environment to schema.pbtxt", "warn"
    ),
}

GROUPS = ("SKEW", "DRIFT")
"""Stand for the comparators' types, split by what train is compared with: eval, or production."""

TYPES = frozenset(anomalies_pb2.AnomalyInfo.Type.keys()) | OWN.keys()


def kind(name: str) -> Kind:
    """Gives the kind of an anomaly type; a type without an entry is an error in TFDV's words."""
    return OWN.get(name) or _TFDV.get(name) or Kind("", _WIDEN)
