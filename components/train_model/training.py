"""Training one model and exporting it."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from components.artifacts import whole
from components.errors import InputError
from components.features import FeatureSpec
from components.models.contract import Epoch, Fit, Problem
from components.models.examples import Examples, hold_out, read_examples, standardized
from components.models.kinds import kind_of
from components.models.packing import Packing
from components.settings import Model, Task, Training, wrong_kind
from components.train_model.decision import decide
from components.train_model.export import RawRowsModel, export
from components.train_model.page import write_page
from components.transform_graph import TransformGraph

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
        Scalars: epochs, best_epoch, loss, validation_loss (if rows were held out), parameters, train_rows,
        validation_rows, decision_threshold (binary, anomaly_detection), seconds.

    Raises:
        InputError: the settings or the user module are wrong, or the loss is not finite.
        DataRejectedError: the rows cannot be learned from.
    """
    started = time.monotonic()
    if fault := wrong_kind("model.kind", model, task):
        raise InputError(fault)
    graph = TransformGraph(transform_graph)
    packing = Packing(graph.spec)
    examples = read_examples(Path(transformed), packing, graph.spec.label)
    kind = kind_of(model)
    learned, held_out = hold_out(len(examples.labels), training, kind.holds_out)
    learnable, mean, scale = standardized(examples, graph.spec.label, learned)
    problem = Problem(learnable, learned, held_out, packing, graph.spec.label, task, training, user_module)
    fitted = kind.fit(model, problem, lambda epoch: _print(epoch, training.epochs))
    decided = decide(fitted, problem)
    train_rows = len(learned) + (len(held_out) if fitted.knows_held_out else 0)

    with whole(trained) as folder:
        raw_rows_model = RawRowsModel(graph, fitted, packing, mean, scale, decided.calibrator)
        quantiles = decided.score_quantiles or []
        export(raw_rows_model, model, Path(transform_graph), train_rows, decided.threshold, quantiles, folder)
        (folder / _HISTORY).write_text(json.dumps(_history(fitted.fit), indent=1), encoding="utf-8")
    fit = fitted.fit
    result = {
        "epochs": float(fit.epochs[-1].number),
        "best_epoch": float(fit.best.number),
        "loss": fit.best.loss,
        **({} if fit.best.validation_loss is None else {"validation_loss": fit.best.validation_loss}),
        "parameters": float(fitted.parameters),
        "train_rows": float(train_rows),
        "validation_rows": 0.0 if fit.best.validation_loss is None else float(len(held_out)),
        **({} if decided.threshold is None else {"decision_threshold": decided.threshold}),
        "seconds": round(time.monotonic() - started, 1),
    }
    write_page(Path(report), result, fitted, decided, graph.spec, _class_counts(graph.spec, examples), model, training)
    return result


def _print(epoch: Epoch, epochs: int) -> None:
    at_most = f" of {epochs}" if epoch.unit == "epoch" else ""
    validation = "" if epoch.validation_loss is None else f", validation {epoch.validation_loss:.4f}"
    print(
        f"train_model: {epoch.unit} {epoch.number}{at_most}: loss {epoch.loss:.4f}{validation}, {epoch.seconds:.1f} s",
        flush=True,
    )


def _history(fit: Fit) -> dict[str, list[float]]:
    """Gives the losses epoch by epoch, named as Keras does."""
    history = {"loss": [epoch.loss for epoch in fit.epochs]}
    held_out = [epoch.validation_loss for epoch in fit.epochs if epoch.validation_loss is not None]
    return history | ({"val_loss": held_out} if held_out else {})


def _class_counts(spec: FeatureSpec, examples: Examples) -> list[tuple[str, int]]:
    """Counts the train rows of each class, the most frequent first; empty where none is known."""
    known = examples.labels[~np.isnan(examples.labels)].astype(np.int64)
    if not spec.label.classes or not len(known):
        return []
    counts = np.bincount(known, minlength=len(spec.label.classes))
    return sorted(zip(spec.label.classes, map(int, counts), strict=True), key=lambda pair: -pair[1])
