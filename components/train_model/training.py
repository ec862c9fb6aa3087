"""Training one model and exporting it."""

import json
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from pydantic import TypeAdapter

from components.artifacts import split_files, whole
from components.errors import DataRejectedError, InputError
from components.features import FeatureSpec, Label
from components.reports import render
from components.settings import CustomModel, Model, Task, Training
from components.train_model.export import RawRowsModel, export, label_scale
from components.train_model.networks import build
from components.train_model.packing import Packing, Rows
from components.transform_graph import TransformGraph

# Steps that run without coming back to Python.
_STEPS_PER_CALL = 16
_HISTORY = "training.json"


def parse_model(model: dict[str, Any]) -> Model:
    """Reads section `model`."""
    parsed: Model = TypeAdapter(Model).validate_python(model)
    return parsed


def train(
    transformed: str,
    transform_graph: str,
    schema_folder: str,
    task: Task,
    model: Model,
    training: Training,
    user_module: str,
    trained: str,
    report: str,
) -> dict[str, float]:
    """Fits and exports one model; the arguments are those of the component.

    Returns:
        Scalars: epochs, best_epoch, loss, validation_loss, parameters, train_rows, seconds.

    Raises:
        InputError: the settings or the user module are wrong, or the loss is not a number.
        DataRejectedError: the rows cannot be learned from.
    """
    started = time.monotonic()
    keras.utils.set_random_seed(training.seed)
    tf.config.experimental.enable_op_determinism()
    graph = TransformGraph(transform_graph)
    packing = Packing(graph.spec)
    rows = packing.read(split_files(Path(transformed), "train"))
    _require_variety(rows, graph.spec.label)
    fitted, held_out = _hold_out(rows, training)
    mean, scale = label_scale(graph.spec, fitted.labels)
    network = build(model, packing, fitted, graph.spec.label, task, user_module)
    history = _fit(network, fitted, held_out, graph.spec.label, training, mean, scale)

    with whole(trained) as folder:
        exported = RawRowsModel(graph, network, packing, mean, scale)
        export(exported, Path(transform_graph), len(fitted.labels), folder)
        (folder / _HISTORY).write_text(json.dumps(history, indent=1), encoding="utf-8")
    best = int(np.argmin(history["val_loss"]))
    result = {
        "epochs": float(len(history["loss"])),
        "best_epoch": float(best + 1),
        "loss": history["loss"][best],
        "validation_loss": history["val_loss"][best],
        "parameters": float(network.count_params()),
        "train_rows": float(len(fitted.labels)),
        "validation_rows": float(len(held_out.labels)),
        "seconds": round(time.monotonic() - started, 1),
    }
    _write_report(Path(report), result, history, graph.spec, rows, model, training)
    return result


def _require_variety(rows: Rows, label: Label) -> None:
    if label.kind == "regression" and not np.ptp(rows.labels):
        raise DataRejectedError(
            f"label '{label.name}' is {rows.labels[0]:g} in all train rows; there is nothing to learn"
        )
    if label.kind != "regression" and len(np.unique(rows.labels)) < 2:
        raise DataRejectedError(f"label '{label.name}' has one class in the train rows (needed: 2); widen data.window")
    if len(rows.labels) < 2:
        raise DataRejectedError("the train split has 1 row (needed: 2, one of them held out); widen data.window")


def _hold_out(rows: Rows, training: Training) -> tuple[Rows, Rows]:
    """Splits off the rows that decide when to stop."""
    count = len(rows.labels)
    size = min(max(1, round(count * training.validation_fraction)), count - 1)
    index = np.arange(count)
    if training.validation_rows == "random":
        np.random.default_rng(training.seed).shuffle(index)
    return rows.take(index[: count - size]), rows.take(index[count - size :])


def _fit(
    network: keras.Model,
    fitted: Rows,
    held_out: Rows,
    label: Label,
    training: Training,
    mean: float,
    scale: float,
) -> dict[str, list[float]]:
    losses: dict[str, Any] = {
        "binary": keras.losses.BinaryCrossentropy(from_logits=True),
        "multiclass": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "regression": keras.losses.MeanSquaredError(),
    }
    network.compile(
        optimizer=keras.optimizers.AdamW(training.learning_rate, weight_decay=training.weight_decay),
        loss=losses[label.kind],
        steps_per_execution=min(_STEPS_PER_CALL, max(1, len(fitted.labels) // training.batch_size)),
        jit_compile=False,  # XLA's compilation costs more than it saves on two cores
    )
    callbacks: list[keras.callbacks.Callback] = [_Progress(training.epochs), keras.callbacks.TerminateOnNaN()]
    if training.early_stopping:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                patience=training.early_stopping.patience,
                min_delta=training.early_stopping.min_delta,
                restore_best_weights=True,
            )
        )
    history = network.fit(
        fitted.inputs,
        (fitted.labels - mean) / scale if label.kind == "regression" else fitted.labels,
        validation_data=(
            held_out.inputs,
            (held_out.labels - mean) / scale if label.kind == "regression" else held_out.labels,
        ),
        epochs=training.epochs,
        batch_size=training.batch_size,
        validation_batch_size=8 * training.batch_size,
        class_weight=_class_weights(fitted.labels, label) if training.class_weight == "balanced" else None,
        callbacks=callbacks,
        verbose=0,
    ).history
    values = {name: [float(value) for value in series] for name, series in history.items()}
    if not np.isfinite(values["loss"]).all() or not np.isfinite(values.get("val_loss", [np.nan])).all():
        epoch = int(np.argmin(np.isfinite(values["loss"]))) + 1
        raise InputError(
            f"the loss is not a number in epoch {epoch}; training.learning_rate is {training.learning_rate:g}: lower it, "
            "or look for huge values in the features"
        )
    return values


class _Progress(keras.callbacks.Callback):
    """Prints a line an epoch."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self._epochs = epochs

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the clock."""
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Prints."""
        logs, seconds = logs or {}, time.monotonic() - self._started
        print(
            f"train_model: epoch {epoch + 1} of {self._epochs}: loss {logs.get('loss', np.nan):.4f}, "
            f"validation {logs.get('val_loss', np.nan):.4f}, {seconds:.1f} s",
            flush=True,
        )


def _class_weights(labels: np.ndarray[Any, Any], label: Label) -> dict[int, float]:
    """Weighs classes so that each counts the same (n / (classes · n_class), as scikit-learn's `balanced`)."""
    counts = np.bincount(labels.astype(np.int64), minlength=len(label.classes))
    present = counts[counts > 0]
    return {index: len(labels) / (len(present) * count) if count else 0.0 for index, count in enumerate(counts)}


def _write_report(
    path: Path,
    result: dict[str, float],
    history: dict[str, list[float]],
    spec: FeatureSpec,
    rows: Rows,
    model: Model,
    training: Training,
) -> None:
    names = spec.label.classes
    counts = np.bincount(rows.labels.astype(np.int64), minlength=len(names)) if spec.label.kind != "regression" else []
    classes = sorted(zip(names, (int(count) for count in counts), strict=True), key=lambda pair: -pair[1])
    html = render(
        Path(__file__).with_name("report.html.jinja"),
        result=result,
        series=[
            {"name": name, "points": [[epoch + 1, loss] for epoch, loss in enumerate(history[key])]}
            for name, key in (("fitted rows", "loss"), ("held-out rows", "val_loss"))
        ],
        epochs=len(history["loss"]),
        losses=(min(*history["loss"], *history["val_loss"]), max(*history["loss"], *history["val_loss"])),
        features=spec.features,
        label=spec.label,
        classes=classes[:50],
        rows=len(rows.labels),
        model=model.options
        if isinstance(model, CustomModel)
        else model.model_dump(exclude={"kind"}, exclude_none=True),
        kind=model.kind,
        training=training.model_dump(exclude_none=True),
    )
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(html, encoding="utf-8")
    partial.replace(path)
