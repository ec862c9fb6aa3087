"""What a run hands to publish_model, and a publisher as a process of its own.

    python blessed.py STORE FOLDER [PREFIX COUNT]

publishes what lies in FOLDER; with PREFIX the process kills itself as it touches a path below PREFIX for the
COUNT-th time.
"""

import hashlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from components.artifacts import Manifest, SourceFile, write_manifest
from components.evaluation_result import Check, Estimate, EvaluationResult, SliceResult, write_evaluation
from components.features import Label
from components.model_spec import ModelInput, ModelSpec, outputs_of, write_spec
from components.model_store import Published
from components.publish_model.publication import publish
from components.settings import Publication

NAME = "shop"
SAVED_MODEL = b"\x08\x01\x12\x02\x0a\x00"
"""Schema version 1 and one graph, as TensorFlow writes them."""
CONFIG = {
    "pipeline": {"data": {"source": "data/visits-{YYYY}-{MM}.csv"}, "training": {"epochs": 3, "seed": 1}},
    "code": {"version": "0.1.0", "digest": "c0de", "registry": "registry.example/team", "tag": "0.1.0-c0de"},
    "locks": {"base": "10c4"},
}


def bless(folder: Path, weights: str, auc: float = 0.71, spans: tuple[str, ...] = ("2025-01", "2025-02")) -> Path:
    """Writes the artifacts of a run whose model passed; models with one `weights` are the same model."""
    for name in ("model/1/variables", "schema", "statistics", "examples", "evaluation"):
        (folder / name).mkdir(parents=True)
    (folder / "model" / "1" / "saved_model.pb").write_bytes(SAVED_MODEL)
    (folder / "model" / "1" / "variables" / "variables.data-00000-of-00001").write_bytes(weights.encode() * 1000)
    write_spec(folder / "model", model_spec(weights))
    (folder / "schema" / "schema.pbtxt").write_text('feature { name: "price" type: FLOAT }')
    (folder / "statistics" / "train.pb").write_bytes(b"statistics")
    files = [SourceFile(uri=f"{span}.csv", span=span, rows=50, bytes=9, digest="d") for span in spans]
    write_manifest(folder / "examples", Manifest(splits={"train": 80, "eval": 20}, digest="da7a", files=files))
    write_evaluation(folder / "evaluation", _result(auc))
    return folder


def publish_blessed(folder: Path, store: str, **changes: Any) -> Published:
    """Publishes what `bless` wrote."""
    arguments = {
        "model": folder / "model",
        "examples": folder / "examples",
        "schema": folder / "schema",
        "statistics": folder / "statistics",
        "evaluation_result": folder / "evaluation",
        "name": NAME,
        "config": CONFIG,
        "publication": Publication(store=store, description="Who buys?", owner="shop team"),
        "run_name": "shop-1",
        **changes,
    }
    return publish(**arguments)


def die_at(prefix: str, count: int) -> None:
    """Makes this process kill itself, as `kill -9` does, when it touches paths below `prefix` once more."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        touched = any(isinstance(one, str | Path) and str(one).startswith(prefix) for one in arguments)
        if touched and (event == "open" or event.startswith("os.")):
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def model_spec(weights: str) -> ModelSpec:
    """Gives the spec of a model; its digest is that of `weights`."""
    label = Label(name="bought", kind="binary", classes=["no", "yes"], positive="yes")
    return ModelSpec(
        inputs=[ModelInput(name="price", tensor="price", dtype="float32", required=True)],
        outputs=outputs_of(label),
        label=label,
        weights_digest=hashlib.sha256(weights.encode()).hexdigest(),
        train_rows=80,
        libraries={"tensorflow": "2.21.0"},
    )


def _result(auc: float) -> EvaluationResult:
    bound = Check(kind="threshold", name="auc", metric="auc", value=auc, bound="≥ 0.66", ok=True)
    metrics = {"auc": Estimate(value=auc, low=auc - 0.01, high=auc + 0.01), "recall": Estimate(value=None)}
    city = SliceResult(values={"city": "Oslo"}, rows=9, supported=True, ok=True, metrics={"auc": Estimate(value=auc)})
    return EvaluationResult(
        task="binary",
        label="bought",
        rows=20,
        missing_labels=0,
        rejected=0,
        threshold=0.5,
        confidence=0.95,
        metrics=metrics,
        per_class={},
        baseline={"auc": 0.5},
        production=None,
        difference={},
        slices=[city],
        slices_left_out=0,
        rows_left_out=0,
        checks=[bound],
        warnings=[],
        roc=None,
        confusion=None,
        verdict="pass",
        reason=f"auc {auc}",
    )


if __name__ == "__main__":
    if sys.argv[3:]:
        die_at(sys.argv[3], int(sys.argv[4]))
    print(publish_blessed(Path(sys.argv[2]), sys.argv[1]).version)
