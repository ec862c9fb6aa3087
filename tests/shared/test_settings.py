"""Sections of pipeline.yaml as a stage reads them back. Needs: the venv twin of the base image."""

import json
from datetime import date
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2

from components.settings import CustomModel, Data, Evaluation, Section, Task, Training


def travelled(section: Section) -> Section:
    """Hands a section on as KFP does: as a Struct, whose numbers are all floats."""
    sent = json_format.ParseDict(section.model_dump(mode="json", exclude_none=True), struct_pb2.Struct())
    numbers_are_floats = {name: _value(value) for name, value in sent.fields.items()}
    return type(section).model_validate(numbers_are_floats)


def text(section: Section) -> str:
    return json.dumps(section.model_dump(mode="json"), sort_keys=True)


def _value(value: struct_pb2.Value) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return {name: _value(one) for name, one in value.struct_value.fields.items()}
        case "list_value":
            return [_value(one) for one in value.list_value.values]
        case kind:
            return getattr(value, str(kind))


@pytest.mark.parametrize(
    "section",
    [
        CustomModel(
            kind="custom",
            options={"units": 16, "rate": 0.5, "big": 1e300, "flag": True, "layers": [8, 4], "rates": [1.5, 2.0]},
        ),
        Task(type="binary", label="late", positive=1),
        Task(type="binary", label="late", positive=0),
        Task(type="binary", label="late", positive=True),
        Training(epochs=3, seed=0),
        Evaluation.model_validate({"decision_threshold": 0.25, "thresholds": [{"metric": "auc", "min": 1}]}),
    ],
    ids=lambda section: type(section).__name__,
)
def test_a_section_arrives_as_it_was_sent(section: Section) -> None:
    arrived = travelled(section)
    assert arrived == section
    assert text(arrived) == text(section)  # 16 == 16.0, and True == 1


def test_whole_numbers_in_options_are_integers() -> None:
    arrived = travelled(CustomModel(kind="custom", options={"units": 16.0, "layers": [8.0, 4.0]}))
    assert '"options": {"layers": [8, 4], "units": 16}' in text(arrived)


@pytest.mark.parametrize(
    ("given", "window"), [(2013, "2013"), (date(2013, 12, 1), "2013-12-01"), ("last 3 months", "last 3 months")]
)
def test_a_window_may_be_what_yaml_takes_for_a_number_or_a_date(given: object, window: str) -> None:
    data = {"source": "x-{YYYY}.csv", "split": {"by": "hash", "key": ["id"]}, "window": given}
    assert Data.model_validate(data).window == window
