"""Turning raw columns into model inputs: analyze the train split once, then transform every split."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from components.artifacts import Manifest, read_manifest, split_files, whole, write_manifest
from components.errors import InputError
from components.features import FeatureSpec, Label, RawInput, write_features
from components.rows import dtype, raw_arrays
from components.schema import Schema, columns, parse_schema
from components.settings import Features, Task
from components.transform_data import plan
from components.transform_data.analysis import analyze, read_batches
from components.transform_data.cache import AnalysisCache, cache_key, digest_of
from components.transform_data.extremes import extremes, require_columns, require_finite, require_values
from components.transform_data.label import describe_label, is_same_label
from components.transform_data.preprocessing import Preprocessing
from components.transform_data.splits import write_splits
from components.transform_data.user_preprocessing import UserPreprocessing
from components.transform_graph import column_keys, feature_keys
from components.user_code import FILE, load_function


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

    Rows without a required value are left out and counted; so are those without a label that is learned from.

    Raises:
        InputError: settings, schema or user module are wrong.
        DataRejectedError: the label makes no sense for the task, a feature has no value, or no row is left.
    """
    dataset = Path(examples)
    schema = _read_schema(Path(schema_folder))
    manifest = read_manifest(dataset)
    files = {split: split_files(dataset, split) for split in sorted({"train", *manifest.splits})}
    preprocessing_fn = load_function(user_module, "preprocessing_fn")
    if preprocessing_fn and features.columns:
        raise InputError(f"both 'features' and preprocessing_fn of {FILE} make features; take one of them out")
    plan.check(features, schema, task)
    ranges = {split: extremes(parts) for split, parts in files.items()}
    require_columns(ranges, list(columns(schema)) if preprocessing_fn else [*features.columns, *task.labels])
    if preprocessing_fn is None:
        features = features if features.columns else plan.choose(schema, task, files["train"], ranges["train"])
        require_values(ranges["train"], features.columns)
        require_finite(ranges, plan.numbers(features))
    if task.type == "regression":
        require_finite(ranges, task.labels)
    label = describe_label(files["train"], task)

    key = cache_key(
        train=digest_of(files["train"]),
        schema=str(schema),
        features=features.model_dump(),
        user=user_module,
        label=label.model_dump(),
    )
    cache = AnalysisCache(analysis_cache)
    with whole(transform_graph) as graph, whole(transformed) as folder:
        if cache.fetch(key, graph):
            print("transform_data: train split and features are unchanged: analysis reused", flush=True)
        else:
            print(f"transform_data: analyzing {manifest.splits['train']:,} rows", flush=True)
            function = _preprocessing(features, schema, preprocessing_fn, label)
            _analyze(files["train"], function, label, beam_args, graph)
            cache.keep(key, graph)
        splits = write_splits(graph, columns(schema), files, folder)
        digest = hashlib.sha256(f"{manifest.digest} {key}".encode()).hexdigest()
        result = Manifest(splits=splits, digest=digest, files=manifest.files)
        write_manifest(folder, result)
    return result


def _read_schema(folder: Path) -> Schema:
    path = folder / "schema.pbtxt"
    if not path.is_file():
        raise InputError(f"'{folder}' has no schema.pbtxt; give the schema that validate_data wrote")
    return parse_schema(path.read_text(encoding="utf-8"))


def _preprocessing(
    features: Features, schema: Schema, preprocessing_fn: Any, label: Label
) -> Preprocessing | UserPreprocessing:
    if preprocessing_fn is None:
        return Preprocessing(features, plan.inputs(features, schema), plan.domains(schema))
    return UserPreprocessing(preprocessing_fn, list(columns(schema).values()), label.name)


def _analyze(
    train: Sequence[Path],
    function: Preprocessing | UserPreprocessing,
    label: Label,
    beam_args: Sequence[str],
    output: Path,
) -> None:
    keys = column_keys(column.name for column in function.inputs)

    def by_keys(tensors: dict[str, tf.Tensor]) -> dict[str, Any]:
        outputs = function({name: tensors[key] for name, key in keys.items()})
        return {key: outputs[name] for name, key in feature_keys(outputs).items()}

    analyze(train, function.inputs, keys, by_keys, beam_args, output)
    if isinstance(function, UserPreprocessing):
        _require_same_label(train, function, label, output)
    inputs = [
        RawInput(name=column.name, dtype=dtype(column), required=column.name in function.required)
        for column in function.used
    ]
    write_features(output, FeatureSpec(inputs=inputs, features=function.describe(output), label=label))


def _require_same_label(train: Sequence[Path], function: UserPreprocessing, label: Label, output: Path) -> None:
    """Makes sure that a label among the outputs is the label's column, on the first rows.

    Raises:
        InputError: it is another one, which evaluation and monitoring would not know.
    """
    if not function.label_outputs:
        return
    layer = tft.TFTransformOutput(str(output)).transform_features_layer()
    batch = next(read_batches(train, [column.name for column in function.inputs]))
    arrays = raw_arrays(batch, function.inputs)
    keys = column_keys(arrays)
    outputs = layer({keys[name]: tf.constant(values) for name, values in arrays.items()})
    for name, key in feature_keys(function.label_outputs).items():
        given = outputs[key]
        values = (tf.sparse.to_dense(given) if isinstance(given, tf.SparseTensor) else given).numpy()
        assert label.name is not None  # without one no output is called like it
        if not is_same_label(values.reshape(batch.num_rows, -1)[:, 0], batch.column(label.name), label):
            raise InputError(
                f"{FILE}: preprocessing_fn returns '{name}', which is not the label '{label.name}' or its ids; make "
                "that label a column of the data: evaluation and monitoring read it there"
            )
