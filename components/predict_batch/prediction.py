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
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components import storage
from components.artifacts import MODEL_SPEC, Manifest, read_manifest, split_files, whole, write_manifest
from components.errors import DataRejectedError, InputError
from components.model_spec import ModelInput, ModelSpec
from components.parquet_files import open_parquet, read_batches
from components.reasons import REASONS, Reasoner, typical_of_rows, typical_of_statistics
from components.rows import Arrays, marker, raw_arrays
from components.schema import Column
from components.typical_row import STATISTICS

REJECTED = "rejected"
TRAIN = "train"
REASON = "reason"
ROW = "row"

_BATCH_ROWS = 16_384
_REMEDY = "run ingest_data again"
_TYPICAL_ROWS = 50_000
_SHOWN = 40
_TYPES = {"string": pa.string(), "int64": pa.int64(), "float32": pa.float32()}

Reasons = np.ndarray[Any, Any]


def predict(
    examples: str, model: str, split: str, keep_columns: Sequence[str], predictions: str, reasons: int = 0
) -> Manifest:
    """Writes predictions beside the kept columns; the arguments are those of the component.

    Args:
        examples: dataset of raw rows.
        model: directory that train_model wrote, or URI of a published version; empty: no predictions.
        split: which split.
        keep_columns: raw columns to keep; empty: all.
        predictions: becomes a dataset: the split, `rejected` rows with a reason, and the model's spec.json.
        reasons: how many for each prediction, in the column `reasons`; 0: no such column.

    Raises:
        InputError: the model cannot be loaded, or a kept column or the split is not there; a negative argument.
        DataRejectedError: the rows lack a column that the model takes.
    """
    if reasons < 0:
        raise InputError(f"reasons is {reasons} (allowed: 0 or more); give how many reasons a prediction gets")
    source = read_manifest(Path(examples))
    with whole(predictions) as folder:
        if not model:
            manifest = Manifest(splits={split: 0, REJECTED: 0}, digest=source.digest)
            print("predict_batch: no model is given, so there are no predictions", flush=True)
        else:
            files = split_files(Path(examples), split)
            kept = _kept(files, keep_columns)
            with _fetched(model, with_statistics=reasons > 0) as directory:
                # TensorFlow costs seconds to import: not for an empty prediction, nor for a mistake in the arguments
                from components.serving_model import ServingModel

                loaded = ServingModel(directory)
                added = [output.name for output in loaded.spec.outputs]
                _require_free_names(kept, [*added, REASONS] if reasons else added)
                shutil.copyfile(directory / MODEL_SPEC, folder / MODEL_SPEC)
                reasoner = _reasoner(loaded, directory, Path(examples), source, split, reasons) if reasons else None
            counts = _predict_files(loaded, files, kept, folder / split, folder / REJECTED, reasoner)
            decides = f"{source.digest} {loaded.spec.weights_digest} {split} {kept}"
            decides += f" {reasons}" if reasons else ""
            digest = hashlib.sha256(decides.encode()).hexdigest()
            manifest = Manifest(splits={split: counts[0], REJECTED: counts[1]}, digest=digest, files=source.files)
            print(f"predict_batch: {split}: {counts[0]:,} rows predicted, {counts[1]:,} rejected", flush=True)
        write_manifest(folder, manifest)
    return manifest


def _kept(files: Sequence[Path], keep_columns: Sequence[str]) -> list[str]:
    names = _open(files[0]).schema_arrow.names
    for name in keep_columns:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"it has: {', '.join(names)}"
            raise InputError(f"column '{name}' to keep is not in the dataset; {hint}")
    return list(keep_columns) or names


def _require_free_names(kept: Sequence[str], outputs: Sequence[str]) -> None:
    taken = [name for name in outputs if name in kept]
    if taken:
        raise InputError(
            f"column '{taken[0]}' has the name of an output; rename it in the source, or leave it out of keep_columns"
        )


def _open(file: Path) -> pq.ParquetFile:
    return open_parquet(file, _REMEDY)


def _batches(file: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    return read_batches(file, names, _BATCH_ROWS, _REMEDY, f"'{file}'", f"other parts of its split have; {_REMEDY}")


@contextmanager
def _fetched(model: str, with_statistics: bool) -> Iterator[Path]:
    """Gives the model's directory on the local disk; a published version holds it under `model/`."""
    if storage.is_remote(model):
        fs, path = storage.filesystem(model)
        with tempfile.TemporaryDirectory() as folder, storage.reaching(model):
            fs.get(f"{path.rstrip('/')}/model/", f"{folder}/", recursive=True)
            if with_statistics and fs.exists(f"{path.rstrip('/')}/{STATISTICS}"):
                fs.get(f"{path.rstrip('/')}/{STATISTICS}", f"{folder}/{STATISTICS}")
            yield Path(folder)
    else:
        directory = Path(model.removeprefix("file://"))
        if not directory.is_dir():
            raise InputError(f"model '{model}' is no directory; give what train_model wrote, or a published version")
        yield directory / "model" if (directory / "model").is_dir() else directory


def _predict_files(
    model: Any,
    files: Sequence[Path],
    kept: Sequence[str],
    output: Path,
    rejected: Path,
    reasoner: Reasoner | None,
) -> tuple[int, int]:
    """Writes one part a file; gives how many rows were predicted and rejected."""
    output.mkdir()
    columns = _columns(model.spec)
    predicted_rows = rejected_rows = rows = 0
    for index, file in enumerate(files):
        _require_inputs(_open(file).schema_arrow.names, model.spec.inputs)
        wanted = list(dict.fromkeys([*kept, *(column.name for column in columns)]))
        writer: pq.ParquetWriter | None = None
        for batch in _batches(file, wanted):
            readable, reasons = _readable(batch, columns)
            arrays = raw_arrays(readable, columns)
            outputs = model.predict(arrays)
            _add_reasons(reasons, arrays, outputs, model.spec)
            good = _is_none(reasons)
            table = _table(batch, kept, outputs, model.spec).filter(pa.array(good))
            if reasoner:
                reasons_of = reasoner.reasons({name: values[good] for name, values in arrays.items()})
                table = table.append_column(REASONS, reasons_of)
            writer = writer or pq.ParquetWriter(output / f"part-{index:05d}.parquet", table.schema, compression="lz4")
            writer.write_table(table)
            predicted_rows += table.num_rows
            if not good.all():
                rejected_rows += _write_rejected(
                    batch, reasons, rows, rejected / f"part-{index:05d}-{rejected_rows:09d}.parquet"
                )
            rows += batch.num_rows
        if writer:
            writer.close()
    return predicted_rows, rejected_rows


def _reasoner(model: Any, directory: Path, examples: Path, source: Manifest, split: str, reasons: int) -> Reasoner:
    """Prepares reasons against the training data's typical row or, without its statistics, that of the dataset."""
    spec = model.spec
    reference = typical_of_statistics(directory, spec.inputs)
    compared = "the training data's statistics"
    if reference is None:
        usual = TRAIN if source.splits.get(TRAIN, 0) else split
        compared = f"split '{usual}'"
        reference = typical_of_rows(_some_rows(examples, usual, spec), spec.inputs)
    print(f"predict_batch: reasons are told against a typical row, from {compared}", flush=True)
    return Reasoner(spec, model.predict, reference, reasons)


def _some_rows(examples: Path, split: str, spec: ModelSpec) -> Arrays:
    """Reads rows at equal distances, so many that they tell what is typical."""
    columns, files = _columns(spec), split_files(examples, split)
    step = max(1, sum(_open(file).metadata.num_rows for file in files) // _TYPICAL_ROWS)
    parts = []
    for file in files:
        _require_inputs(_open(file).schema_arrow.names, spec.inputs)
        for batch in _batches(file, [column.name for column in columns]):
            readable, _ = _readable(batch.take(pa.array(range(0, batch.num_rows, step))), columns)
            parts.append(raw_arrays(readable, columns))
    return {column.name: np.concatenate([part[column.name] for part in parts]) for column in columns}


def _columns(spec: ModelSpec) -> list[Column]:
    return [Column(i.name, _TYPES[i.dtype], i.required, is_time=False) for i in spec.inputs]


def _require_inputs(names: Sequence[str], inputs: Sequence[ModelInput]) -> None:
    absent = [i.name for i in inputs if i.name not in names]
    if absent:
        raise DataRejectedError(
            f"{len(absent)} columns that the model takes are not in the rows (allowed: 0): {', '.join(absent[:5])}; "
            "give rows with the schema that the model was trained on"
        )


def _readable(batch: pa.RecordBatch, columns: Sequence[Column]) -> tuple[pa.RecordBatch, Reasons]:
    """Puts null for the values that the type of their column cannot hold, and tells which rows have some.

    Returns:
        The batch, and why each row is rejected (None: it is not), [rows].
    """
    reasons = np.full(batch.num_rows, None, object)
    for column in columns:
        array = batch.column(column.name)
        if array.type == column.type or _fits(array, column.type):
            bad = _reserved(array, column.type)
        else:
            bad = np.zeros(len(array), bool)
            _mark_unfit(array, column.type, bad)
        if bad.any():
            reasons[bad] = [
                f"{column.name} cannot be {column.type}: {str(v)[:_SHOWN]}" for v in array.filter(bad).to_pylist()
            ]
            cleared = pc.if_else(pa.array(bad), pa.scalar(None, array.type), array)
            batch = batch.set_column(batch.schema.get_field_index(column.name), column.name, cleared)
    return batch, reasons


def _fits(array: pa.Array, kind: pa.DataType) -> bool:
    try:
        pc.cast(array, kind)
    except pa.ArrowInvalid:
        return False
    except pa.ArrowNotImplementedError:
        return True  # no value of this type can be cast: raw_arrays says so of the whole column
    return True


def _reserved(array: pa.Array, kind: pa.DataType) -> Reasons:
    """Marks integers that stand for a missing value, and numbers that only become infinite as float32; bool [rows]."""
    if kind == pa.int64() and pa.types.is_signed_integer(array.type) and array.type.bit_width == 64:
        marked = pc.equal(array, marker("int64"))
    elif kind == pa.float32() and pa.types.is_floating(array.type) and array.type != kind:
        marked = pc.and_(pc.is_inf(pc.cast(array, kind)), pc.is_finite(array))
    else:
        return np.zeros(len(array), bool)
    result: Reasons = pc.fill_null(marked, False).to_numpy(zero_copy_only=False)
    return result


def _mark_unfit(array: pa.Array, kind: pa.DataType, bad: Reasons) -> None:
    """Marks in `bad`, bool [rows], the values that cannot be cast; halves the array until the bad ones are alone."""
    if _fits(array, kind):
        return
    if len(array) == 1:
        bad[0] = True
        return
    half = len(array) // 2
    _mark_unfit(array[:half], kind, bad[:half])
    _mark_unfit(array[half:], kind, bad[half:])


def _add_reasons(reasons: Reasons, arrays: Arrays, outputs: Arrays, spec: ModelSpec) -> None:
    """Adds why a row is rejected to `reasons`, [rows], where there is no reason yet."""
    for model_input in spec.inputs:
        values = arrays[model_input.name]
        missing = np.isnan(values) if model_input.dtype == "float32" else values == marker(model_input.dtype)
        if model_input.dtype == "float32":
            _add(reasons, np.isinf(values), f"{model_input.name} is infinite")
        if model_input.required:
            _add(reasons, missing, f"{model_input.name} is missing")
    for output in spec.outputs:
        if output.dtype == "float32":
            bad = ~np.isfinite(outputs[output.name]).reshape(len(reasons), -1)
            _add(reasons, np.asarray(bad.any(1)), f"{output.name} is not finite")


def _add(reasons: Reasons, where: Reasons, reason: str) -> None:
    if not where.any():
        return
    reasons[where & _is_none(reasons)] = reason


def _is_none(reasons: Reasons) -> Reasons:
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


def _write_rejected(batch: pa.RecordBatch, reasons: Reasons, first_row: int, path: Path) -> int:
    path.parent.mkdir(exist_ok=True)
    table = pa.Table.from_batches([batch])
    table = table.drop_columns([name for name in (REASON, ROW) if name in table.column_names])
    table = table.append_column(REASON, pa.array(reasons, pa.string()))
    table = table.append_column(ROW, pa.array(range(first_row, first_row + len(reasons)), pa.int64()))
    table = table.filter(pa.array(~_is_none(reasons)))
    pq.write_table(table, path)
    return int(table.num_rows)
