"""Defective inputs: each gets its error class and one line, and leaves nothing half-written."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import DataRejectedError, InputError
from components.features import FEATURES, read_features, write_features
from tests.train_model.projects import Project, project, read_split, write_dataset

Table = Callable[[pa.Table], pa.Table]


@dataclass(frozen=True)
class Defect:
    name: str
    error: type[Exception]
    says: str
    rows: Table | None = None
    """Makes the transformed train split defective."""
    files: Callable[[Project], None] | None = None
    """Makes the folders of a copy defective."""
    kind: str = "binary"
    model: dict[str, Any] | None = None
    training: dict[str, Any] = field(default_factory=dict)
    code: str = ""


def column(name: str, change: Callable[[np.ndarray[Any, Any]], Any]) -> Table:
    """Replaces a column by what `change` makes of a copy of its values."""

    def made(table: pa.Table) -> pa.Table:
        values = change(table[name].to_numpy().copy())
        return table.set_column(table.column_names.index(name), name, pa.array(values))

    return made


def put(values: np.ndarray[Any, Any], value: float) -> np.ndarray[Any, Any]:
    values[7] = value
    return values


def truncate(made: Project) -> None:
    part = made.transformed / "train" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-50])


def damage(made: Project) -> None:
    part = made.transformed / "train" / "part-00000.parquet"
    content = bytearray(part.read_bytes())
    content[4:400] = bytes(396)
    part.write_bytes(content)


def claim_fewer_categories(made: Project) -> None:
    spec = read_features(made.transform_graph)
    features = [f.model_copy(update={"categories": 2}) if f.kind == "category" else f for f in spec.features]
    write_features(made.transform_graph, spec.model_copy(update={"features": features}))


def remove_all_features(made: Project) -> None:
    spec = read_features(made.transform_graph)
    write_features(made.transform_graph, spec.model_copy(update={"features": []}))


def custom(body: str) -> dict[str, Any]:
    return {"model": {"kind": "custom"}, "code": f"import keras\ndef build_model(inputs, task, options):\n    {body}\n"}


TEXT = np.array(["text"] * 900)
HUGE = {"learning_rate": 1e30}

DEFECTS = [
    Defect("no rows", DataRejectedError, "no rows", lambda t: t.slice(0, 0)),
    Defect("one row", DataRejectedError, "label 'label'", lambda t: t.slice(0, 1)),
    Defect("one class", DataRejectedError, "label 'label'", column("label", np.zeros_like)),
    Defect(
        "constant number",
        DataRejectedError,
        "label 'label' is 5 in all 900",
        column("label", lambda v: v * 0 + 5),
        kind="regression",
    ),
    Defect(
        "infinite label",
        DataRejectedError,
        "label 'label' is inf in 1 of 900",
        column("label", lambda v: put(v, np.inf)),
        kind="regression",
    ),
    Defect(
        "NaN feature", DataRejectedError, "'trip km' is nan in 1 of 900", column("trip km", lambda v: put(v, np.nan))
    ),
    Defect(
        "infinite feature",
        DataRejectedError,
        "'trip km' is inf in 1 of 900",
        column("trip km", lambda v: put(v, np.inf)),
    ),
    Defect(
        "huge feature",
        InputError,
        "'trip km' reaches 3e+38",
        column("trip km", lambda v: v * 0 + np.float32(3e38)),
        model={"kind": "mlp", "hidden_units": [16], "numeric_embedding": "none"},
    ),
    Defect("no such column", InputError, "no column 'visits'", lambda t: t.drop_columns(["visits"])),
    Defect("text feature", InputError, "'amount' is string", column("amount", lambda v: TEXT)),
    Defect("null feature", InputError, "'amount' has 450 nulls", column("amount", lambda v: [None] * 899 + [1.0])),
    Defect("negative id", InputError, "'colour' has the id -1", column("colour", lambda v: put(v, -1))),
    Defect("unknown id", InputError, "features.json allows 0 to 1", files=claim_fewer_categories),
    Defect(
        "class unknown",
        InputError,
        "label 'label' has the value 9",
        column("label", lambda v: put(v, 9)),
        kind="multiclass",
    ),
    Defect("truncated Parquet", InputError, "part-00000.parquet' cannot be read as Parquet", files=truncate),
    Defect("damaged Parquet", InputError, "part-00000.parquet' cannot be read as Parquet", files=damage),
    Defect("no train split", InputError, "no split 'train'", files=lambda p: shutil.rmtree(p.transformed / "train")),
    Defect("no features.json", InputError, f"no {FEATURES}", files=lambda p: (p.transform_graph / FEATURES).unlink()),
    Defect(
        "damaged features.json",
        InputError,
        f"{FEATURES}' is damaged: JSON: Invalid JSON",
        files=lambda p: (p.transform_graph / FEATURES).write_bytes(b'{"inputs": [\xff'),
    ),
    Defect(
        "features.json of other fields",
        InputError,
        f"{FEATURES}' is damaged: inputs: Field required; run transform_data again",
        files=lambda p: (p.transform_graph / FEATURES).write_text("{}"),
    ),
    Defect("no features", InputError, "no features", files=remove_all_features),
    Defect("learning rate", InputError, "training.learning_rate is 1e+30", training=HUGE),
    Defect(
        "learning rate, no validation",
        InputError,
        "training.learning_rate is 1e+30",
        training=HUGE | {"early_stopping": None},
    ),
    Defect("balanced regression", InputError, "class_weight", kind="regression", training={"class_weight": "balanced"}),
    Defect(
        "all held out", DataRejectedError, "holds out", lambda t: t.slice(0, 3), training={"validation_fraction": 0.99}
    ),
    Defect("custom without module", InputError, "defines no build_model", model={"kind": "custom"}),
    Defect("custom fails", InputError, "user_module.py, line 3: build_model: KeyError", **custom("inputs['amonut']")),
    Defect("custom returns nothing", InputError, "returned a NoneType", **custom("return None")),
    Defect(
        "custom of wrong width",
        InputError,
        "(None, 2)",
        **custom("return keras.Model(inputs, keras.layers.Dense(2)(inputs['amount']))"),
    ),
    Defect(
        "custom with sigmoid",
        InputError,
        "ends in sigmoid",
        **custom("return keras.Model(inputs, keras.layers.Dense(1, activation='sigmoid')(inputs['amount']))"),
    ),
    Defect("user module of bad syntax", InputError, "user_module.py, line 1", model={"kind": "custom"}, code="def f(:"),
]


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_is_refused_in_one_line(defect: Defect, tmp_path: Path) -> None:
    given = project(defect.kind)
    if defect.rows:
        train = defect.rows(read_split(given.transformed, "train"))
        given = replace(given, transformed=write_dataset(tmp_path / "given" / "transformed", train=train))
    if defect.files:
        copy = tmp_path / "given"
        shutil.copytree(given.transformed, copy / "transformed")
        shutil.copytree(given.transform_graph, copy / "graph")
        given = replace(given, transformed=copy / "transformed", transform_graph=copy / "graph")
        defect.files(given)

    (tmp_path / "output").mkdir()
    with pytest.raises(defect.error) as caught:
        given.train(tmp_path / "output", defect.model, defect.training, defect.code)
    assert type(caught.value) is defect.error
    assert defect.says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "output").iterdir())


def test_the_table_is_whole() -> None:
    assert len({defect.name for defect in DEFECTS}) == len(DEFECTS) >= 15


def test_unwritable_output_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("a file where a folder should be")
    with pytest.raises(OSError, match="output"):
        project("binary").train(tmp_path / "output", training={"epochs": 1})
    assert (tmp_path / "output").read_text() == "a file where a folder should be"


def test_features_json_is_what_transform_data_wrote() -> None:
    spec = json.loads((project("binary").transform_graph / FEATURES).read_text())
    assert [feature["name"] for feature in spec["features"]] == ["amount", "visits", "trip km", "colour"]
    assert pq.read_schema(project("binary").transformed / "train" / "part-00000.parquet").names
