"""What the values of a label mean: one reading for training, evaluation and monitoring."""

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from components.errors import InputError
from components.features import class_names
from components.settings import Task

UNNAMED = ("normal", "anomaly")
"""What an anomaly detector calls rows where no label names them."""

_ALIKE = ({"true", "1"}, {"false", "0"})


def positive_class(classes: Collection[str], task: Task) -> str:
    """Tells which class of a label with two counts as positive: `task.positive`, else true or 1.

    true and 1 (false and 0) mean the same, so that a YAML `true` finds a 1 in the data.

    Args:
        classes: the label's distinct values, as `class_names` gives them.
        task: section `task` of pipeline.yaml.

    Raises:
        InputError: more than two classes, or none of them is positive.
    """
    if len(classes) > 2:
        way_out = "" if task.is_unsupervised else "set task.type to multiclass, or "
        raise InputError(
            f"label '{task.label}' has {len(classes)} values ({_listed(classes)}), {task.described} takes 2; "
            f"{way_out}fix the source"
        )
    wanted = _spellings(task.positive)
    found = [name for name in classes if name in wanted or name.lower() in wanted]
    if len(found) != 1:
        says = "neither true nor 1" if task.positive is None else f"not {task.positive!r} (task.positive)"
        raise InputError(
            f"label '{task.label}' has the values {_listed(classes) or 'none'}: {says}; "
            "set task.positive to the one that counts as positive"
        )
    return found[0]


def two_classes(classes: Collection[str], task: Task) -> tuple[str, str]:
    """Gives the negative and the positive class; one that does not occur has the name that it would have.

    Args:
        classes: see positive_class; of an anomaly_detection task there may be one, or none.
        task: section `task` of pipeline.yaml.

    Raises:
        InputError: more than two classes, or it is not known which is positive.
    """
    if not classes and task.positive is None:
        return UNNAMED
    if task.is_unsupervised and len(classes) < 2:
        wanted = _spellings(task.positive)
        only = next(iter(classes), "")
        if only in wanted or only.lower() in wanted:
            return f"not {only}", only
        positive = {"0": "1", "false": "true"}.get(only.lower()) if task.positive is None else str(task.positive)
        if positive:
            return only or f"not {positive}", positive
    positive = positive_class(classes, task)
    return next((name for name in classes if name != positive), f"not {positive}"), positive


def distinct_classes(values: pa.Array | pa.ChunkedArray, task: Task) -> list[str]:
    """Lists the classes that occur in raw label values, sorted; missing values are none."""
    names = pc.unique(values)
    return sorted(name for name in class_names(names, task.label).to_pylist() if name is not None)


def _spellings(positive: str | int | bool | None) -> set[str]:
    if positive is None:
        return _ALIKE[0]
    text = str(positive).lower() if isinstance(positive, bool) else str(positive)
    return next((alike for alike in _ALIKE if text in alike), {text})


def _listed(classes: Collection[str]) -> str:
    shown = ", ".join(repr(name) for name in sorted(classes)[:5])
    return f"{shown} …" if len(classes) > 5 else shown
