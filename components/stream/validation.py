"""Events checked against the model's inputs, by the rules of the model server, and turned into arrays.

A column is checked for all events at once; an event at fault is taken out, and the others go on.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from components.model_spec import ModelInput
from components.predictor.columns import column
from components.predictor.faults import RowError, hint
from components.rows import Arrays
from components.stream.events import Event, Rejection

_FILLERS = {"string": "a", "int64": 0, "float32": 0.0}
_MOST_NAMED = 100

_logger = logging.getLogger("lockgate")


class Validator:
    """Checks the events of one stream for one model."""

    def __init__(self, inputs: Sequence[ModelInput], others: Iterable[str], reject_unknown: bool) -> None:
        """Takes what is known.

        Args:
            inputs: of the model.
            others: fields that the model does not take, but the stream's settings name.
            reject_unknown: whether an event with any other field is rejected.
        """
        self._inputs = list(inputs)
        self._names = [i.name for i in inputs]
        self._known = frozenset([*self._names, *others])
        self._reject_unknown = reject_unknown
        self._named: set[str] = set()
        self.unknown = 0
        """Events so far with a field that is not known."""

    def check(self, events: Sequence[Event]) -> tuple[list[Event], Arrays, list[Rejection]]:
        """Checks events.

        Returns:
            Those without a fault; their columns, by name, [events]; the rejections of the others.
        """
        faults: dict[int, tuple[str, str]] = {}
        for index, event in enumerate(events):
            if not self._known.issuperset(event.fields):
                self._unknown(index, event, faults)
        arrays = {i.name: self._column(i, [event.fields.get(i.name) for event in events], faults) for i in self._inputs}
        if not faults:
            return list(events), arrays, []
        kept = [index for index in range(len(events)) if index not in faults]
        rejections = [Rejection(events[index].message, *faults[index]) for index in sorted(faults)]
        return [events[index] for index in kept], {name: values[kept] for name, values in arrays.items()}, rejections

    def _unknown(self, index: int, event: Event, faults: dict[int, tuple[str, str]]) -> None:
        self.unknown += 1
        names = [name for name in event.fields if name not in self._known]
        if self._reject_unknown:
            faults[index] = "unknown_field", f"unknown feature '{names[0][:60]}'; {hint(names[0], self._names)}"
            return
        for name in names:
            if name not in self._named and len(self._named) < _MOST_NAMED:
                self._named.add(name)
                _logger.warning("events have the field '%s', which the model does not take; it is ignored", name[:60])

    def _column(self, i: ModelInput, values: list[Any], faults: dict[int, tuple[str, str]]) -> np.ndarray[Any, Any]:
        for index in faults:
            values[index] = _FILLERS[i.dtype]
        while True:
            try:
                return column(i, values)
            except RowError as error:
                faults[error.row] = "invalid", error.says
                values[error.row] = _FILLERS[i.dtype]
