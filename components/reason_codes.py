"""Reason codes: the features that contribute most to a prediction, as a column of a table."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.rows import MISSING_INTEGER, MISSING_STRING, Arrays
from components.shapley import Array

REASON_TYPE = pa.list_(
    pa.struct([("feature", pa.string()), ("value", pa.string()), ("contribution", pa.float64())]),
)
"""Of a row: feature, its value as text (null: missing), and what it contributes, the largest first."""


def reason_codes(rows: Arrays, shares: Array, most: int) -> pa.Array:
    """Gives the largest contributions of each row.

    Args:
        rows: by feature, [rows], with the markers of rows.py.
        shares: float64 [rows, features], in the order of `rows`; a row that has one that is not finite gets null.
        most: contributions of a row.
    """
    names = list(rows)
    most = min(most, len(names))
    order = np.argsort(-np.abs(shares), axis=1, kind="stable")[:, :most]
    chosen = order.reshape(-1)
    line = np.repeat(np.arange(len(shares)), most)
    texts = pa.chunked_array([_texts(values) for values in rows.values()], pa.string()).combine_chunks()
    structs = pa.StructArray.from_arrays(
        [
            pa.array(names, pa.string()).take(pa.array(chosen)),
            texts.take(pa.array(chosen * len(shares) + line)),
            pa.array(shares[line, chosen]),
        ],
        fields=list(REASON_TYPE.value_type),
    )
    offsets = np.arange(len(shares) + 1, dtype=np.int32) * most
    unknown = ~np.isfinite(shares).all(1)
    return pa.ListArray.from_arrays(pa.array(offsets), structs, mask=pa.array(unknown)).cast(REASON_TYPE)


def _texts(values: Array) -> pa.Array:
    if values.dtype == object:
        return _null(pa.array(values, pa.binary()).cast(pa.string()), values == MISSING_STRING)
    if values.dtype.kind == "f":
        return _null(pa.array(values).cast(pa.string()), np.isnan(values))
    return _null(pa.array(values).cast(pa.string()), values == MISSING_INTEGER)


def _null(texts: pa.Array, where: Array) -> pa.Array:
    return pc.if_else(pa.array(np.asarray(where, bool)), pa.scalar(None, pa.string()), texts)
