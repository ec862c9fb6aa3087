"""The full pass over the train split, on Beam: in this process, or on the engine that beam_args name."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import grpc
import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform.beam as tft_beam
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

from components.beam_options import options_of
from components.errors import InputError, UnavailableError
from components.parquet_files import local_parquet
from components.rows import dtype, raw_arrays
from components.schema import Column

# One bundle of this size is cheaper than many small ones; beyond it, memory grows for nothing.
BATCH_ROWS = 65_536

_IN_PROCESS = ("--runner=FnApiRunner", "--direct_num_workers=1")
_ARROW_TYPES = {"string": pa.large_binary(), "int64": pa.int64(), "float32": pa.float32()}


def analyze(
    files: Sequence[Path],
    columns: Sequence[Column],
    keys: dict[str, str],
    preprocessing_fn: Callable[[dict[str, tf.Tensor]], dict[str, Any]],
    beam_args: Sequence[str],
    output: Path,
) -> None:
    """Analyzes rows and writes the transform graph.

    Only the files' names travel in Beam's graph: data in it would be pickled and compressed at every step.

    Args:
        files: Parquet parts of the train split.
        columns: the raw inputs.
        keys: their names inside the graph.
        preprocessing_fn: by keys, tensors of shape [rows], to features.
        beam_args: Beam's pipeline options; empty: in this process.
        output: becomes TFT's output.

    Raises:
        InputError: the preprocessing function or an option of Beam is wrong.
        UnavailableError: the engine does not answer.
    """
    fields = [(keys[column.name], pa.large_list(_ARROW_TYPES[dtype(column)])) for column in columns]
    config = TensorAdapterConfig(pa.schema(fields), {name: _dense(name) for name, _ in fields})
    options = options_of(beam_args or _IN_PROCESS)
    with (
        tempfile.TemporaryDirectory(dir=output) as scratch,
        _explained(),
        beam.Pipeline(options=options) as pipeline,
        tft_beam.Context(temp_dir=scratch),
    ):
        rows = (
            pipeline
            | "files" >> beam.Create([str(file) for file in files])
            | "rows" >> beam.FlatMap(_read, list(columns), keys)
        )
        analyzed = (rows, config) | "analyze" >> tft_beam.AnalyzeDataset(preprocessing_fn)
        analyzed | "write" >> tft_beam.WriteTransformFn(str(output))


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turns what Beam, TFT or the graph say into one line."""
    try:
        yield
    except (grpc.RpcError, grpc.FutureTimeoutError) as error:
        raise UnavailableError(
            "the engine of beam_args does not answer; check its endpoint, or leave beam_args out"
        ) from error
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        cause = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(
            f"the features cannot be analyzed: {cause}; check 'features', user module and beam_args"
        ) from error


def read_batches(files: Sequence[Path], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yields the rows of Parquet parts in order, some at a time."""
    for file in files:
        with local_parquet(file) as parquet:
            yield from parquet.iter_batches(BATCH_ROWS, columns=list(columns))


def _read(file: str, columns: Sequence[Column], keys: dict[str, str]) -> Iterator[pa.RecordBatch]:
    for batch in read_batches([Path(file)], [column.name for column in columns]):
        arrays = raw_arrays(batch, columns)
        offsets = pa.array(np.arange(batch.num_rows + 1))
        lists = [
            pa.LargeListArray.from_arrays(
                offsets, pa.array(arrays[column.name], _ARROW_TYPES[dtype(column)], from_pandas=False)
            )
            for column in columns
        ]
        yield pa.RecordBatch.from_arrays(lists, [keys[column.name] for column in columns])


def _dense(name: str) -> schema_pb2.TensorRepresentation:
    representation = schema_pb2.TensorRepresentation()
    representation.dense_tensor.column_name = name
    representation.dense_tensor.shape.SetInParent()
    return representation
