"""Turning raw columns into model inputs: analyze the train split once, then transform every split."""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf

from components.artifacts import Manifest, read_manifest, split_files, whole, write_manifest
from components.errors import DataRejectedError, InputError
from components.features import Feature, FeatureSpec, Label, RawInput, class_names, write_features
from components.rows import dtype, marker, raw_arrays
from components.schema import Column, Schema, columns, parse_schema
from components.settings import Features, Task
from components.transform_data import plan
from components.transform_data.analysis import analyze, read_batches, vocabulary_sizes
from components.transform_data.cache import AnalysisCache, cache_key
from components.transform_data.preprocessing import Preprocessing, UserPreprocessing
from components.transform_graph import TransformGraph, graph_keys
from components.user_code import load_function

_TRUE = ("1", "true", "True")
_MAX_CLASSES = 10_000


def transform(
    examples: str,
    schema_folder: str,
    task: Task,
    features: Features,
    user_module: str,
    analysis_cache: str,
    beam_args: Sequence[str],
    transform_graph: str,
    transformed: str,
) -> Manifest:
    """Writes the transform graph and the transformed splits; the arguments are those of the component.

    Rows without a label, or without a required value, are left out and counted.

    Raises:
        InputError: settings, schema or user module are wrong.
        DataRejectedError: the label makes no sense for the task, or no row is left.
    """
    dataset = Path(examples)
    schema = parse_schema((Path(schema_folder) / "schema.pbtxt").read_text(encoding="utf-8"))
    manifest = read_manifest(dataset)
    train = split_files(dataset, "train")
    preprocessing_fn = load_function(user_module, "preprocessing_fn")
    if preprocessing_fn is None and not features.columns:
        features = plan.choose(schema, task, train)
    plan.check(features, schema, task)
    label = describe_label(train, task)

    key = cache_key(
        train=_digest_of(train),
        schema=str(schema),
        features=features.model_dump(),
        user=user_module,
        label=label.model_dump(),
    )
    cache = AnalysisCache(analysis_cache)
    with whole(transform_graph) as folder:
        if cache.fetch(key, folder):
            print("transform_data: train split and features are unchanged: analysis reused", flush=True)
        else:
            print(f"transform_data: analyzing {manifest.splits['train']:,} rows", flush=True)
            _analyze(train, schema, features, preprocessing_fn, label, beam_args, folder)
            cache.keep(key, folder)
    with whole(transformed) as folder:
        splits = _apply(transform_graph, columns(schema), dataset, sorted(manifest.splits), folder)
        digest = hashlib.sha256(f"{manifest.digest} {key}".encode()).hexdigest()
        result = Manifest(splits=splits, digest=digest, files=manifest.files)
        write_manifest(folder, result)
    return result


def describe_label(train: Sequence[Path], task: Task) -> Label:
    """Finds the classes of the label in the train split.

    Raises:
        DataRejectedError: too few or too many classes for the task, or no label at all.
        InputError: task.positive is no value of the label.
    """
    values = pa.chunked_array([batch.column(0) for batch in read_batches(train, [task.label])]).combine_chunks()
    if values.null_count == len(values):
        raise DataRejectedError(f"label '{task.label}' is missing in all {len(values):,} train rows; fix the source")
    if task.type == "regression":
        if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
            raise InputError(
                f"label '{task.label}' holds text; a regression needs numbers: set task.type to multiclass"
            )
        return Label(name=task.label, kind="regression")
    classes = sorted(pc.unique(class_names(values, task.label).drop_null()).to_pylist(), key=_natural)
    if len(classes) < 2:
        raise DataRejectedError(
            f"label '{task.label}' has one class in train, '{classes[0]}' (needed: 2); widen the window"
        )
    if task.type == "multiclass":
        if len(classes) > _MAX_CLASSES:
            raise DataRejectedError(
                f"label '{task.label}' has {len(classes):,} classes (limit: {_MAX_CLASSES:,}); is it a number?"
            )
        return Label(name=task.label, kind="multiclass", classes=classes)
    return Label(name=task.label, kind="binary", classes=_binary(classes, task), positive=_positive(classes, task))


def _positive(classes: list[str], task: Task) -> str:
    wanted = _TRUE if task.positive is None else (str(task.positive), *(_TRUE if task.positive is True else ()))
    found = next((value for value in wanted if value in classes), None)
    if found is None:
        shown = ", ".join(repr(value) for value in classes[:5])
        given = f"task.positive '{task.positive}'" if task.positive is not None else "none of true, 1"
        raise InputError(f"label '{task.label}': {given} is among its values {shown}; set task.positive to one of them")
    return found


def _binary(classes: list[str], task: Task) -> list[str]:
    if len(classes) > 2:
        shown = ", ".join(repr(value) for value in classes[:5])
        raise DataRejectedError(
            f"label '{task.label}' has {len(classes)} values in train, {shown} (allowed for binary: 2); "
            "set task.type to multiclass or fix the source"
        )
    positive = _positive(classes, task)
    return [*(value for value in classes if value != positive), positive]


def _natural(value: str) -> tuple[int, float, str]:
    """Sorts numbers by value, before text."""
    try:
        return (0, float(value), value)
    except ValueError:
        return (1, math.inf, value)


def _analyze(
    train: Sequence[Path],
    schema: Schema,
    features: Features,
    preprocessing_fn: Any,
    label: Label,
    beam_args: Sequence[str],
    output: Path,
) -> None:
    required = plan.required(features)
    if preprocessing_fn is None:
        raw = plan.inputs(features, schema)
        function: Any = Preprocessing(features, raw, plan.domains(schema))
    else:
        raw = list(columns(schema).values())
        function = UserPreprocessing(preprocessing_fn, raw, label.name)
        required = set()
    keys = graph_keys([column.name for column in raw], "column_")
    names: list[str] = []

    def by_keys(tensors: dict[str, tf.Tensor]) -> dict[str, Any]:
        outputs = function({name: tensors[key] for name, key in keys.items()})
        names[:] = outputs
        return {key: outputs[name] for name, key in graph_keys(list(outputs), "feature_").items()}

    analyze(train, raw, keys, by_keys, beam_args, output)
    described = (
        function.describe(vocabulary_sizes(output))
        if isinstance(function, Preprocessing)
        else _described_by_tft(output, names)
    )
    inputs = [
        RawInput(name=column.name, dtype=dtype(column), required=column.name in required)
        for column in raw
        if column.name != label.name
    ]
    in_order = sorted(described, key=lambda feature: names.index(feature.name))
    write_features(output, FeatureSpec(inputs=inputs, features=in_order, label=label))


def _described_by_tft(output: Path, names: Sequence[str]) -> list[Feature]:
    """Describes the outputs of a user's function: ids where TFT knows their range, numbers otherwise."""
    import tensorflow_transform as tft

    metadata = tft.TFTransformOutput(str(output)).transformed_metadata
    specs, domains = metadata.feature_spec, {feature.name: feature for feature in metadata.schema.feature}
    described = []
    for name, key in graph_keys(names, "feature_").items():
        shape = list(specs[key].shape)
        domain = domains[key].int_domain
        is_category = domain.is_categorical and not shape
        described.append(
            Feature(
                name=name,
                kind="category" if is_category else "number",
                categories=domain.max - min(domain.min, 0) + 1 if is_category else None,
                offset=-min(domain.min, 0) if is_category else 0,
                width=shape[0] if shape else None,
            )
        )
    return described


def _apply(
    transform_graph: str, known: dict[str, Column], dataset: Path, splits: Sequence[str], output: Path
) -> dict[str, int]:
    """Writes the transformed splits; gives the rows of each."""
    graph = TransformGraph(transform_graph)
    function = tf.function(lambda raw: graph(raw), input_signature=[graph.input_signature])
    raw = [known[raw_input.name] for raw_input in graph.spec.inputs]
    written = {}
    for split in splits:
        (output / split).mkdir()
        rows = dropped = 0
        with pq.ParquetWriter(
            output / split / "part-00000.parquet", _arrow_schema(graph.spec), compression="lz4"
        ) as writer:
            for batch in read_batches(split_files(dataset, split), [*(c.name for c in raw), graph.spec.label.name]):
                table, left_out = _transform_batch(function, graph.spec, raw, batch)
                writer.write_table(table)
                rows, dropped = rows + table.num_rows, dropped + left_out
        if rows == 0:
            raise DataRejectedError(f"split '{split}': none of {dropped:,} rows has a label and all required values")
        without = f", {dropped:,} left out for a missing label or required value" if dropped else ""
        print(f"transform_data: {split}: {rows:,} rows, {len(graph.spec.features)} features{without}", flush=True)
        written[split] = rows
    return written


def _transform_batch(
    function: Any, spec: FeatureSpec, raw: Sequence[Column], batch: pa.RecordBatch
) -> tuple[pa.Table, int]:
    label = spec.label.encode(batch.column(spec.label.name))
    keep = pc.is_valid(label).to_numpy(zero_copy_only=False)
    arrays = raw_arrays(batch, raw)
    for raw_input in spec.inputs:
        if raw_input.required:
            keep &= ~_is_missing(arrays[raw_input.name], raw_input.dtype)
    outputs = function({name: tf.constant(values) for name, values in arrays.items()})
    tensors = {feature.name: outputs[feature.name].numpy()[keep] for feature in spec.features}
    for feature in spec.features:
        if feature.kind == "number" and not np.isfinite(tensors[feature.name]).all():
            raise DataRejectedError(
                f"feature '{feature.name}' has a value that is not finite after transformation; look for infinite or "
                "huge values in its column"
            )
    values = [_column(tensors[feature.name], feature) for feature in spec.features]
    table = pa.table([*values, label.filter(pa.array(keep))], schema=_arrow_schema(spec))
    return table, batch.num_rows - table.num_rows


def _is_missing(values: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    return np.isnan(values) if kind == "float32" else values == marker(kind)


def _column(values: np.ndarray[Any, Any], feature: Feature) -> pa.Array:
    if feature.width is None:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), feature.width)


def _arrow_schema(spec: FeatureSpec) -> pa.Schema:
    fields = []
    for feature in spec.features:
        kind = pa.int64() if feature.kind == "category" else pa.float32()
        fields.append((feature.name, kind if feature.width is None else pa.list_(kind, feature.width)))
    label = pa.int64() if spec.label.kind == "multiclass" else pa.float32()
    return pa.schema([*fields, (spec.label.name, label)])


def _digest_of(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return json.dumps(digest.hexdigest())
