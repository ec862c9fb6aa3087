"""Defective inputs: what the gate says, or exit code and one line; and nothing half-written."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import DataRejectedError, InputError, LockgateError
from components.stage import stage
from tests.validate_data.datasets import EVAL_ROWS, SCHEMA, TRAIN_ROWS, Columns, Place, good, replaced

TRAIN, EVAL = good(TRAIN_ROWS), good(EVAL_ROWS, seed=1)
PART = "part-00000.parquet"


@dataclass
class Bad:
    """Data that is judged."""

    name: str
    severity: str
    type: str
    feature: str = ""
    train: Columns = field(default_factory=dict)
    eval: Columns = field(default_factory=dict)
    split: str = "train"
    says: str = ""
    """In the reason, or in the description of a warning."""
    schema: str = SCHEMA
    task: dict[str, Any] = field(default_factory=dict)


def with_nulls(values: pa.Array, count: int) -> pa.Array:
    return replaced(values, None, count)


def extra(name: str, kind: str = "BYTES") -> str:
    return SCHEMA + f'feature {{ name: "{name}" type: {kind} }}'


def infinite(rows: int) -> pa.Array:
    return replaced(pa.array(np.ones(rows, np.float32) * 20), float("-inf"), 20)


BAD = [
    Bad(
        "garbage categories",
        "error",
        "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
        "carrier",
        {"carrier": replaced(TRAIN["carrier"], "Bitcoin", 602)},
        says="1 anomaly in split 'train' (allowed: 0): carrier: 30.1 % of values outside the domain, e.g. 'Bitcoin' … "
        "widen schema.pbtxt or fix the source",
    ),
    Bad(
        "too large",
        "error",
        "FLOAT_TYPE_BIG_FLOAT",
        "distance",
        eval={"distance": replaced(EVAL["distance"], 9e5, 5)},
        split="eval",
        says="distance: 1.0 % of values above the maximum, e.g. '900000'",
    ),
    Bad(
        "too small",
        "error",
        "INT_TYPE_SMALL_INT",
        "hour",
        {"hour": replaced(TRAIN["hour"], -1, 1)},
        says="0.1 % of values below the minimum, e.g. '-1'",
    ),
    Bad(
        "missing where required",
        "error",
        "FEATURE_TYPE_LOW_FRACTION_PRESENT",
        "hour",
        {"hour": with_nulls(TRAIN["hour"], 200)},
        says="hour: 10.0 % of rows without a value … lower presence",
    ),
    Bad(
        "all missing where required",
        "error",
        "FEATURE_TYPE_NOT_PRESENT",
        "hour",
        {"hour": pa.nulls(TRAIN_ROWS, pa.int64())},
        says="1 anomaly in split 'train' (allowed: 0): hour: 100.0 % of rows without a value … lower presence",
    ),
    Bad(
        "all missing where allowed",
        "warn",
        "ALL_MISSING",
        "wind",
        {"wind": pa.nulls(TRAIN_ROWS, pa.float32())},
        says="100.0 % of rows without a value",
    ),
    Bad(
        "another type",
        "error",
        "UNEXPECTED_DATA_TYPE",
        "hour",
        {"hour": pa.array(["noon"] * TRAIN_ROWS)},
        says="Expected data of type: INT but got STRING, e.g. 'noon' … correct the type",
    ),
    Bad(
        "a column too few",
        "error",
        "SCHEMA_MISSING_COLUMN",
        "gone",
        schema=SCHEMA + 'feature { name: "gone" type: BYTES presence { min_fraction: 1 } }',
        says="gone: the column is missing … bring it back",
    ),
    Bad(
        "a column too many",
        "error",
        "SCHEMA_NEW_COLUMN",
        "new",
        {"new": pa.array(["n"] * TRAIN_ROWS)},
        {"new": pa.array(["n"] * EVAL_ROWS)},
        says="new: the column is not in the schema, e.g. 'n'",
    ),
    Bad(
        "an empty eval split",
        "error",
        "EMPTY_SPLIT",
        eval={name: column.slice(0, 0) for name, column in EVAL.items()},
        split="eval",
        says="1 anomaly in split 'eval' (allowed: 0): no rows",
    ),
    Bad(
        "an empty train split",
        "error",
        "EMPTY_SPLIT",
        train={name: column.slice(0, 0) for name, column in TRAIN.items()},
        says="no rows",
    ),
    Bad(
        "one row",
        "error",
        "SINGLE_CLASS",
        "late",
        {name: column.slice(0, 1) for name, column in TRAIN.items()},
        says="late: only one class, e.g.",
    ),
    Bad(
        "one class",
        "error",
        "SINGLE_CLASS",
        "late",
        {"late": pa.array([1] * TRAIN_ROWS)},
        says="late: only one class, e.g. '1' … widen data.window",
    ),
    Bad(
        "three classes in a binary task",
        "error",
        "UNEXPECTED_CLASSES",
        "late",
        {"late": pa.array([0, 1, 2, 1] * (TRAIN_ROWS // 4))},
        schema=SCHEMA.replace("max: 1 }", "max: 2 }"),
        says="label 'late' has 3 values ('0', '1', '2'), a binary task takes 2",
    ),
    Bad(
        "a positive class that never occurs",
        "error",
        "UNEXPECTED_CLASSES",
        "late",
        task={"positive": "yes"},
        says="not 'yes' (task.positive)",
    ),
    Bad(
        "rows without a label",
        "warn",
        "MISSING_LABELS",
        "late",
        {"late": with_nulls(TRAIN["late"], 20)},
        schema=SCHEMA.replace('"late" type: INT presence { min_fraction: 1 }', '"late" type: INT'),
        says="1.0 % of rows without a label",
    ),
    Bad(
        "a constant column",
        "warn",
        "CONSTANT_FEATURE",
        "wind",
        {"wind": pa.array([5.0] * TRAIN_ROWS, pa.float32())},
        says="the same value in every row",
    ),
    Bad(
        "infinite",
        "error",
        "INFINITE_VALUES",
        "wind",
        {"wind": infinite(TRAIN_ROWS)},
        says="1.0 % of values are infinite",
    ),
    Bad(
        "not a number",
        "error",
        "NAN_VALUES",
        "wind",
        eval={"wind": replaced(EVAL["wind"], float("nan"), 50)},
        split="eval",
        says="wind: 10.0 % of values are NaN, e.g. 'nan' … write them as missing",
    ),
    Bad(
        "a leaked label, as text",
        "warn",
        "LABEL_LEAK",
        "outcome",
        {"outcome": pa.array(["late" if one else "on time" for one in TRAIN["late"].to_pylist()])},
        {"outcome": pa.array(["late"] * EVAL_ROWS)},
        schema=extra("outcome"),
        says="determines the label almost alone: score 1.000",
    ),
    Bad(
        "a leaked label, as a number",
        "warn",
        "LABEL_LEAK",
        "delay",
        {"delay": pa.array([40.0 * one + i % 30 for i, one in enumerate(TRAIN["late"].to_pylist())], pa.float32())},
        {"delay": pa.array(range(EVAL_ROWS), pa.float32())},
        schema=extra("delay", "FLOAT"),
        says="determines the label almost alone",
    ),
    Bad(
        "a string of a megabyte",
        "warn",
        "HUGE_STRINGS",
        "note",
        {"note": replaced(pa.array(["n", "m"] * (TRAIN_ROWS // 2)), "x" * 1_000_000, 1)},
        {"note": pa.array(["n", "m"] * (EVAL_ROWS // 2))},
        schema=extra("note"),
        says="0.1 % of values longer than 10,000 bytes",
    ),
    Bad(
        "a schema that expects the label when serving",
        "warn",
        "LABEL_WHEN_SERVING",
        "late",
        schema=SCHEMA.replace('not_in_environment: "SERVING"', ""),
        split="schema",
        says="the schema expects the label when serving",
    ),
    Bad(
        "a schema without the serving environment",
        "warn",
        "SERVING_ENVIRONMENT_ABSENT",
        schema=SCHEMA.replace('default_environment: "SERVING"\n', "").replace('not_in_environment: "SERVING"', ""),
        split="schema",
        says="the schema has no such environment: 'SERVING' (it has: TRAINING)",
    ),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_bad_data_is_judged_and_reported(bad: Bad, place: Place) -> None:
    splits = {"train": TRAIN | bad.train, "eval": EVAL | bad.eval}
    result = place.write_splits(splits).validate(bad.schema, task=bad.task)
    assert (bad.severity, bad.split, bad.feature, bad.type) in place.found()
    assert result.verdict == ("fail" if bad.severity == "error" else "pass")
    texts = [one["description"] for one in place.anomalies() if one["type"] == bad.type]
    assert any(bad.says in text for text in ([result.reason] if bad.severity == "error" else texts))
    assert "\n" not in result.reason
    assert bad.type in place.report.read_text(encoding="utf-8")


@dataclass
class Wrong:
    """Input that cannot be judged."""

    name: str
    error: type[LockgateError]
    says: str
    make: Callable[[Place], object] = lambda place: None
    schema: str = SCHEMA
    validation: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    production: str = ""


def truncate(place: Place) -> None:
    part = place.examples / "train" / PART
    part.write_bytes(part.read_bytes()[:-100])


def damage(place: Place) -> None:
    part = place.examples / "eval" / PART
    content = bytearray(part.read_bytes())
    content[4:2000] = b"\xff" * 1996
    part.write_bytes(content)


def write_part(**columns: pa.Array) -> Callable[[Place], object]:
    return lambda place: pq.write_table(pa.table(columns), place.examples / "train" / PART)


def duplicate_column(place: Place) -> None:
    table = pa.Table.from_arrays([TRAIN["late"], TRAIN["hour"], TRAIN["hour"]], ["late", "hour", "hour"])
    pq.write_table(table, place.examples / "train" / PART)


def second_part(place: Place) -> None:
    pq.write_table(pa.table({"late": ["1"]}), place.examples / "train" / "part-00001.parquet")


def bad_baseline(content: bytes) -> Callable[[Place], object]:
    def make(place: Place) -> None:
        (place.root / "model" / "statistics").mkdir(parents=True)
        (place.root / "model" / "statistics" / "train.pb").write_bytes(content)

    return make


WRONG = [
    Wrong("truncated Parquet", DataRejectedError, "is not readable as Parquet", truncate),
    Wrong("damaged Parquet", DataRejectedError, "is not readable as Parquet", damage),
    Wrong(
        "a type that no dataset has", DataRejectedError, "Arrow type bool (allowed:", write_part(late=pa.array([True]))
    ),
    Wrong("a duplicate column", DataRejectedError, "column 'hour' is there 2 times (allowed: 1)", duplicate_column),
    Wrong("parts that differ", DataRejectedError, "part-00001.parquet' has other columns or types", second_part),
    Wrong("no manifest", InputError, "has no manifest.json", lambda place: (place.examples / "manifest.json").unlink()),
    Wrong("no files", InputError, "has no split 'eval'", lambda place: (place.examples / "eval" / PART).unlink()),
    Wrong(
        "no train split",
        InputError,
        "no split 'train' (it has: eval)",
        lambda place: place.write_splits({"eval": EVAL}),
    ),
    Wrong("an unknown label", InputError, "task.label 'lat' is no column", task={"label": "lat"}),
    Wrong("a near label", InputError, "did you mean 'late'?", task={"label": "lat"}),
    Wrong("no schema", InputError, "schema: 1:1", schema="features { }"),
    Wrong("a schema of structs", InputError, "has type STRUCT", schema='feature { name: "s" type: STRUCT }'),
    Wrong(
        "an unknown anomaly type",
        InputError,
        "'ENUM_TYPE_UNEXPECTED_STRING' is no anomaly type, feature or feature/type; "
        "did you mean 'ENUM_TYPE_UNEXPECTED_STRING_VALUES'?",
        validation={"severity": {"ENUM_TYPE_UNEXPECTED_STRING": "warn"}},
    ),
    Wrong(
        "an unknown type of a feature",
        InputError,
        "unknown anomaly type in 'hour/constant_feature'; did you mean 'CONSTANT_FEATURE'?",
        validation={"severity": {"hour/constant_feature": "warn"}},
    ),
    Wrong(
        "a type of an unknown feature",
        InputError,
        "no feature 'hours' in 'hours/CONSTANT_FEATURE'; did you mean 'hour'?",
        validation={"severity": {"hours/CONSTANT_FEATURE": "warn"}},
    ),
    Wrong(
        "a limit for an unknown feature",
        InputError,
        "validation.skew.features: no feature 'carier'; did you mean 'carrier'?",
        validation={"skew": {"features": {"carier": {"l_infinity": 0.1}}}},
    ),
    Wrong(
        "L-infinity of numbers",
        InputError,
        "validation.drift.features.distance: l_infinity compares categories and 'distance' is a number",
        validation={"drift": {"features": {"distance": {"l_infinity": 0.1}}}},
    ),
    Wrong("no production model", InputError, "statistics/train.pb' does not exist", production="model"),
    Wrong("no statistics", InputError, "holds no TFDV statistics", bad_baseline(b"\xff\xff"), production="model"),
    Wrong("empty statistics", InputError, "holds 0 data sets (wanted: 1)", bad_baseline(b""), production="model"),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_wrong_input_is_told_in_one_line_and_leaves_nothing(
    wrong: Wrong, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.write()
    wrong.make(place)
    production = str(place.root / wrong.production) if wrong.production else ""
    with pytest.raises(SystemExit) as exit_, stage("validate_data"):
        place.validate(wrong.schema, wrong.validation, wrong.task, production)
    assert exit_.value.code == wrong.error.exit_code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"validate_data: {wrong.error.label}: ")
    assert wrong.says in line
    assert place.left_behind() == []


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_killed_stage_run_again_ends_like_an_undisturbed_one(step: int, place: Place, tmp_path: Path) -> None:
    undisturbed = Place(tmp_path / "undisturbed").write()
    undisturbed.validate()
    place.write()
    child = os.fork()  # TFDV takes seconds to import; the child has it already
    if not child:
        _die_at_rename(step)
        place.validate()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    place.validate()
    assert place.left_behind() == undisturbed.left_behind()
    for name in (name for name in place.left_behind() if (place.outputs / name).is_file()):
        if not name.endswith(".pb"):  # TFDV orders values of equal frequency by chance
            assert (place.outputs / name).read_bytes() == (undisturbed.outputs / name).read_bytes(), name


def _die_at_rename(step: int) -> None:
    """Lets the process kill itself when it is about to give the step-th output its final name."""
    real, calls = (Path.rename, Path.replace), iter(range(1, 100))

    def counted(move: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def rename(self: Path, target: Path) -> Path:
            if next(calls) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return move(self, target)

        return rename

    Path.rename, Path.replace = map(counted, real)  # type: ignore[method-assign]
