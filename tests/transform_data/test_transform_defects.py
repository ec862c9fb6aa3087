"""Defective inputs: each ends with a class of error and one line that says what to do, and leaves nothing behind."""

import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import InputError, LockgateError
from components.transform_graph import TransformGraph
from tests.transform_data.datasets import Project

ROWS = 30
TYPES = {
    "amount": "FLOAT",
    "count": "INT",
    "color": "BYTES",
    "when": "INT time_domain { integer_format: UNIX_SECONDS }",
    "y": "INT",
    "price": "FLOAT",
    "kind": "BYTES",
}
NUMERIC = {"numeric": [{"columns": ["amount"]}]}
INPUT, REJECTED = 2, 3


def _rows(rows: int = ROWS, **changed: Any) -> dict[str, list]:
    return {
        "amount": [index / 7 for index in range(rows)],
        "count": [index * 3 for index in range(rows)],
        "color": [("red", "green", "blue")[index % 3] for index in range(rows)],
        "when": [1_357_017_300 + index * 86_400 for index in range(rows)],
        "y": [index % 2 for index in range(rows)],
        "price": [index * 1.5 for index in range(rows)],
        "kind": [("no", "yes")[index % 2] for index in range(rows)],
        **{name: value * rows if len(value) == 1 else value for name, value in changed.items()},
    }


def _binary(label: str, positive: Any = None) -> dict[str, Any]:
    return {"type": "binary", "label": label, "positive": positive}


def _remove_manifest(project: Project) -> None:
    (project.examples / "manifest.json").unlink()


def _remove_schema(project: Project) -> None:
    (project.schema / "schema.pbtxt").unlink()


def _break_schema(project: Project) -> None:
    (project.schema / "schema.pbtxt").write_text("feature { nome: 1 }")


def _truncate(project: Project) -> None:
    part = project.examples / "train" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-100])


def _drop_column(project: Project) -> None:
    part = project.examples / "eval" / "part-00000.parquet"
    pq.write_table(pq.read_table(part).drop_columns(["amount"]), part)


def _no_train(project: Project) -> None:
    (project.examples / "train" / "part-00000.parquet").unlink()


@dataclass
class Defect:
    """What is wrong, and what comes of it; the rest is sound."""

    exit_code: int
    message: str
    columns: dict[str, Any] = field(default_factory=dict)
    features: dict[str, Any] = field(default_factory=lambda: NUMERIC)
    task: dict[str, Any] = field(default_factory=lambda: _binary("y"))
    damage: Callable[[Project], None] | None = None


def _numeric(name: str, **more: Any) -> dict[str, Any]:
    return {"numeric": [{"columns": [name], **more}]}


def _categorical(*names: str) -> dict[str, Any]:
    return {"categorical": [{"columns": list(names)}]}


def _cross(*names: str) -> dict[str, Any]:
    return {"columns": list(names)}


REGRESSION = {"type": "regression", "label": "price"}
REQUIRED_AMOUNT = _numeric("amount", missing="error")
INFINITE_PRICE = {"price": [*range(29), -math.inf]}
SAME_NAME = {"crosses": [_cross("color", "count"), _cross("color", "count")]}
ONE_VALUE = {"amount": [1.0, *[None] * 29], "y": [None, *[0, 1] * 14, 1]}

DEFECTS = {
    # settings
    "misspelt feature": Defect(INPUT, "'amuont' is not in the schema; did you mean 'am", features=_numeric("amuont")),
    "misspelt label": Defect(INPUT, "column 'yy' is not in the schema; did you mean 'y'?", task=_binary("yy")),
    "misspelt cross": Defect(INPUT, "did you mean 'color'?", features={"crosses": [_cross("color", "colour")]}),
    "label as feature": Defect(INPUT, "the label 'y' is among the features", features=_numeric("y")),
    "text as number": Defect(INPUT, "numeric feature 'color' holds text (schema: BYTES)", features=_numeric("color")),
    "number as time": Defect(INPUT, "'count' has no time_domain", features={"datetime": [{"columns": ["count"]}]}),
    "two features of one name": Defect(INPUT, "two features would be called 'color_x_count'", features=SAME_NAME),
    # features
    "all missing number": Defect(REJECTED, "column 'amount' is missing in all 30 train rows", {"amount": [None]}),
    "all NaN": Defect(REJECTED, "column 'amount' is missing in all 30 train rows", {"amount": [math.nan]}),
    "all missing category": Defect(REJECTED, "'color' is missing in all 30", {"color": [None]}, _categorical("color")),
    "all empty text": Defect(REJECTED, "'color' is missing in all 30", {"color": [""]}, _categorical("color")),
    "infinite number": Defect(REJECTED, "column 'amount' holds inf in split", {"amount": [*range(29), math.inf]}),
    "no complete row": Defect(REJECTED, "none of 30 rows has a label and all", ONE_VALUE, REQUIRED_AMOUNT),
    # label
    "no label anywhere": Defect(REJECTED, "label 'y' is missing in all 30 train rows", {"y": [None]}),
    "one class": Defect(REJECTED, "label 'y' has one value in train, '1' (needed: 2)", {"y": [1]}),
    "three classes, binary": Defect(INPUT, "label 'y' has 3 values", {"y": [0, 1, 2] * 10}),
    "no positive class": Defect(INPUT, "set task.positive", task=_binary("kind")),
    "unknown positive class": Defect(INPUT, "'maybe' (task.positive)", task=_binary("kind", "maybe")),
    "fractions as classes": Defect(INPUT, "set task.type to regression", task={"type": "multiclass", "label": "price"}),
    "text as target": Defect(INPUT, "a regression needs numbers", task={"type": "regression", "label": "kind"}),
    "infinite target": Defect(REJECTED, "'price' holds -inf in split", INFINITE_PRICE, task=REGRESSION),
    # files
    "no manifest": Defect(INPUT, "has no manifest.json", damage=_remove_manifest),
    "no schema": Defect(INPUT, "has no schema.pbtxt", damage=_remove_schema),
    "broken schema": Defect(INPUT, 'has no field named "nome"', damage=_break_schema),
    "no train rows": Defect(INPUT, "has no split 'train'", damage=_no_train),
    "truncated file": Defect(REJECTED, "cannot be read as Parquet", damage=_truncate),
    "column gone in eval": Defect(REJECTED, "split 'eval' has no column 'amount'", damage=_drop_column),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFECTS)
def test_defect_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    defect = DEFECTS[name]
    project = Project(tmp_path).write(TYPES, train=_rows(**defect.columns))
    if defect.damage:
        defect.damage(project)
    with pytest.raises(LockgateError) as caught:
        project.transform(defect.features, task=defect.task)
    assert defect.message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == defect.exit_code
    assert project.left_behind() == []


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--runner=NoSuchRunner", "the features cannot be analyzed: Unexpected pipeline runner: NoSuchRunner"),
        ("--direct_num_workers=many", "beam_args: argument --direct_num_workers: invalid int value: 'many'"),
    ],
)
def test_wrong_option_of_beam(tmp_path: Path, option: str, message: str) -> None:
    project = Project(tmp_path).write(TYPES, train=_rows())
    with pytest.raises(InputError, match=re.escape(message)):
        project.transform(NUMERIC, beam_args=[option])
    assert project.left_behind() == []


HOSTILE = [
    "a b",
    "quote\"d'",
    "../../etc",
    "<script>alert(1)</script>",
    "größe",
    "",
    "name",
    "column_0",
    "NAME",
    "a.b",
    "1st",
]


def test_columns_may_be_called_anything(tmp_path: Path) -> None:
    names = [name for name in HOSTILE if name]
    types = {name: ("FLOAT", "BYTES")[index % 2] for index, name in enumerate(names)}
    rows = {name: [float(row) if types[name] == "FLOAT" else f"v{row % 3}" for row in range(ROWS)] for name in names}
    project = Project(tmp_path).write({**types, "y": "INT"}, train={**rows, "y": [0, 1] * 15})
    features = {
        "numeric": [{"columns": names[0::2], "indicator": True}],
        "categorical": [{"columns": names[1::2]}],
        "crosses": [{"columns": names[1:4:2]}],
    }
    outputs = project.transform(features)
    assert outputs.table().num_rows == ROWS
    assert set(names) < set(outputs.table().column_names)
    signature = TransformGraph(outputs.graph).input_signature
    assert set(signature) == set(names)
    assert len({spec.name for spec in signature.values()}) == len(names)


def test_one_row_is_enough_for_a_regression(tmp_path: Path) -> None:
    project = Project(tmp_path).write(TYPES, train=_rows(1))
    outputs = project.transform(
        {"numeric": [{"columns": ["amount"]}, {"columns": ["count"], "scale": "min_max"}]},
        task={"type": "regression", "label": "price"},
    )
    assert outputs.table().to_pylist() == [{"amount": 0.0, "count": 0.0, "price": 0.0}]


def test_constant_and_long_and_broken_text_and_rare_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 1_000_000
    colors = ["red", long, "two\nlines", "nul\0byte", *["red"] * 26]
    project = Project(tmp_path).write(TYPES, train=_rows(amount=[4.0], color=colors))
    _put_invalid_utf8(project.examples / "train" / "part-00000.parquet", "color", row=4)
    outputs = project.transform(
        {"numeric": [{"columns": ["amount"]}], "categorical": [{"columns": ["color"]}]},
        task={"type": "multiclass", "label": "kind"},
    )
    assert "column 'amount' is 4.0 in every train row" in capsys.readouterr().out
    table = outputs.table()
    assert set(table["amount"].to_pylist()) == {0.0}
    assert table["kind"].to_pylist() == [index % 2 for index in range(ROWS)]
    categories = next(f.categories for f in outputs.spec.features if f.name == "color")
    ids = table["color"].to_pylist()
    assert ids[0] == 1
    assert ids[2] == categories - 1  # TFT keeps a vocabulary as lines: text with a line break is out of it
    assert len({ids[0], ids[1], ids[2]}) == 3
    assert 0 < max(ids) < categories


def test_features_are_chosen_by_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = _rows(60, price=[None])
    rows["color"] = [f"id-{index}" for index in range(60)]
    types = {**TYPES, "late": 'INT not_in_environment: "SERVING"'}
    project = Project(tmp_path).write(types, train={**rows, "late": [1] * 60})
    outputs = project.transform(task=_binary("y"))
    assert {feature.name: feature.kind for feature in outputs.spec.features} == {
        "amount": "number",
        "when_month": "category",
        "when_weekday": "category",
        "when_hour": "category",
        "kind": "category",
    }
    said = capsys.readouterr().out
    assert "column 'color' is no feature: 60 different values in 60 rows" in said
    assert "column 'count' is no feature: 60 different values in 60 rows" in said
    assert "column 'price' is no feature: it has no value in train" in said


def test_rows_without_label_or_required_value_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = _rows(amount=[None, *[1.0] * 29], color=["", *["red"] * 29], y=[0, None, *[0, 1] * 14])
    project = Project(tmp_path).write(TYPES, train=rows)
    outputs = project.transform(
        {
            "numeric": [{"columns": ["amount"], "missing": "error"}],
            "categorical": [{"columns": ["color"], "missing": "error"}],
        }
    )
    assert outputs.manifest.splits == {"eval": 28, "train": 28}
    assert "train: 28 rows, 2 features, 2 left out for a missing label or required value" in capsys.readouterr().out
    assert {raw.name for raw in outputs.spec.inputs if raw.required} == {"amount", "color"}


def test_killed_stage_runs_again(tmp_path: Path) -> None:
    project = Project(tmp_path).write(TYPES, train=_rows())
    program = (
        "from pathlib import Path; from tests.transform_data.datasets import Project; "
        f"Project(Path({str(tmp_path)!r})).transform({NUMERIC!r}, analysis_cache={str(tmp_path / 'cache')!r})"
    )
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    assert "analyzing" in process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run" / "transformed").exists()
    again = project.transform(NUMERIC, analysis_cache=str(tmp_path / "cache"))
    undisturbed = project.transform(NUMERIC, name="undisturbed")
    assert again.table() == undisturbed.table()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["transform_graph", "transformed"]


def _put_invalid_utf8(part: Path, column: str, row: int) -> None:
    """Writes a file as a careless program would: text that is no UTF-8."""
    table = pq.read_table(part)
    values = table[column].cast(pa.binary()).to_pylist()
    values[row] = b"\xff\xfe"
    broken = pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())
    pq.write_table(table.set_column(table.column_names.index(column), column, broken), part)
