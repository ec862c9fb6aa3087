"""A user's preprocessing_fn, written as for TFX."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from components.errors import InputError, LockgateError
from components.rows import MISSING_INTEGER
from components.transform_graph import TransformGraph
from tests.transform_data.datasets import Outputs, Project

ROWS = 200
TYPES = {
    "ride": "BYTES presence { min_fraction: 1.0 }",
    "miles": "FLOAT",
    "seconds": "INT",
    "company": "BYTES",
    "hour": "INT presence { min_fraction: 1.0 }",
    "payment": "BYTES presence { min_fraction: 1.0 }",
    "tipped": "INT",
}
TASK = {"type": "binary", "label": "tipped"}

# Sparse columns are filled, dense ones are [rows, 1]; outputs have both forms.
MODULE = """
import tensorflow as tf
import tensorflow_transform as tft

DENSE_FLOATS = ["miles", "seconds"]


def _fill_in_missing(x):
    if not isinstance(x, tf.sparse.SparseTensor):
        return x
    default = "" if x.dtype == tf.string else 0
    dense = tf.sparse.to_dense(tf.SparseTensor(x.indices, x.values, [x.dense_shape[0], 1]), default)
    return tf.squeeze(dense, axis=1)


def preprocessing_fn(inputs):
    outputs = {}
    for key in DENSE_FLOATS:
        outputs[key + "_xf"] = tft.scale_to_z_score(tf.cast(_fill_in_missing(inputs[key]), tf.float32))
    outputs["company_xf"] = tft.compute_and_apply_vocabulary(
        _fill_in_missing(inputs["company"]), top_k=10, num_oov_buckets=2, vocab_filename="company"
    )
    outputs["payment_xf"] = tft.compute_and_apply_vocabulary(inputs["payment"])
    outputs["miles_bucket"] = tft.bucketize(_fill_in_missing(inputs["miles"]), 4)
    outputs["hour_pair"] = tf.concat([tf.cast(inputs["hour"], tf.float32), tf.cast(inputs["hour"] ** 2, tf.float32)], 1)
    outputs["company_sparse"] = tft.compute_and_apply_vocabulary(inputs["company"])
    outputs["seconds_sparse"] = inputs["seconds"]
    outputs["tipped_xf"] = _fill_in_missing(inputs["tipped"])
    return outputs
"""


def _rows() -> dict[str, list]:
    draw = np.random.default_rng(3)
    miles = draw.exponential(5, ROWS)
    return {
        "ride": [f"ride-{index}" for index in range(ROWS)],
        "miles": [None if index % 10 == 0 else float(value) for index, value in enumerate(miles)],
        "seconds": [None if index % 9 == 0 else int(value * 200) for index, value in enumerate(miles)],
        "company": [None if index % 7 == 0 else f"co{value}" for index, value in enumerate(draw.integers(0, 5, ROWS))],
        "hour": draw.integers(0, 24, ROWS).tolist(),
        "payment": draw.choice(["cash", "card"], ROWS, p=[0.7, 0.3]).tolist(),
        "tipped": [None if index == 5 else int(value) for index, value in enumerate(draw.integers(0, 2, ROWS))],
    }


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    project = Project(tmp_path_factory.mktemp("user")).write(TYPES, train=_rows())
    return project.transform(task=TASK, user_module=MODULE)


def test_missing_label_leaves_the_row_out(outputs: Outputs, capsys: pytest.CaptureFixture[str]) -> None:
    assert outputs.manifest.splits == {"eval": ROWS - 1, "train": ROWS - 1}


def test_only_used_columns_are_inputs_and_presence_decides_what_is_required(outputs: Outputs) -> None:
    assert {raw.name: raw.required for raw in outputs.spec.inputs} == {
        "miles": False, "seconds": False, "company": False, "hour": True, "payment": True,
    }  # fmt: skip


def test_outputs_are_described_by_what_tft_knows(outputs: Outputs) -> None:
    described = {f.name: (f.kind, f.categories, f.offset, f.width) for f in outputs.spec.features}
    assert described == {
        "miles_xf": ("number", None, 0, None),
        "seconds_xf": ("number", None, 0, None),
        "company_xf": ("category", 5 + 2, 0, None),
        "payment_xf": ("category", 2 + 1, 1, None),
        "miles_bucket": ("category", 4, 0, None),
        "hour_pair": ("number", None, 0, 2),
        "company_sparse": ("category", 5 + 1, 1, None),
        "seconds_sparse": ("number", None, 0, None),
    }


def test_values_are_those_of_the_function(outputs: Outputs) -> None:
    raw = {name: [v for i, v in enumerate(values) if i != 5] for name, values in _rows().items()}
    everything = np.nan_to_num(np.array([math.nan if v is None else v for v in _rows()["miles"]], np.float32))
    miles = np.delete(everything, 5)
    table = outputs.table()
    np.testing.assert_allclose(table["miles_xf"], (miles - everything.mean()) / everything.std(), atol=1e-4)
    assert table["payment_xf"].to_pylist() == [{"cash": 1, "card": 2}[value] for value in raw["payment"]]
    assert [value is None for value in raw["company"]] == [i == 0 for i in table["company_sparse"].to_pylist()]
    assert table["seconds_sparse"].to_pylist() == [float(value or 0) for value in raw["seconds"]]
    assert table["hour_pair"].type == pa.list_(pa.float32(), 2)
    assert table["hour_pair"].to_pylist() == [[float(h), float(h * h)] for h in raw["hour"]]
    assert table["tipped"].to_pylist() == raw["tipped"]


def test_rows_without_any_sparse_value_can_be_served(outputs: Outputs) -> None:
    graph = TransformGraph(outputs.graph)
    features = graph(
        {
            "miles": tf.constant([math.nan] * 2),
            "seconds": tf.constant([MISSING_INTEGER] * 2, tf.int64),
            "company": tf.constant(["", ""]),
            "hour": tf.constant([3, 4], tf.int64),
            "payment": tf.constant(["cash", "never seen"]),
        }
    )
    assert features["company_sparse"].numpy().tolist() == [0, 0]
    assert features["payment_xf"].numpy().tolist() == [1, 0]
    assert features["seconds_sparse"].numpy().tolist() == [0.0, 0.0]


def _module(body: str) -> str:
    return f"import tensorflow as tf\nimport tensorflow_transform as tft\ndef preprocessing_fn(inputs):\n    {body}\n"


DEFECTS = {
    "syntax": ("def preprocessing_fn(inputs)\n    return {}", "user_module.py, line 1: expected ':'"),
    "null byte": ("x = '\0'", "user_module.py"),
    "unknown import": ("import no_such_library", "line 1: import: ModuleNotFoundError: No module named 'no_such_"),
    "raises at import": ("x = 1\n1 / 0\n", "user_module.py, line 2: import: ZeroDivisionError"),
    "not a function": ("preprocessing_fn = 3", "'preprocessing_fn' is a int; it must be a function"),
    "raises": (_module("return {'x': inputs['mile']}"), "line 4: preprocessing_fn: KeyError: 'mile'"),
    "multi-line message": (_module("raise ValueError('first\\nsecond')"), "preprocessing_fn: ValueError: first; "),
    "wrong arguments": ("def preprocessing_fn():\n    return {}", "preprocessing_fn: TypeError"),
    "returns None": (_module("pass"), "preprocessing_fn returned a NoneType; return a dict"),
    "returns nothing": (_module("return {}"), "preprocessing_fn returned an empty dict"),
    "returns a list": (_module("return [inputs['hour']]"), "preprocessing_fn returned a list"),
    "returns no tensor": (_module("return {'x': 1.0}"), "output 'x' is a float; return tensors"),
    "returns text": (_module("return {'x': inputs['payment']}"), "output 'x' is text; give ids"),
    "returns a scalar": (_module("return {'x': tft.mean(inputs['hour'])}"), "output 'x' has shape ()"),
    "returns three axes": (_module("return {'x': tf.expand_dims(inputs['hour'], 2)}"), "output 'x' has shape"),
    "returns too few rows": (_module("return {'x': tf.cast(inputs['hour'], tf.float32)[:1]}"), "has 1 values for 200"),
    "returns only the label": (_module("return {'tipped': inputs['tipped']}"), "only the label; return features"),
    "leaks the label": (
        _module("return {'x': inputs['hour'], 'leak': tf.cast(inputs['tipped'], tf.float32)}"),
        "computes feature 'leak' from the label 'tipped'",
    ),
    "another label": (
        _module("return {'x': inputs['hour'], 'tipped_xf': tf.cast(inputs['hour'] > 12, tf.int64)}"),
        "returns 'tipped_xf', which is not the label 'tipped' or its ids",
    ),
    "fails on the rows": (
        _module(
            "tf.debugging.assert_less(inputs['hour'], tf.constant(3, tf.int64))\n"
            "    return {'x': tft.scale_to_z_score(inputs['hour'])}"
        ),
        "cannot be analyzed",
    ),
    "gives no number": (
        _module("return {'x': tf.math.log(tf.cast(inputs['hour'], tf.float32) - 100.0)}"),
        "feature 'x' has 199 values in 199 rows that are infinite or no number",
    ),
}  # fmt: skip


@pytest.mark.parametrize("defect", DEFECTS)
def test_defective_module_is_named_in_one_line(tmp_path: Path, defect: str) -> None:
    source, message = DEFECTS[defect]
    project = Project(tmp_path).write(TYPES, train=_rows())
    with pytest.raises(LockgateError) as caught:
        project.transform(task=TASK, user_module=source)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == (3 if defect == "gives no number" else InputError.exit_code)
    assert project.left_behind() == []


def test_features_come_from_one_place(tmp_path: Path) -> None:
    project = Project(tmp_path).write(TYPES, train=_rows())
    with pytest.raises(InputError, match=r"both 'features' and preprocessing_fn of user_module\.py make features"):
        project.transform({"numeric": [{"columns": ["miles"]}]}, task=TASK, user_module=MODULE)


def test_module_without_the_function_leaves_features_to_the_settings(tmp_path: Path) -> None:
    project = Project(tmp_path).write(TYPES, train=_rows())
    outputs = project.transform({"numeric": [{"columns": ["miles"]}]}, task=TASK, user_module="def build_model(): ...")
    assert [feature.name for feature in outputs.spec.features] == ["miles"]
