"""Applying the transform graph to the splits of a dataset."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf

from components.errors import DataRejectedError, InputError
from components.features import Feature, FeatureSpec
from components.rows import marker, raw_arrays
from components.schema import Column
from components.transform_data.analysis import read_batches
from components.transform_graph import TransformGraph

Array = np.ndarray[Any, Any]


def write_splits(
    transform_graph: Path, known: Mapping[str, Column], files: Mapping[str, Sequence[Path]], output: Path
) -> dict[str, int]:
    """Writes `<split>/part-00000.parquet` for every split, a batch at a time; gives the rows of each.

    Rows without a required value are left out and counted; so are those without a label that is learned from.

    Raises:
        DataRejectedError: a split has no row left, or a feature is not finite.
        InputError: a user's feature does not give one value a row.
    """
    graph = TransformGraph(transform_graph)
    # AutoGraph would rewrite TFT's layer for seconds, for nothing: no branch depends on a tensor.
    function = tf.function(lambda raw: graph(raw), input_signature=[graph.input_signature], autograph=False)
    schema = _arrow_schema(graph.spec)
    columns = [known[raw.name] for raw in graph.spec.inputs]
    label = graph.spec.label
    names = [*(column.name for column in columns), *([label.column] if label.column else [])]
    needed = "a label and all required values" if label.is_learned else "all required values"
    reason = "missing label or required value" if label.is_learned else "missing required value"
    written = {}
    for split, parts in files.items():
        (output / split).mkdir()
        rows = left_out = 0
        with pq.ParquetWriter(output / split / "part-00000.parquet", schema, compression="lz4") as writer:
            for batch in read_batches(parts, names):
                table = _transformed(function, graph.spec, columns, batch)
                writer.write_table(table)
                rows += table.num_rows
                left_out += batch.num_rows - table.num_rows
        if not rows:
            raise DataRejectedError(f"split '{split}': none of {left_out:,} rows has {needed}")
        without = f", {left_out:,} left out for a {reason}" if left_out else ""
        print(f"transform_data: {split}: {rows:,} rows, {len(graph.spec.features)} features{without}", flush=True)
        written[split] = rows
    return written


def _transformed(function: Any, spec: FeatureSpec, columns: Sequence[Column], batch: pa.RecordBatch) -> pa.Table:
    labels = [spec.label.encode(batch.column(spec.label.column))] if spec.label.column else []
    arrays = raw_arrays(batch, columns)
    keep = np.ones(batch.num_rows, bool)
    if spec.label.is_learned:
        keep &= pc.is_valid(labels[0]).to_numpy(zero_copy_only=False)
    for raw in spec.inputs:
        if raw.required:
            keep &= _has_value(arrays[raw.name], raw.dtype)
    outputs = function({name: tf.constant(values) for name, values in arrays.items()})
    values = [_kept(outputs[feature.name].numpy(), feature, keep) for feature in spec.features]
    kept = [label.filter(pa.array(keep)) for label in labels]
    return pa.table([*values, *kept], schema=_arrow_schema(spec))


def _has_value(values: Array, dtype: str) -> Array:
    return ~np.isnan(values) if dtype == "float32" else values != marker(dtype)


def _kept(values: Array, feature: Feature, keep: Array) -> pa.Array:
    if len(values) != len(keep):
        raise InputError(f"feature '{feature.name}' has {len(values)} values for {len(keep)} rows; give one a row")
    kept = values[keep]
    bad = np.isinf(kept) if feature.may_be_missing else ~np.isfinite(kept)
    if feature.kind == "number" and bad.any():
        raise DataRejectedError(
            f"feature '{feature.name}' has {np.count_nonzero(bad):,} values in {len(kept):,} rows that "
            "are infinite or no number (allowed: 0); look for huge values in its column"
        )
    flat = pa.array(kept.reshape(-1))
    return flat if feature.width is None else pa.FixedSizeListArray.from_arrays(flat, feature.width)


def _arrow_schema(spec: FeatureSpec) -> pa.Schema:
    fields = []
    for feature in spec.features:
        kind = pa.int64() if feature.kind == "category" else pa.float32()
        fields.append((feature.name, kind if feature.width is None else pa.list_(kind, feature.width)))
    if spec.label.column:
        fields.append((spec.label.column, pa.int64() if spec.label.kind == "multiclass" else pa.float32()))
    return pa.schema(fields)
