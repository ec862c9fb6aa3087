"""Holds a dataset against its schema, its splits against each other and against production."""

import contextlib
import io
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from google.protobuf.message import DecodeError
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components.artifacts import BATCH, whole
from components.errors import InputError
from components.profiles import write_profile
from components.schema import columns, format_schema, parse_schema
from components.settings import Task, Validation
from components.storage import filesystem, reaching
from components.validate_data.anomalies import Verdict, reason
from components.validate_data.rules import Rules, nearest
from components.validate_data.splits import Split, open_splits

BASELINE = "statistics/train.pb"
"""Inside a published model."""
SCHEMA = "schema.pbtxt"
"""Inside a published model, too."""


@dataclass(frozen=True)
class Result:
    """What the gate needs."""

    verdict: str
    """`pass` or `fail`."""
    reason: str
    """One line."""


def validate(
    examples: str,
    task: Task,
    validation: Validation,
    curated_schema: str,
    production_model: str,
    statistics: str,
    schema: str,
    anomalies: str,
    report: str,
) -> Result:
    """Computes statistics of every split, judges them, and writes what was found.

    Args:
        examples: path of the dataset that ingest_data wrote: splits to learn from, or rows to predict.
        task: names the label.
        validation: severities and limits.
        curated_schema: TFMD schema in text format; empty: one is inferred from the train split; for rows to predict,
            that of the model in production.
        production_model: URI of the model whose training data drift is measured against; empty: none.
        statistics: directory to write: `<split>.pb`, a DatasetFeatureStatisticsList each, and profile.json.
        schema: directory to write: `schema.pbtxt`.
        anomalies: directory to write: `anomalies.json`.
        report: HTML file to write.

    Returns:
        `fail` when an anomaly is an error, with the worst in the reason.

    Raises:
        InputError: the schema, a name in the configuration, the dataset or the production model is wrong.
        DataRejectedError: a Parquet part cannot be read, or holds what no dataset holds.
    """
    splits = open_splits(Path(examples))
    if BATCH in splits and not curated_schema.strip():
        curated_schema = _production_schema(production_model)
    curated = parse_schema(curated_schema) if curated_schema.strip() else None
    if BATCH in splits and curated is not None:
        curated = _without(curated, task.labels)
    rules = _rules(splits, task, validation, curated)
    production = _production_statistics(production_model) if production_model else None
    # TFDV takes seconds to import, so wrong input is refused before; and it writes about IPython to stderr.
    with contextlib.redirect_stderr(io.StringIO()):
        from components.validate_data.inspection import inspect
    from components.validate_data.page import write_page

    found = inspect(splits, task, validation, rules, curated, production)
    failed = any(one.severity == "error" for one in found.anomalies)
    verdict = Verdict(
        verdict="fail" if failed else "pass",
        reason=reason(found.anomalies, sum(found.rows.values()), found.inferred),
        schema_source="inferred" if found.inferred else "curated",
        rows=found.rows,
        anomalies=found.anomalies,
    )
    with whole(statistics) as directory:
        for name, summary in found.summaries.items():
            (directory / f"{name}.pb").write_bytes(summary.statistics.SerializeToString(deterministic=True))
        if BATCH not in splits:  # nothing is learned from the rows, so nothing will be held against them
            write_profile(directory, found.profile())
    with whole(schema) as directory:
        (directory / "schema.pbtxt").write_text(format_schema(found.schema), encoding="utf-8")
    with whole(anomalies) as directory:
        (directory / "anomalies.json").write_text(verdict.model_dump_json(indent=1), encoding="utf-8")
    write_page(Path(report), found, verdict, task, production_model)
    return Result(verdict.verdict, verdict.reason)


def _rules(splits: dict[str, Split], task: Task, validation: Validation, curated: schema_pb2.Schema | None) -> Rules:
    judged = BATCH if BATCH in splits else "train"
    if judged not in splits:
        raise InputError(f"the dataset has no split 'train' (it has: {', '.join(splits) or 'none'}); see data.split")
    data = splits[judged].columns
    if judged != BATCH and task.label is not None and task.label not in data.names:
        raise InputError(
            f"task.label '{task.label}' is no column of the dataset "
            f"(it has: {_listed(data.names)}){nearest(task.label, data.names)}"
        )
    features = {*data.names, *task.labels}
    categorical = {name for name, kind in zip(data.names, data.types, strict=True) if not _is_number(kind)}
    if curated is not None:
        features |= columns(curated).keys()
        categorical |= {f.name for f in curated.feature if f.type == schema_pb2.BYTES or f.int_domain.is_categorical}
    return Rules(validation, features, categorical)


def _production_schema(model: str) -> str:
    if not model:
        raise InputError("rows to predict are held against a schema, and there is none; name one under `schema`")
    uri = f"{model.rstrip('/')}/{SCHEMA}"
    fs, path = filesystem(uri)
    with reaching(uri):
        return bytes(fs.cat_file(path)).decode()


def _without(schema: schema_pb2.Schema, names: Collection[str]) -> schema_pb2.Schema:
    result = schema_pb2.Schema()
    result.CopyFrom(schema)
    kept = [feature for feature in schema.feature if feature.name not in names]
    del result.feature[:]
    result.feature.extend(kept)
    return result


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _listed(names: Iterable[str], limit: int = 20) -> str:
    shown = list(names)
    return ", ".join(shown[:limit]) + ("" if len(shown) <= limit else f", and {len(shown) - limit} more")


def _production_statistics(model: str) -> statistics_pb2.DatasetFeatureStatisticsList:
    uri = f"{model.rstrip('/')}/{BASELINE}"
    fs, path = filesystem(uri)
    with reaching(uri):
        content = fs.cat_file(path)
    try:
        statistics = statistics_pb2.DatasetFeatureStatisticsList.FromString(content)
    except DecodeError as error:
        raise InputError(f"'{uri}' holds no TFDV statistics ({error}); publish the model again") from error
    if len(statistics.datasets) != 1:
        raise InputError(f"'{uri}' holds {len(statistics.datasets)} data sets (wanted: 1); publish the model again")
    return statistics
