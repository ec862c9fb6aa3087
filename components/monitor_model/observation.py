"""One pass over the rows of a window: statistics, counts, and the rows that have labels by now."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tensorflow_metadata.proto.v0 import schema_pb2

from components.data_statistics.statistics import StatisticsBuilder, StatisticsList
from components.errors import InputError
from components.features import Label
from components.model_spec import classes_of
from components.monitor_model.reference import Reference
from components.monitor_model.spool import Spool
from components.prediction_log.form import fit
from components.prediction_log.labels import LabelTable
from components.profiles import CategoryProfile, NumberProfile, Profile, ProfileBuilder, bins_of, numbers_of
from components.request_columns import MODEL_VERSION

PREDICTION = "prediction"
_TAILS = (0.001, 0.002, 0.005, 0.01, 0.02)
PROBABILITY_EDGES = [0.0, *_TAILS, *(round(0.05 * i, 2) for i in range(1, 20)), *(1 - one for one in reversed(_TAILS))]
"""Bins of probabilities, finer at both ends, where those of rare events lie; the same for all models."""


@dataclass(frozen=True)
class Labelled:
    """The rows whose label is known."""

    truth: npt.NDArray[np.float64]
    """0 and 1 (binary), indices of classes (multiclass), numbers (regression) [rows]."""
    scores: npt.NDArray[np.float32]
    """[rows], or [rows, classes]."""
    versions: npt.NDArray[np.object_]
    slices: pa.Table
    """The columns that slices are made of."""

    def __len__(self) -> int:
        return len(self.truth)


@dataclass(frozen=True)
class Observation:
    """What one pass gives."""

    statistics: StatisticsList
    profile: Profile | None
    """Of the features, over the bins and values of the training data; None: these are not known."""
    unknown_values: dict[str, Counter[str]]
    predictions: dict[str, Profile]
    """By version; each has one column, `prediction`."""
    labelled: Labelled
    unused_labels: int
    """Labels that are none of the model's classes, or no numbers."""


def observe(
    spool: Spool,
    reference: Reference,
    schema: schema_pb2.Schema,
    names: Sequence[str],
    labels: LabelTable | None,
    key: Sequence[str],
    slices: Sequence[str],
) -> Observation:
    """Reads the rows once.

    Args:
        spool: the rows.
        reference: the version whose training data the features are held against.
        schema: of the logged columns.
        names: features that are logged.
        labels: None: there are none.
        key: columns by which labels are found.
        slices: columns whose values are kept beside labels.
    """
    statistics = StatisticsBuilder(schema)
    described = [feature.name for feature in schema.feature]
    profile = reference.profile
    counted = [name for name in names if profile and name in profile.columns]
    builder = ProfileBuilder.like(profile, counted) if profile else None
    predictions = _Predictions(reference)
    gathered = _Gathered(reference.spec.label, slices)
    for batch in spool.batches():
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        statistics.add(pa.RecordBatch.from_arrays([columns[name] for name in described], described))
        if builder:
            builder.add(batch)
        predictions.add(columns)
        if labels is not None:
            gathered.add(columns, batch.num_rows, labels.find(batch, key))
    return Observation(
        statistics=statistics.statistics(),
        profile=builder.profile() if builder else None,
        unknown_values=builder.unknown_values() if builder else {},
        predictions=predictions.profiles(),
        labelled=gathered.labelled(),
        unused_labels=gathered.unused,
    )


def score_column(label: Label) -> str:
    """Names the output that quality is measured by, or, where no label is learned from, that is counted."""
    return {
        "binary": "probability",
        "multiclass": "probabilities",
        "regression": "value",
        "anomaly_detection": "anomaly_score",
        "clustering": "cluster",
    }[label.kind]


class _Predictions:
    """Counts the predictions of each version."""

    def __init__(self, reference: Reference) -> None:
        self._label, self._classes = reference.spec.label, classes_of(reference.spec)
        trained = reference.profile.columns.get(str(self._label.name)) if reference.profile else None
        self._edges = trained.edges if isinstance(trained, NumberProfile) else None
        self._builders: dict[str, ProfileBuilder] = {}

    def add(self, columns: dict[str, pa.Array]) -> None:
        values = columns["class" if self._label.kind == "multiclass" else score_column(self._label)]
        if self._label.kind in ("binary", "anomaly_detection"):
            self._edges = PROBABILITY_EDGES
        elif self._label.kind == "regression" and self._edges is None:
            self._edges = bins_of(numbers_of(values))
        versions = pc.fill_null(columns[MODEL_VERSION], "")
        for version in pc.unique(versions).to_pylist():
            own = values.filter(pc.equal(versions, version))
            self._builder(version).add(pa.RecordBatch.from_arrays([own], [PREDICTION]))

    def profiles(self) -> dict[str, Profile]:
        return {version: builder.profile() for version, builder in self._builders.items()}

    def _builder(self, version: str) -> ProfileBuilder:
        if version not in self._builders:
            if self._label.kind in ("multiclass", "clustering"):
                classes = CategoryProfile(values=self._classes, counts=[0] * len(self._classes), complete=True)
                self._builders[version] = ProfileBuilder({}, {PREDICTION: classes})
            else:
                self._builders[version] = ProfileBuilder({PREDICTION: self._edges or []}, {})
        return self._builders[version]


class _Gathered:
    """Collects what quality is measured by."""

    def __init__(self, label: Label, slices: Sequence[str]) -> None:
        self._label = label
        self._slices = slices
        self._parts: list[tuple[pa.Array, pa.Array, pa.Array]] = []
        self._tables: list[pa.Table] = []
        self.unused = 0

    def add(self, columns: dict[str, pa.Array], rows: int, found: pa.Array) -> None:
        truth = self._encoded(found)
        scores = columns[score_column(self._label)]
        if pa.types.is_fixed_size_list(scores.type):
            usable = scores.is_valid()
        else:
            usable = pc.and_(scores.is_valid(), pc.fill_null(pc.is_finite(scores), False))
        known = pc.and_(truth.is_valid(), usable)
        versions = pc.fill_null(columns[MODEL_VERSION], "")
        self._parts.append((truth.filter(known), scores.filter(known), versions.filter(known)))
        self._tables.append(
            pa.table({name: _plain(columns[name]).filter(known) for name in self._slices})
            if self._slices
            else pa.table({"row": pa.nulls(int(pc.sum(known).as_py() or 0))})
        )

    def labelled(self) -> Labelled:
        if not self._parts:
            return Labelled(np.empty(0), np.empty(0, np.float32), np.empty(0, object), pa.table({}))
        truth = np.concatenate([np.asarray(part[0].to_numpy(zero_copy_only=False), np.float64) for part in self._parts])
        scores = np.concatenate([_scores(part[1]) for part in self._parts])
        versions = np.concatenate([part[2].to_numpy(zero_copy_only=False) for part in self._parts])
        return Labelled(truth, scores, versions, pa.concat_tables(self._tables))

    def _encoded(self, found: pa.Array) -> pa.Array:
        if self._label.kind == "regression":
            numbers = _numbers(found)
            truth = pc.cast(numbers, pa.float64())
        else:
            try:
                truth = self._label.encode(found)
            except InputError:
                truth = pa.nulls(len(found), pa.float32())
        self.unused += truth.null_count - found.null_count
        return truth


def _numbers(texts: pa.Array) -> pa.Array:
    numbers, _ = fit(texts, pa.float32())
    return pc.if_else(pc.fill_null(pc.is_finite(numbers), False), numbers, pa.scalar(None, pa.float32()))


def _scores(column: pa.Array) -> npt.NDArray[np.float32]:
    if pa.types.is_fixed_size_list(column.type):
        flat = np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32)
        return flat.reshape(len(column), column.type.list_size)
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float32)


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
