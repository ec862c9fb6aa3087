"""Training and exporting, on real transformed data."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from components.artifacts import MODEL_VERSION
from components.model_spec import read_spec
from components.rows import MISSING_INTEGER
from components.serving_model import ServingModel
from tests.train_model.projects import arrays_of, project, raw_rows, read_split, trained

KINDS = ("binary", "multiclass", "regression")
MODELS = [
    {"kind": "linear"},
    {"kind": "linear", "l2": 1e-4},
    {"kind": "mlp", "hidden_units": [16], "numeric_embedding": "none"},
    {"kind": "mlp", "hidden_units": [16, 8], "numeric_embedding": "periodic", "numeric_embedding_dim": 4},
    {"kind": "mlp", "hidden_units": [16], "numeric_embedding": "piecewise_linear", "embedding_dim": 3},
]
STACK = {"kind": "stack", "members": [MODELS[0], MODELS[2]], "weights": [0.4, 0.6]}
BUILD_MODEL = """
import keras

def build_model(inputs, task, options):
    amount, colour = inputs["amount"], inputs["colour"]
    embedded = keras.layers.Flatten()(keras.layers.Embedding(16, 2)(colour))
    hidden = keras.layers.Concatenate()([amount, inputs["trip km"], inputs["visits"], embedded])
    hidden = keras.layers.Dense(options["units"], activation="relu")(hidden)
    return keras.Model(inputs, keras.layers.Dense(1)(hidden))
"""


def quality(kind: str, outputs: dict[str, Any], labels: Any) -> float:
    """AUC, accuracy or R²: 1 is perfect."""
    if kind == "regression":
        return 1 - np.mean((outputs["value"] - labels) ** 2) / np.var(labels)
    if kind == "multiclass":
        return np.mean([said.decode() == label for said, label in zip(outputs["class"], labels, strict=True)])
    ranks = outputs["probability"].argsort().argsort() + 1
    positive = labels == 1
    count = positive.sum()
    return (ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(labels) - count))


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        *(("binary", model) for model in MODELS),
        *((kind, MODELS[at]) for kind in KINDS[1:] for at in (0, 4)),
        *((kind, STACK) for kind in KINDS),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_every_model_learns_every_task(kind: str, model: dict[str, Any], tmp_path: Path) -> None:
    project(kind).train(tmp_path, model)

    table = read_split(project(kind).examples, "eval")
    outputs = ServingModel(tmp_path / "model").predict(arrays_of(table, kind))
    assert quality(kind, outputs, np.array(table["label"].to_pylist())) > {"multiclass": 0.75, "regression": 0.85}.get(
        kind, 0.9
    )


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_have_the_form_that_the_spec_says(kind: str) -> None:
    spec = read_spec(trained(kind))
    outputs = ServingModel(trained(kind)).predict(arrays_of(raw_rows(kind, 5), kind))
    assert set(outputs) == {output.name for output in spec.outputs}
    for output in spec.outputs:
        assert outputs[output.name].shape == ((5,) if output.width is None else (5, output.width))
    if kind == "multiclass":
        assert spec.label.classes == ["high", "low", "mid"]
        assert outputs["probabilities"].sum(axis=1) == pytest.approx(1, abs=1e-5)
        best = outputs["probabilities"].argmax(axis=1)
        assert [said.decode() for said in outputs["class"]] == [spec.label.classes[index] for index in best]
    if kind == "binary":
        assert ((outputs["probability"] >= 0) & (outputs["probability"] <= 1)).all()
    assert {i.name: (i.dtype, i.required) for i in spec.inputs} == {
        "amount": ("float32", False),
        "visits": ("int64", False),
        "trip km": ("float32", True),
        "colour": ("string", False),
    }


def test_the_layout_is_what_tensorflow_serving_wants() -> None:
    model = trained("binary")
    assert (model / MODEL_VERSION / "saved_model.pb").is_file()
    assert (model / "training.json").is_file()
    assert not list(model.parent.glob(".*"))
    # Keras's own traces would slow the export down and every load after it.
    assert (model / MODEL_VERSION / "saved_model.pb").stat().st_size < 2_000_000


def test_a_seed_decides_the_model(tmp_path: Path) -> None:
    digests, answers = [], []
    for name, seed in (("one", 5), ("two", 5), ("other", 6)):
        project("binary").train(tmp_path / name, training={"seed": seed, "epochs": 2})
        model = ServingModel(tmp_path / name / "model")
        digests.append(model.spec.weights_digest)
        answers.append(model.predict(arrays_of(raw_rows("binary"), "binary"))["probability"])
    assert digests[0] == digests[1] != digests[2]
    assert np.array_equal(answers[0], answers[1])


FRESH = """
import sys, numpy as np, tensorflow as tf
model, rows, output = sys.argv[1:]
loaded = tf.saved_model.load(model)
rows = np.load(rows, allow_pickle=False)
examples = []
for amount, trip, visits, colour in zip(rows["amount"], rows["trip km"], rows["visits"], rows["colour"]):
    feature = {"trip km": tf.train.Feature(float_list=tf.train.FloatList(value=[trip]))}
    if not np.isnan(amount):
        feature["amount"] = tf.train.Feature(float_list=tf.train.FloatList(value=[amount]))
    if visits != np.iinfo("int64").min:
        feature["visits"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[visits]))
    if colour:
        feature["colour"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[colour]))
    examples.append(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
served = loaded.signatures["serve_tf_examples"](examples=tf.constant(examples))
assert "tensorflow_transform" not in sys.modules
np.savez(output, **{name: value.numpy() for name, value in served.items() if value.dtype != tf.string})
"""


@pytest.mark.parametrize("kind", KINDS)
def test_both_signatures_answer_alike_in_a_process_with_plain_tensorflow(kind: str, tmp_path: Path) -> None:
    arrays = arrays_of(raw_rows(kind, 60), kind)
    assert np.isnan(arrays["amount"]).any()
    assert (arrays["visits"] == MISSING_INTEGER).any()
    np.savez(tmp_path / "rows.npz", **(arrays | {"colour": arrays["colour"].astype("S")}))
    command = [sys.executable, "-c", FRESH, str(trained(kind) / MODEL_VERSION)]
    subprocess.run([*command, tmp_path / "rows.npz", tmp_path / "served.npz"], check=True, cwd=tmp_path, env=bare())

    here = ServingModel(trained(kind)).predict(arrays)
    served = np.load(tmp_path / "served.npz")
    assert len(served.files) == 1
    for name in served.files:
        np.testing.assert_allclose(served[name], here[name], rtol=1e-5, atol=1e-6)


def test_an_answer_does_not_depend_on_the_rows_beside_it() -> None:
    arrays = arrays_of(raw_rows("binary", 50), "binary")
    model = ServingModel(trained("binary"))
    together = model.predict(arrays)["probability"]
    alone = [model.predict({k: v[i : i + 1] for k, v in arrays.items()})["probability"][0] for i in range(50)]
    np.testing.assert_allclose(alone, together, rtol=1e-5)


def test_the_weights_of_the_best_epoch_are_exported(tmp_path: Path) -> None:
    # Small steps are needed to see that the last epoch, which is worse, is not what is exported.
    training = {"epochs": 30, "learning_rate": 0.05, "early_stopping": {"patience": 3}, "validation_rows": "last"}
    result = project("binary").train(tmp_path, {"kind": "mlp", "hidden_units": [64], "dropout": 0}, training)
    assert result["best_epoch"] == result["epochs"] - 3

    held_out = read_split(project("binary").examples, "train").slice(810)
    probability = ServingModel(tmp_path / "model").predict(arrays_of(held_out, "binary"))["probability"]
    labels = held_out["label"].to_numpy()
    loss = -np.mean(np.log(np.where(labels == 1, probability, 1 - probability)))
    assert loss == pytest.approx(result["validation_loss"], rel=1e-3)
    assert result["validation_rows"] == 90
    assert result["train_rows"] == 810


def test_without_early_stopping_all_rows_are_learned_from_in_all_epochs(tmp_path: Path) -> None:
    result = project("binary").train(tmp_path, training={"epochs": 3, "early_stopping": None})
    assert result["epochs"] == result["best_epoch"] == 3
    assert result["train_rows"] == 900
    assert "validation_loss" not in result
    assert "held out" not in (tmp_path / "report.html").read_text()


def test_trees_learn_from_all_rows_where_few_are_held_out(tmp_path: Path) -> None:
    result = project("binary").train(tmp_path, {"kind": "boosted_trees", "trees": 20})
    assert result["validation_rows"] == 90
    assert result["train_rows"] == read_spec(tmp_path / "model").train_rows == 900
    assert "fitted once more, to all rows" in (tmp_path / "report.html").read_text()


def test_balanced_classes_raise_the_rare_one(tmp_path: Path) -> None:
    means = []
    for weight in ("none", "balanced"):
        project("binary").train(tmp_path / weight, {"kind": "linear"}, {"class_weight": weight, "epochs": 10})
        outputs = ServingModel(tmp_path / weight / "model").predict(arrays_of(raw_rows("binary"), "binary"))
        means.append(float(outputs["probability"].mean()))
    share = raw_rows("binary")["label"].to_numpy().mean()
    assert share < 0.45
    assert means[0] == pytest.approx(share, abs=0.03)
    assert means[1] > means[0] + 0.02


def test_a_users_model_is_trained_and_exported(tmp_path: Path) -> None:
    model = {"kind": "custom", "options": {"units": 16}}
    result = project("binary").train(tmp_path, model, code=BUILD_MODEL)
    table = read_split(project("binary").examples, "eval")
    outputs = ServingModel(tmp_path / "model").predict(arrays_of(table, "binary"))
    assert quality("binary", outputs, table["label"].to_numpy()) > 0.9
    assert result["parameters"] == 16 * 2 + (3 + 2) * 16 + 16 + 17


def test_the_report_needs_nothing_else(tmp_path: Path) -> None:
    project("multiclass").train(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"https?://(?!www\.w3\.org)|<script|<link|src=", page)
    for text in (
        "Loss by epoch",
        "<polyline",
        "trip km",
        "learning_rate",
        ">high<",
        "learned from",
        "held out",
    ):
        assert text in page, text


def test_history_and_progress_tell_every_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = project("regression").train(tmp_path)
    history = json.loads((tmp_path / "model" / "training.json").read_text())
    assert len(history["loss"]) == len(history["val_loss"]) == result["epochs"]
    assert min(history["val_loss"]) == pytest.approx(result["validation_loss"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "epoch" in line]
    assert len(lines) == result["epochs"]
    assert all(math.isfinite(value) for value in result.values())


def test_a_killed_training_leaves_nothing_and_runs_again(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom tests.train_model.projects import Project\nfrom pathlib import Path\n"
        "p = Project(Path(sys.argv[1]), 'binary', Path(sys.argv[1]) / 'transformed', Path(sys.argv[1]) / 'graph')\n"
        "p.train(Path(sys.argv[2]), training={'epochs': 2000, 'early_stopping': None})"
    )
    (tmp_path / "model").mkdir()
    command = [sys.executable, "-c", script, str(project("binary").folder), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert next(line for line in process.stdout if "epoch 2 " in line)
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not list((tmp_path / "model").iterdir())
    assert not (tmp_path / "report.html").exists()

    project("binary").train(tmp_path)
    project("binary").train(tmp_path / "undisturbed")
    assert read_spec(tmp_path / "model") == read_spec(tmp_path / "undisturbed" / "model")


def test_signature_names_are_the_columns_where_tensorflow_allows() -> None:
    spec = read_spec(trained("binary"))
    loaded: Any = tf.saved_model.load(str(trained("binary") / MODEL_VERSION))
    arguments = set(loaded.signatures["serving_default"].structured_input_signature[1])
    assert arguments == {i.tensor for i in spec.inputs}
    assert {"amount", "visits", "colour"} < arguments


@pytest.mark.parametrize(
    "names",
    [
        ("self", "training", "inputs", "examples"),
        ("args", "kwargs", "name", "function"),
        ("class", "2nd", "raw", "True"),
        ("a/b:0", "__init__", "column_1", "größe 😀"),
    ],
)
def test_columns_may_have_any_name(names: tuple[str, ...], tmp_path: Path) -> None:
    renamed = project("binary", tuple(zip(("amount", "trip km", "visits", "colour"), names, strict=True)))
    renamed.train(tmp_path, {"kind": "linear"}, {"epochs": 1})
    model = ServingModel(tmp_path / "model")
    assert {i.name for i in model.spec.inputs} == set(names)
    row = {
        i.name: np.array([b"red"], object) if i.dtype == "string" else np.ones(1, i.dtype) for i in model.spec.inputs
    }
    assert 0 < model.predict(row)["probability"][0] < 1


def test_transformed_rows_are_all_read() -> None:
    rows = sum(pq.read_metadata(part).num_rows for part in (project("binary").transformed / "train").glob("*"))
    assert rows == 900


def bare() -> dict[str, str]:
    """The environment of a process that knows nothing of our code."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_the_learning_rate_falls_along_a_cosine(tmp_path: Path) -> None:
    settings = {"epochs": 8, "early_stopping": None, "batch_size": 900, "learning_rate": 0.01}
    losses = {}
    for decay in ("none", "cosine"):
        network = {"kind": "mlp", "hidden_units": [4], "dropout": 0.0, "numeric_embedding": "none"}
        project("binary").train(tmp_path / decay, network, settings | {"learning_rate_decay": decay})
        losses[decay] = json.loads((tmp_path / decay / "model" / "training.json").read_text())["loss"]
    # One step an epoch: a loss is that before its step, and the first step's rate is the same.
    assert losses["cosine"][:2] == pytest.approx(losses["none"][:2], rel=1e-5)
    steps = {decay: -np.diff(values) for decay, values in losses.items()}
    assert steps["cosine"][-1] < 0.3 * steps["none"][-1]
