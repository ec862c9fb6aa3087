"""Scoring batches of raw rows, by one model or by several side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.model_spec import ModelSpec
from components.predict_batch.readable import Reasons, columns_of, readable
from components.reasons import REASONS, Reasoner
from components.rows import Arrays, marker, raw_arrays
from components.serving_model import ServingModel

REASON = "reason"
ROW = "row"
CHAMPION = ""
"""Name of the model that decides; the names of others begin their columns."""


@dataclass(frozen=True)
class Scored:
    """A batch with its predictions."""

    table: pa.Table
    """The rows that are not rejected: kept columns, then what each model gives."""
    inputs: Arrays
    """The champion's inputs for these rows."""
    outputs: Arrays
    """The champion's outputs for these rows."""
    rejected: pa.Table | None
    """The other rows with all columns, `reason` and `row`; None: there are none."""


def column_name(model: str, output: str) -> str:
    """Gives the name of an output's column: as the model calls it, or after the name of a challenger."""
    return f"{model}_{output}" if model else output


def load(folders: Mapping[str, Path]) -> dict[str, ServingModel]:
    """Loads models by name, the champion first."""
    return {name: ServingModel(folder) for name, folder in folders.items()}


class Scorer:
    """Turns batches into predictions; may be called by several threads."""

    def __init__(
        self, models: Mapping[str, ServingModel], kept: Sequence[str], reasoner: Reasoner | None = None
    ) -> None:
        """Takes what all batches share.

        Args:
            models: by name, the champion first. Rows that it refuses are rejected; those that only a challenger
                refuses have nulls in its columns.
            kept: raw columns written beside the predictions.
            reasoner: of the champion; None: no reasons.
        """
        self._models = models
        self._columns = {name: columns_of(model.spec) for name, model in models.items()}
        self._kept = kept
        self._reasoner = reasoner

    @property
    def columns(self) -> list[str]:
        """The raw columns to read."""
        inputs = (column.name for columns in self._columns.values() for column in columns)
        return list(dict.fromkeys([*self._kept, *inputs]))

    def score(self, batch: pa.RecordBatch, first_row: int) -> Scored:
        """Predicts a batch.

        Args:
            batch: with at least `columns`.
            first_row: its first row's position in the split.
        """
        inputs, outputs, reasons = self._ask(CHAMPION, batch)
        good = _is_none(reasons)
        spec = self._models[CHAMPION].spec
        columns = {name: batch.column(name) for name in self._kept} | output_columns(spec, outputs)
        for name, model in self._models.items():
            if name != CHAMPION:
                _, values, refused = self._ask(name, batch)
                for output, column in output_columns(model.spec, values, ~_is_none(refused)).items():
                    columns[column_name(name, output)] = column
        table = pa.table(columns)
        if good.all():
            rejected = None
        else:
            rejected = _rejected(batch, reasons, first_row)
            table = table.filter(pa.array(good))
            inputs = {name: values[good] for name, values in inputs.items()}
            outputs = {name: values[good] for name, values in outputs.items()}
        if self._reasoner:
            table = table.append_column(REASONS, self._reasoner.reasons(inputs))
        return Scored(table, inputs, outputs, rejected)

    def _ask(self, name: str, batch: pa.RecordBatch) -> tuple[Arrays, Arrays, Reasons]:
        model, columns = self._models[name], self._columns[name]
        fitting, reasons = readable(batch, columns)
        arrays = raw_arrays(fitting, columns)
        outputs = model.predict(arrays)
        _add_reasons(reasons, arrays, outputs, model.spec)
        return arrays, outputs, reasons


def output_columns(spec: ModelSpec, outputs: Arrays, refused: Reasons | None = None) -> dict[str, pa.Array]:
    """Gives a model's outputs as columns; nulls where `refused`, bool [rows], is true."""
    columns: dict[str, pa.Array] = {}
    for output in spec.outputs:
        values = outputs[output.name]
        if output.dtype == "string":
            columns[output.name] = pa.array(values, pa.binary(), mask=refused).cast(pa.string())
        elif output.width is None:
            columns[output.name] = pa.array(values, mask=refused)
        else:
            offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * output.width)
            mask = None if refused is None else pa.array(refused)
            columns[output.name] = pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1)), mask=mask)
    return columns


def _add_reasons(reasons: Reasons, arrays: Arrays, outputs: Arrays, spec: ModelSpec) -> None:
    """Adds why a row is rejected to `reasons`, [rows], where there is no reason yet."""
    for model_input in spec.inputs:
        values = arrays[model_input.name]
        if model_input.dtype == "float32":
            _add(reasons, np.isinf(values), f"{model_input.name} is infinite")
        if model_input.required:
            missing = np.isnan(values) if model_input.dtype == "float32" else values == marker(model_input.dtype)
            _add(reasons, missing, f"{model_input.name} is missing")
    for output in spec.outputs:
        if output.dtype == "float32":
            bad = ~np.isfinite(outputs[output.name]).reshape(len(reasons), -1)
            _add(reasons, np.asarray(bad.any(1)), f"{output.name} is not finite")


def _add(reasons: Reasons, where: Reasons, reason: str) -> None:
    if not where.any():
        return
    reasons[where & _is_none(reasons)] = reason


def _is_none(reasons: Reasons) -> np.ndarray[Any, Any]:
    none: np.ndarray[Any, Any] = reasons == None  # noqa: E711  (element by element)
    return none.astype(bool)


def _rejected(batch: pa.RecordBatch, reasons: Reasons, first_row: int) -> pa.Table:
    table = pa.Table.from_batches([batch])
    table = table.drop_columns([name for name in (REASON, ROW) if name in table.column_names])
    table = table.append_column(REASON, pa.array(reasons, pa.string()))
    table = table.append_column(ROW, pa.array(range(first_row, first_row + len(reasons)), pa.int64()))
    return table.filter(pa.array(~_is_none(reasons)))
