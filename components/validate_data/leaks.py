"""Whether a single feature gives the label away."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Codes = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]

SUSPICIOUS = 0.98
"""Score from which a feature is suspected."""

_BINS = 256
_MIN_ROWS = 20
"""Fewer held-out rows (classification: outside the largest class) prove nothing."""


def scores(sample: pa.Table, label: str, numeric_label: bool) -> dict[str, float]:
    """Scores how well each feature alone predicts the label of rows it was not fitted on.

    Every second row is held out. A feature predicts by the majority class (or mean) of its value, numbers by
    256 quantile bins. The score of a classification is the share of the errors of always guessing the
    largest class that the feature avoids (Goodman and Kruskal's lambda); of a regression, R².

    Args:
        sample: rows of the train split.
        label: name of the label's column; rows without one are left out.
        numeric_label: regression.

    Returns:
        Scores by feature, at most 1; empty where too few rows are held out.
    """
    rows = sample.filter(pc.is_valid(sample[label]))
    if len(rows) < 2 * _MIN_ROWS:
        return {}
    names = [name for name in rows.column_names if name != label]
    if numeric_label:
        if not _is_number(rows[label]):
            return {}
        target = rows[label].to_numpy().astype(np.float64)
        return {name: _r2(_codes(rows[name]), target) for name in names} if np.isfinite(target).all() else {}
    classes = _category_codes(rows[label])
    held_out = classes[1::2]
    guess = np.bincount(classes[::2]).argmax()
    if np.count_nonzero(held_out != guess) < _MIN_ROWS:
        return {}
    return {name: _lambda(_codes(rows[name]), classes, int(guess)) for name in names}


def _lambda(codes: Codes, classes: Codes, guess: int) -> float:
    pairs, rows = np.unique(codes[::2] * (classes.max() + 1) + classes[::2], return_counts=True)
    code, class_ = np.divmod(pairs, classes.max() + 1)
    majority = np.full(codes.max() + 1, guess)
    ascending = np.argsort(rows, kind="stable")
    majority[code[ascending]] = class_[ascending]  # the last assignment, the most frequent class, stays
    errors = np.count_nonzero(majority[codes[1::2]] != classes[1::2])
    return 1.0 - errors / int(np.count_nonzero(classes[1::2] != guess))


def _r2(codes: Codes, target: Numbers) -> float:
    rows = np.bincount(codes[::2], minlength=codes.max() + 1)
    total = np.bincount(codes[::2], weights=target[::2], minlength=codes.max() + 1)
    mean = np.where(rows > 0, total / np.maximum(rows, 1), target[::2].mean())
    held_out = target[1::2]
    spread = float(np.square(held_out - target[::2].mean()).sum())
    return 1.0 - float(np.square(held_out - mean[codes[1::2]]).sum()) / spread if spread else 0.0


def _codes(column: pa.ChunkedArray) -> Codes:
    return _bin_codes(column) if _is_number(column) else _category_codes(column)


def _category_codes(column: pa.ChunkedArray) -> Codes:
    """Numbers the distinct values from 1; missing is 0."""
    indices = column.combine_chunks().dictionary_encode().indices
    return np.asarray(indices.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int64) + 1


def _bin_codes(column: pa.ChunkedArray) -> Codes:
    """Numbers quantile bins from 1; missing and NaN are 0."""
    values = column.cast(pa.float64(), safe=False).to_numpy()
    # Edges at values of the fitted half, so that every bin has fitted rows.
    known = values[::2][np.isfinite(values[::2])]
    if not known.size:
        return np.zeros(len(values), dtype=np.int64)
    edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS)[1:-1], method="nearest"))
    return np.where(np.isnan(values), 0, np.searchsorted(edges, values, side="right") + 1)


def _is_number(column: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_integer(column.type) or pa.types.is_floating(column.type))
