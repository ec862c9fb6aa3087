"""Publishing: what the stages of a run found out becomes a version in the model store."""

import hashlib
from pathlib import Path
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from pydantic import BaseModel, Field

from components import images
from components.artifacts import MODEL_SPEC, MODEL_VERSION, Manifest, read_manifest
from components.errors import DataRejectedError, InputError
from components.evaluation_result import Estimate, EvaluationResult, read_evaluation
from components.json_files import parse_record
from components.model_card import CheckFacts, CodeFacts, DataFacts, EvaluationFacts, ModelFacts, SliceFacts
from components.model_store import EVALUATION, MODEL, SCHEMA, STATISTICS, ModelStore, Published
from components.settings import Publication

# Field number and wire type (length and bytes) of tensorflow.SavedModel's meta_graphs.
_META_GRAPHS = (2, 2)


class _Spec(BaseModel):
    """The part of a model's spec.json that the card repeats; reading all of it would import pyarrow."""

    weights_digest: str = Field(pattern="^[0-9a-f]{64}$")
    libraries: dict[str, str] = {}
    model: dict[str, Any] = {}


def publish(
    model: str | Path,
    examples: str | Path,
    schema: str | Path,
    statistics: str | Path,
    evaluation_result: str | Path,
    name: str,
    config: dict[str, Any],
    publication: Publication,
    run_name: str,
    inputs_digest: str = "",
    production_model: str = "",
) -> Published:
    """Adds a model to the store, with what it needs later and its card, and puts it into production.

    Args:
        model: directory with `1/` and spec.json.
        examples: dataset that it was trained on.
        schema: directory with schema.pbtxt.
        statistics: directory with the statistics of the training data.
        evaluation_result: directory with evaluation.json.
        name: of the model in the store.
        config: `pipeline` (all sections), `code` (version, digest, registry, tag) and `locks` (digest by image).
        publication: which store; owner and description.
        run_name: of the run that made the model.
        inputs_digest: of everything that decided its result.
        production_model: URI of the version in production when the run started; empty: none.

    Raises:
        DataRejectedError: the evaluation's verdict is not "pass".
        InputError: an artifact is not what its stage writes, or the store may not be used.
        UnavailableError: the storage does not answer or is full.
    """
    result = read_evaluation(Path(evaluation_result))
    if result.verdict != "pass":
        raise DataRejectedError(f"model '{name}': verdict '{result.verdict}' (needed: pass): {result.reason}")
    files = _files(Path(model), Path(schema), Path(statistics), Path(evaluation_result))
    spec = _read_spec(Path(model) / MODEL_SPEC)
    facts = ModelFacts(
        description=publication.description,
        owner=publication.owner,
        run_name=run_name,
        model_digest=spec.weights_digest,
        inputs_digest=inputs_digest,
        parent=production_model.rstrip("/").rpartition("/")[2] or None,
        data=_data_facts(read_manifest(Path(examples)), config),
        schema_digest=_schema_digest(files[SCHEMA]),
        evaluation=_evaluation_facts(result),
        code=_code_facts(config, spec),
        config=config.get("pipeline", {}),
        model=spec.model,
    )
    return ModelStore(publication.store, name).publish(files, facts)


def _files(model: Path, schema: Path, statistics: Path, evaluation: Path) -> dict[str, Path]:
    """Lists what goes into the version's folder, by path there."""
    graph = model / MODEL_VERSION / "saved_model.pb"
    if not graph.is_file():
        raise InputError(f"'{model}' has no {MODEL_VERSION}/saved_model.pb; give the model that train_model exported")
    _require_saved_model(graph)
    if not (schema / SCHEMA).is_file():
        raise InputError(f"'{schema}' has no {SCHEMA}; give the schema that validate_data wrote")
    folders = {MODEL: model, STATISTICS: statistics}
    files = {
        f"{name}/{path.relative_to(folder).as_posix()}": path
        for name, folder in folders.items()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    if not any(path.startswith(f"{STATISTICS}/") for path in files):
        raise InputError(f"'{statistics}' holds no statistics; give what validate_data wrote")
    return {**files, SCHEMA: schema / SCHEMA, EVALUATION: evaluation / EVALUATION}


def _require_saved_model(path: Path) -> None:
    """Makes sure that a file holds a SavedModel message, at its outermost level: its own types are TensorFlow's."""
    content = path.read_bytes()
    try:
        fields = UnknownFieldSet(Empty.FromString(content))
        kinds = {(fields[index].field_number, fields[index].wire_type) for index in range(len(fields))}
    except DecodeError:
        kinds = set()
    if _META_GRAPHS not in kinds:
        raise InputError(
            f"'{path}' ({len(content):,} bytes) is no SavedModel: it holds no graph; export the model again, or "
            "restore the file from a copy"
        )


def _read_spec(path: Path) -> _Spec:
    if not path.is_file():
        raise InputError(f"'{path}' does not exist; give the model that train_model exported")
    return parse_record(_Spec, path.read_bytes(), path, "export the model again")


def _schema_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _data_facts(manifest: Manifest, config: dict[str, Any]) -> DataFacts:
    return DataFacts(
        source=config.get("pipeline", {}).get("data", {}).get("source", ""),
        spans=manifest.spans,
        digest=manifest.digest,
        splits=manifest.splits,
        files=manifest.files,
    )


def _evaluation_facts(result: EvaluationResult) -> EvaluationFacts:
    return EvaluationFacts(
        verdict=result.verdict,
        reason=result.reason,
        metrics=_values(result.metrics),
        intervals={
            name: (one.low, one.high)
            for name, one in result.metrics.items()
            if one.low is not None and one.high is not None
        },
        slices=[SliceFacts(name=s.name, rows=s.rows, metrics=_values(s.metrics)) for s in result.slices],
        checks=[
            CheckFacts(name=c.name, passed=c.ok, detail=" ".join([_figure(c.value), f"({c.bound})", c.detail]).strip())
            for c in result.checks
        ],
        decision_threshold=result.threshold,
    )


def _code_facts(config: dict[str, Any], spec: _Spec) -> CodeFacts:
    details = dict(config.get("code", {}))
    return CodeFacts(
        version=str(details.pop("version", images.VERSION)),
        registry=str(details.pop("registry", images.REGISTRY)),
        image_tag=str(details.pop("tag", images.TAG)),
        details=details,
        locks=config.get("locks", {}),
        libraries=spec.libraries,
    )


def _values(metrics: dict[str, Estimate]) -> dict[str, float | None]:
    return {name: one.value for name, one in metrics.items()}


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"
