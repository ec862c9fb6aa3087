"""The rows with the highest predictions, found without keeping the others."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.model_spec import ModelSpec
from components.rows import Arrays

TOP = "top"
"""The folder of these rows beside the splits."""
PLACE, POSITION, SCORE, DATA, INPUTS = "part", "position", "score", "data", "inputs"

_SLACK = 4
"""So many times the wanted rows are kept until the lowest are dropped."""


class TopRows:
    """Keeps the rows of the highest scores; of equal ones those that come first."""

    def __init__(self, most: int) -> None:
        """Args: most: rows to keep."""
        self._most = most
        self._kept: list[pa.Table] = []
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        """Takes rows with `score`, `part` and `position`."""
        if table.num_rows > self._most:
            table = highest(table, self._most)
        self._kept.append(table)
        self._rows += table.num_rows
        if self._rows > _SLACK * self._most:
            self._kept = [self.table()]
            self._rows = self._kept[0].num_rows

    def table(self) -> pa.Table:
        """Gives the rows, the highest first; at least one must have been added."""
        return highest(pa.concat_tables(self._kept), self._most)


def highest(table: pa.Table, most: int) -> pa.Table:
    """Gives the rows of the highest scores."""
    order = [(SCORE, "descending"), (PLACE, "ascending"), (POSITION, "ascending")]
    chosen = pc.select_k_unstable(table.select([SCORE, PLACE, POSITION]), k=min(most, table.num_rows), sort_keys=order)
    return table.take(chosen)


def candidates(
    spec: ModelSpec, table: pa.Table, inputs: Arrays, outputs: Arrays, part: int, first: int, most: int
) -> pa.Table:
    """Picks the rows of a batch that may be among the highest.

    Args:
        spec: of the champion.
        table: rows as they are written.
        inputs: of the model for these rows.
        outputs: of the model for these rows.
        part: number of the file that they go into.
        first: position of the first row in that file.
        most: rows that are wanted.

    Returns:
        `score`, `part`, `position`, `data` (the row) and `inputs` (of the model), the last two as structs.
    """
    scores = score(spec, outputs)
    chosen = np.arange(len(scores))
    if len(scores) > most:
        chosen = np.sort(np.argpartition(-scores, most - 1)[:most])
    rows = pa.array(chosen)
    arrays = {name: values[chosen] for name, values in inputs.items()}
    columns = [pa.array(values, pa.binary() if values.dtype == object else None) for values in arrays.values()]
    return pa.table(
        {
            SCORE: pa.array(scores[chosen], pa.float32()),
            PLACE: pa.array(np.full(len(chosen), part), pa.int64()),
            POSITION: pa.array(first + chosen, pa.int64()),
            DATA: _structs(table.take(rows)),
            INPUTS: pa.StructArray.from_arrays(columns, list(arrays)),
        }
    )


def arrays_of(inputs: Iterable[pa.Array] | pa.ChunkedArray, spec: ModelSpec) -> Arrays:
    """Gives inputs back as the model takes them."""
    table = pa.Table.from_struct_array(inputs)
    result: Arrays = {}
    for i in spec.inputs:
        values = table[i.name].to_numpy()
        result[i.name] = values.astype(object if i.dtype == "string" else i.dtype)
    return result


def score(spec: ModelSpec, outputs: Arrays) -> np.ndarray[Any, Any]:
    """Gives what rows are ordered by, [rows]: the prediction, or how sure the model is of the class or cluster."""
    values = outputs[spec.outputs[0].name]
    if values.ndim == 1:
        return values
    scores: np.ndarray[Any, Any] = -values.min(axis=1) if spec.label.kind == "clustering" else values.max(axis=1)
    return scores


def _structs(table: pa.Table) -> pa.Array:
    chunks = table.combine_chunks().to_struct_array()
    return chunks.combine_chunks() if isinstance(chunks, pa.ChunkedArray) else chunks
