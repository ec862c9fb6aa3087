"""Predicting the rows of a dataset with an exported model."""

import difflib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components import storage
from components.artifacts import MODEL_SPEC, Manifest, read_manifest, split_files, whole, write_manifest
from components.errors import DataRejectedError, InputError
from components.model_spec import ModelInput, ModelSpec
from components.rows import Arrays, marker, raw_arrays
from components.schema import Column

REJECTED = "rejected"

_BATCH_ROWS = 8_192
_TYPES = {"string": pa.string(), "int64": pa.int64(), "float32": pa.float32()}


def predict(examples: str, model: str, split: str, keep_columns: Sequence[str], predictions: str) -> Manifest:
    """Writes predictions beside the kept columns; the arguments are those of the component.

    Args:
        examples: dataset of raw rows.
        model: directory that train_model wrote, or URI of a published version; empty: no predictions.
        split: which split.
        keep_columns: raw columns to keep; empty: all.
        predictions: becomes a dataset: the split, `rejected` rows with a reason, and the model's spec.json.

    Raises:
        InputError: the model cannot be loaded, or a kept column or the split is not there.
        DataRejectedError: the rows lack a column that the model takes.
    """
    source = read_manifest(Path(examples))
    with whole(predictions) as folder:
        if not model:
            manifest = Manifest(splits={split: 0, REJECTED: 0}, digest=source.digest)
            print("predict_batch: no model is given, so there are no predictions", flush=True)
        else:
            files = split_files(Path(examples), split)
            kept = _kept(files, keep_columns)
            with _fetched(model) as directory:
                # TensorFlow costs seconds to import: not for an empty prediction, nor for a mistake in the arguments
                from components.serving_model import ServingModel

                loaded = ServingModel(directory)
                shutil.copyfile(directory / MODEL_SPEC, folder / MODEL_SPEC)
            counts = _predict_files(loaded, files, kept, folder / split, folder / REJECTED)
            digest = hashlib.sha256(f"{source.digest} {loaded.spec.weights_digest} {kept}".encode()).hexdigest()
            manifest = Manifest(splits={split: counts[0], REJECTED: counts[1]}, digest=digest, files=source.files)
            print(f"predict_batch: {split}: {counts[0]:,} rows predicted, {counts[1]:,} rejected", flush=True)
        write_manifest(folder, manifest)
    return manifest


def _kept(files: Sequence[Path], keep_columns: Sequence[str]) -> list[str]:
    names = pq.read_schema(files[0]).names
    for name in keep_columns:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"it has: {', '.join(names)}"
            raise InputError(f"column '{name}' to keep is not in the dataset; {hint}")
    return list(keep_columns) or names


@contextmanager
def _fetched(model: str) -> Iterator[Path]:
    """Gives the model's directory on the local disk; a published version holds it under `model/`."""
    if storage.is_remote(model):
        fs, path = storage.filesystem(model)
        with tempfile.TemporaryDirectory() as folder, storage.reaching(model):
            fs.get(f"{path.rstrip('/')}/model/", f"{folder}/", recursive=True)
            yield Path(folder)
    else:
        directory = Path(model.removeprefix("file://"))
        if not directory.is_dir():
            raise InputError(f"model '{model}' is no directory; give what train_model wrote, or a published version")
        yield directory / "model" if (directory / "model").is_dir() else directory


def _predict_files(
    model: Any, files: Sequence[Path], kept: Sequence[str], output: Path, rejected: Path
) -> tuple[int, int]:
    """Writes one part a file; gives how many rows were predicted and rejected."""
    output.mkdir()
    columns = [Column(i.name, _TYPES[i.dtype], i.required, is_time=False) for i in model.spec.inputs]
    predicted_rows = rejected_rows = 0
    for index, file in enumerate(files):
        parquet = pq.ParquetFile(file)
        _require_inputs(parquet.schema_arrow.names, model.spec.inputs)
        wanted = list(dict.fromkeys([*kept, *(column.name for column in columns)]))
        writer: pq.ParquetWriter | None = None
        for batch in parquet.iter_batches(_BATCH_ROWS, columns=wanted):
            arrays = raw_arrays(batch, columns)
            outputs = model.predict(arrays)
            reasons = _reasons(arrays, outputs, model.spec)
            good = _is_none(reasons)
            table = _table(batch, kept, outputs, model.spec).filter(pa.array(good))
            writer = writer or pq.ParquetWriter(output / f"part-{index:05d}.parquet", table.schema, compression="lz4")
            writer.write_table(table)
            predicted_rows += table.num_rows
            if not good.all():
                rejected_rows += _write_rejected(
                    batch, reasons, rejected / f"part-{index:05d}-{rejected_rows:09d}.parquet"
                )
        if writer:
            writer.close()
    return predicted_rows, rejected_rows


def _require_inputs(names: Sequence[str], inputs: Sequence[ModelInput]) -> None:
    absent = [i.name for i in inputs if i.name not in names]
    if absent:
        raise DataRejectedError(
            f"{len(absent)} columns that the model takes are not in the rows (allowed: 0): {', '.join(absent[:5])}; "
            "give rows with the schema that the model was trained on"
        )


def _reasons(arrays: Arrays, outputs: Arrays, spec: ModelSpec) -> np.ndarray[Any, Any]:
    """Gives why each row is rejected; None where it is not. Shape [rows]."""
    rows = len(next(iter(outputs.values())))
    reasons = np.full(rows, None, object)
    for output in spec.outputs:
        if output.dtype == "float32":
            finite = np.isfinite(outputs[output.name]).reshape(rows, -1).all(1)
            reasons[~finite] = f"{output.name} is not finite"
    for model_input in spec.inputs:
        values = arrays[model_input.name]
        if model_input.dtype == "float32":
            reasons[np.isinf(values)] = f"{model_input.name} is infinite"
        if model_input.required:
            missing = np.isnan(values) if model_input.dtype == "float32" else values == marker(model_input.dtype)
            reasons[missing] = f"{model_input.name} is missing"
    return reasons


def _is_none(reasons: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.array([reason is None for reason in reasons], bool)


def _table(batch: pa.RecordBatch, kept: Sequence[str], outputs: Arrays, spec: ModelSpec) -> pa.Table:
    columns = {name: batch.column(name) for name in kept}
    for output in spec.outputs:
        values = outputs[output.name]
        if output.dtype == "string":
            columns[output.name] = pa.array(values, pa.binary()).cast(pa.string())
        elif output.width is None:
            columns[output.name] = pa.array(values)
        else:
            flat = pa.array(values.reshape(-1))
            offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * output.width)
            columns[output.name] = pa.ListArray.from_arrays(offsets, flat)
    return pa.table(columns)


def _write_rejected(batch: pa.RecordBatch, reasons: np.ndarray[Any, Any], path: Path) -> int:
    path.parent.mkdir(exist_ok=True)
    table = pa.Table.from_batches([batch]).append_column("reason", pa.array(reasons, pa.string()))
    table = table.filter(pa.array(~_is_none(reasons)))
    pq.write_table(table, path)
    return int(table.num_rows)
