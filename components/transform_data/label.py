"""What the label of the train split is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.errors import DataRejectedError, InputError
from components.features import Label
from components.labels import UNNAMED, distinct_classes, two_classes
from components.settings import Task
from components.transform_data.analysis import read_batches

_MAX_CLASSES = 10_000


def describe_label(train: Sequence[Path], task: Task) -> Label:
    """Finds the classes of the label in the train split. What learns from none may have one class there, or none.

    Raises:
        DataRejectedError: too few or too many classes for the task, or no label at all.
        InputError: the label is no column, no number for a regression, or never `task.positive`.
    """
    if task.label is None or task.type == "clustering":
        classes = list(UNNAMED) if task.type == "anomaly_detection" else []
        return Label(name=task.label, kind=task.type, classes=classes, positive=classes[-1] if classes else None)
    values = pa.chunked_array([batch.column(0) for batch in read_batches(train, [task.label])])
    if values.null_count == len(values) and not task.is_unsupervised:
        raise DataRejectedError(f"label '{task.label}' is missing in all {len(values):,} train rows; fix the source")
    if task.type == "regression":
        _require_numbers(values, task)
        return Label(name=task.label, kind="regression")
    classes = distinct_classes(values, task)
    if not task.is_unsupervised:
        _require_some_classes(classes, task)
    if task.type == "multiclass":
        return Label(name=task.label, kind="multiclass", classes=classes)
    negative, positive = two_classes(classes, task)
    return Label(name=task.label, kind=task.type, classes=[negative, positive], positive=positive)


def is_same_label(given: np.ndarray[Any, Any], column: pa.Array, label: Label) -> bool:
    """Tells whether a user's label is the column, up to the ids of its classes.

    Args:
        given: what a preprocessing function makes of the label, shape [rows].
        column: the label's column, for the same rows.
        label: what the column means.
    """
    known = label.encode(column)
    pairs = pa.table({"given": given, "known": known}).filter(pc.is_valid(known))
    if label.kind == "regression":
        return bool(pc.all(pc.equal(pairs["given"], pairs["known"])).as_py())
    distinct = pairs.group_by(pairs.column_names).aggregate([])
    return all(distinct.num_rows == len(distinct[name].unique()) for name in distinct.column_names)


def _require_numbers(values: pa.ChunkedArray, task: Task) -> None:
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise InputError(f"label '{task.label}' holds text; a regression needs numbers: set task.type to multiclass")


def _require_some_classes(classes: Sequence[str], task: Task) -> None:
    if len(classes) < 2:
        only = f"one value in train, '{classes[0]}'" if classes else "no value in train"
        raise DataRejectedError(f"label '{task.label}' has {only} (needed: 2); widen the window or fix the source")
    if len(classes) > _MAX_CLASSES:
        raise DataRejectedError(
            f"label '{task.label}' has {len(classes):,} classes (limit: {_MAX_CLASSES:,}); if it is a number, set "
            "task.type to regression"
        )
