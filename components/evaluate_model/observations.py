"""Reads what was predicted and what came true."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.artifacts import MODEL_SPEC, read_manifest, split_files
from components.errors import DataRejectedError, InputError
from components.evaluate_model.metrics import best_f1_threshold
from components.evaluate_model.points import read_points
from components.features import class_names
from components.labels import distinct_classes, two_classes
from components.model_spec import classes_of, read_spec
from components.predictions import Array, Predictions, Sampled
from components.settings import Evaluation, Task
from components.silhouettes import silhouettes
from components.slices import require_column

SPLIT = "eval"
_DAY_SECONDS = 86_400
REJECTED = "rejected"
REASON = "reason"
ROW = "row"
SCORE_COLUMN = {
    "binary": "probability",
    "multiclass": "probabilities",
    "regression": "value",
    "anomaly_detection": "anomaly_score",
    "clustering": "cluster",
}
_TRUTH = {
    "binary": bool,
    "multiclass": np.int64,
    "regression": np.float64,
    "anomaly_detection": bool,
    "clustering": np.int64,
}
# What predict_batch says of a value: which one makes no other reason.
_VALUE = re.compile(r"( cannot be \w+): .*", re.DOTALL)
PREDICTION_COLUMNS = frozenset(
    ("probability", "probabilities", "value", "class", "anomaly_score", "distances", "cluster")
)


@dataclass(frozen=True)
class Rejections:
    """The rows that the model could not take."""

    rows: int
    of: int
    """Rows of the eval split: predicted and rejected ones."""
    reason: str = ""
    """The commonest one, without the values; empty: there are no rejected rows."""
    reason_rows: int = 0

    @property
    def share(self) -> float:
        """Of the eval split's rows."""
        return self.rows / self.of if self.of else 0.0


@dataclass(frozen=True)
class Observations:
    """Rows with a known label, where there is one, and what the models said about them."""

    columns: pa.Table
    """The raw columns that were kept beside the predictions."""
    candidate: Predictions
    production: Predictions | None
    """On the same rows; None: no model is in production."""
    baseline: Predictions
    """The same for every row: the train split's prior (classes) or mean (regression), score 0, or one cluster."""
    train_labels: Array
    """float64, without missing ones: 0 and 1, indices of classes, or values (regression); empty without a label."""
    missing_labels: int
    rejections: Rejections
    rejected_by_production: int
    """Rows that the candidate takes and the model in production does not: left out."""


@dataclass(frozen=True)
class _Truth:
    """Labels of both splits, encoded alike; float64, NaN: missing. Without a label: none of train, 0 of eval."""

    train: Array
    eval: Array
    classes: tuple[str, ...]


def observe(
    predictions: Path, production_predictions: Path, examples: Path, task: Task, evaluation: Evaluation
) -> Observations:
    """Reads predictions of the candidate and of production, and the labels of both splits.

    Raises:
        InputError: a column is absent, or the label is not one of the task; production predicted other rows.
        DataRejectedError: no rows, no labels, or predictions that are no probabilities or numbers.
    """
    table = _read_predictions(predictions, task)
    rejections = _read_rejections(predictions, table.num_rows if table else 0)
    if not table or not table.num_rows:
        if not rejections.rows:
            raise DataRejectedError(f"no row of split '{SPLIT}' was predicted: it has none; widen the eval split")
        raise DataRejectedError(
            f"none of {rejections.rows:,} rows of split '{SPLIT}' could be predicted, most often because "
            f"{rejections.reason} ({rejections.reason_rows:,} rows); fix the source, or widen the eval split"
        )
    production, shared = _read_production(production_predictions, predictions, table, task)
    table = table.filter(pa.array(shared))
    truth = _read_truth(examples, table, task, predictions)
    known = ~np.isnan(truth.eval)
    if not known.any():
        raise DataRejectedError(f"none of {table.num_rows:,} rows in split '{SPLIT}' has a label '{task.label}'")

    days = _days(table, evaluation)
    points = read_points(predictions, examples, table.filter(pa.array(known))) if task.type == "clustering" else None

    def judged(scores: Array, own_threshold: float, model: Path) -> Predictions:
        labels = truth.eval[known].astype(_TRUTH[task.type])
        threshold = _threshold(labels, scores, own_threshold, task, evaluation)
        quantiles, clusters = _known_of_training(model, task)
        sampled = None
        if points is not None:
            sampled = Sampled(points.rows, points.values, silhouettes(points.values, scores[points.rows]))
        return Predictions(
            task,
            labels,
            scores,
            truth.classes,
            threshold,
            evaluation.quantile,
            quantiles,
            clusters,
            sampled,
            budget=evaluation.alert_budget,
            days=None if days is None else days[known],
        )

    own_threshold = _own_threshold(predictions)
    train_labels = truth.train[~np.isnan(truth.train)]
    return Observations(
        columns=table.drop_columns([name for name in table.column_names if name in PREDICTION_COLUMNS]).filter(
            pa.array(known)
        ),
        candidate=judged(_scores(table, predictions, task, truth.classes)[known], own_threshold, predictions),
        production=None
        if production is None
        else judged(
            _scores(production, production_predictions, task, truth.classes)[known],
            _own_threshold(production_predictions),
            production_predictions,
        ),
        baseline=judged(
            _constant_scores(train_labels, task, len(truth.classes), int(known.sum())), own_threshold, predictions
        ),
        train_labels=train_labels,
        missing_labels=int((~known).sum()),
        rejections=rejections,
        rejected_by_production=int((~shared).sum()),
    )


def _read_predictions(dataset: Path, task: Task) -> pa.Table | None:
    """Reads the predicted rows; None: there are none, as when there is no model."""
    if not read_manifest(dataset).splits.get(SPLIT, 0):
        return None
    table = _read(split_files(dataset, SPLIT))
    column = SCORE_COLUMN[task.type]
    if column not in table.column_names:
        raise InputError(
            f"predictions '{dataset}' have no column '{column}' (they have: {', '.join(table.column_names)}); "
            f"they come from a model for another task than {task.type}"
        )
    return table


def _read_rejections(dataset: Path, predicted: int) -> Rejections:
    rows = read_manifest(dataset).splits.get(REJECTED, 0)
    if not rows:
        return Rejections(0, predicted)
    reasons = _read(split_files(dataset, REJECTED), [REASON])[REASON].value_counts()
    counts: Counter[str] = Counter()
    for reason, count in zip(reasons.field("values").to_pylist(), reasons.field("counts").to_pylist(), strict=True):
        counts[_VALUE.sub(r"\1", reason)] += count
    return Rejections(rows, predicted + rows, *counts.most_common(1)[0])


def _read_production(
    dataset: Path, candidate_dataset: Path, candidate: pa.Table, task: Task
) -> tuple[pa.Table | None, Array]:
    """Reads the predictions of production, which must be of the candidate's rows, in the same order.

    Returns:
        Those of the rows that both models take (None: there is no model), and which rows of the candidate these are.
    """
    table = _read_predictions(dataset, task)
    rejected = read_manifest(dataset).splits.get(REJECTED, 0)
    if table is None and not rejected:
        return None, np.ones(candidate.num_rows, dtype=bool)
    rows = table.num_rows if table else 0
    candidate_rejected = read_manifest(candidate_dataset).splits.get(REJECTED, 0)
    if rows + rejected != candidate.num_rows + candidate_rejected:
        raise InputError(
            f"the model in production predicted {rows:,} rows ({rejected:,} rejected), the candidate "
            f"{candidate.num_rows:,} ({candidate_rejected:,} rejected); run both over the same rows"
        )
    taken, own = _taken(dataset, rows, rejected), _taken(candidate_dataset, candidate.num_rows, candidate_rejected)
    if table is None or not (taken & own).any():
        raise InputError(
            f"the model in production predicted {rows:,} rows ({rejected:,} rejected), and no row that the candidate "
            "takes, too; put a version into production that takes these rows"
        )
    table, candidate = table.filter(pa.array(own[taken])), candidate.filter(pa.array(taken[own]))
    for name in candidate.column_names:
        same = name in PREDICTION_COLUMNS or name not in table.column_names
        if not same and not _equal(candidate[name], table[name]):
            raise InputError(
                f"the model in production predicted other rows than the candidate, or in another order: column "
                f"'{name}' differs; run both over the same rows"
            )
    return table, taken[own]


def _taken(dataset: Path, predicted: int, rejected: int) -> Array:
    """Tells which rows of the split a model took: bool [predicted + rejected]."""
    rows = pa.array([], pa.int64())
    if rejected:
        parts = _read(split_files(dataset, REJECTED), [ROW])
        require_column(parts.column_names, ROW, f"'{REJECTED}' of the predictions")
        rows = parts[ROW]
    taken = ~np.isin(np.arange(predicted + rejected), rows.to_numpy())
    if taken.sum() != predicted:
        raise InputError(f"predictions '{dataset}' do not tell which rows were rejected; run predict_batch again")
    result: Array = taken
    return result


def _read(files: Sequence[Path], columns: Sequence[str] | None = None) -> pa.Table:
    try:
        parts = [pq.ParquetFile(file).read(columns=columns) for file in files]
        return pa.concat_tables(parts, promote_options="permissive").unify_dictionaries()
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"'{files[0].parent}' cannot be read as Parquet: {reason}; run the stage before again"
        ) from error


def _read_truth(examples: Path, table: pa.Table, task: Task, predictions: Path) -> _Truth:
    if task.label is None:
        return _Truth(np.zeros(0), np.zeros(table.num_rows), ())
    require_column(table.column_names, task.label, f"split '{SPLIT}' of the predictions")
    train_files = split_files(examples, "train")
    require_column(pq.ParquetFile(train_files[0]).schema_arrow.names, task.label, "split 'train'")
    train, evaluated = _read(train_files, [task.label])[task.label], table[task.label]
    if task.type == "regression":
        truth = _Truth(_numbers(train, task), _numbers(evaluated, task), ())
    else:
        classes = _classes(train, evaluated, task, predictions)
        truth = _Truth(_indices(train, classes, task), _indices(evaluated, classes, task), classes)
    if np.isnan(truth.train).all() and not task.is_unsupervised:
        raise DataRejectedError(
            f"none of {len(train):,} rows in split 'train' has a label '{task.label}': no baseline; check the source"
        )
    return truth


def _classes(train: pa.ChunkedArray, evaluated: pa.ChunkedArray, task: Task, predictions: Path) -> tuple[str, ...]:
    names = sorted({*distinct_classes(train, task), *distinct_classes(evaluated, task)})
    if task.type in ("binary", "anomaly_detection"):
        return two_classes(names, task)
    if task.type == "clustering":
        return tuple(names)
    known = read_spec(predictions).label.classes
    return (*known, *(name for name in names if name not in known))


def _indices(values: pa.ChunkedArray, classes: tuple[str, ...], task: Task) -> Array:
    encoded = values.combine_chunks().dictionary_encode()
    names = class_names(encoded.dictionary, task.label)
    indices = pc.index_in(names, value_set=pa.array(classes, pa.string())).take(encoded.indices)
    return _floats(indices)


def _numbers(values: pa.ChunkedArray, task: Task) -> Array:
    try:
        numbers = _floats(values)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"label '{task.label}' holds no numbers: {reason}; a regression needs them") from error
    if np.isinf(numbers).any():
        raise DataRejectedError(f"label '{task.label}' has {np.isinf(numbers).sum():,} infinite values; fix the source")
    return numbers


def _floats(values: pa.Array | pa.ChunkedArray) -> Array:
    """Gives numbers as float64, NaN for null."""
    return pc.fill_null(pc.cast(values, pa.float64()), np.nan).to_numpy(zero_copy_only=False)


def _scores(table: pa.Table, dataset: Path, task: Task, classes: tuple[str, ...]) -> Array:
    column = SCORE_COLUMN[task.type]
    if task.type == "clustering":
        return _cluster_numbers(table[column], dataset)
    if task.type == "multiclass":
        scores = _class_probabilities(table[column], dataset, classes)
    else:
        scores = _floats(table[column]).astype(np.float64 if task.type == "regression" else np.float32)
    fine = np.isfinite(scores) if task.type == "regression" else (scores >= 0) & (scores <= 1)
    bad = ~fine.reshape(len(scores), -1).all(axis=1)
    if bad.any():
        what = "scores" if task.type == "anomaly_detection" else "probabilities"
        allowed = "finite numbers" if task.type == "regression" else f"{what} in [0, 1]"
        raise DataRejectedError(
            f"{bad.sum():,} of {len(scores):,} predictions of '{column}' are no {allowed}, e.g. "
            f"{np.ravel(scores[bad][0])[0]}; look at the loss in the training report"
        )
    return scores


def _cluster_numbers(values: pa.ChunkedArray, dataset: Path) -> Array:
    numbers = pc.index_in(values, value_set=pa.array(classes_of(read_spec(dataset)), pa.string()))
    if numbers.null_count:
        raise InputError(
            f"{numbers.null_count:,} of {len(values):,} predictions of 'cluster' name none of the model's; run "
            "predict_batch again"
        )
    result: Array = numbers.to_numpy().astype(np.int64)
    return result


def _class_probabilities(values: pa.ChunkedArray, dataset: Path, classes: tuple[str, ...]) -> Array:
    """Puts a model's probabilities in the order of `classes`; a class that it does not know has none."""
    model_classes = read_spec(dataset).label.classes
    widths = pc.unique(pc.fill_null(pc.list_value_length(values), 0)).to_pylist()
    if widths != [len(model_classes)]:
        raise InputError(
            f"predictions '{dataset}' hold {', '.join(map(str, widths))} probabilities a row, their spec "
            f"{len(model_classes)} classes; run predict_batch again"
        )
    given = _floats(pc.list_flatten(values)).astype(np.float32).reshape(-1, len(model_classes))
    off = np.abs(given.sum(axis=1, dtype=np.float64) - 1) > 1e-3
    if off.any():
        raise DataRejectedError(
            f"{off.sum():,} of {len(off):,} predictions do not sum to 1, e.g. {given[off][0].sum():.4g}; "
            "let the model end in a softmax"
        )
    scores = np.zeros((len(given), len(classes)), dtype=np.float32)
    for index, name in enumerate(model_classes):
        if name in classes:
            scores[:, classes.index(name)] = given[:, index]
    return scores


def _constant_scores(train_labels: Array, task: Task, classes: int, rows: int) -> Array:
    if task.is_unsupervised:
        return np.zeros(rows, np.int64 if task.type == "clustering" else np.float32)
    if task.type == "regression":
        return np.full(rows, train_labels.mean())
    if task.type == "binary":
        return np.full(rows, train_labels.mean(), dtype=np.float32)
    prior = np.bincount(train_labels.astype(np.int64), minlength=classes) / len(train_labels)
    return np.tile(prior.astype(np.float32), (rows, 1))


def _own_threshold(predictions: Path) -> float:
    """Gives the threshold of the model that predicted; 0.5 where it has none, or left no spec beside them."""
    chosen = read_spec(predictions).decision_threshold if (predictions / MODEL_SPEC).is_file() else None
    return 0.5 if chosen is None else chosen


def _known_of_training(predictions: Path, task: Task) -> tuple[Array | None, int]:
    """Gives what a model's spec tells: quantiles of its scores, and how many clusters it has."""
    if not task.is_unsupervised or not (predictions / MODEL_SPEC).is_file():
        return None, 0
    spec = read_spec(predictions)
    quantiles = np.array(spec.score_quantiles) if spec.score_quantiles else None
    return quantiles, len(classes_of(spec)) if task.type == "clustering" else 0


def _days(table: pa.Table, evaluation: Evaluation) -> Array | None:
    """Gives the days since 1970 of the rows, where alerts are counted by day."""
    column = evaluation.alert_budget.time if evaluation.alert_budget else None
    if column is None:
        return None
    require_column(table.column_names, column, f"split '{SPLIT}' of the predictions")
    values = table[column]
    if values.null_count:
        raise DataRejectedError(
            f"{values.null_count:,} of {len(values):,} rows have no '{column}', by which alert_budget tells the day; "
            "fix the source, or set evaluation.alert_budget.per to 1000_rows"
        )
    if pa.types.is_temporal(values.type):
        values = pc.cast(pc.cast(values, pa.timestamp("s"), safe=False), pa.int64())
    if not pa.types.is_integer(values.type):
        raise InputError(
            f"'{column}', by which evaluation.alert_budget tells the day, is {values.type}; name a date or time column"
        )
    result: Array = values.to_numpy() // _DAY_SECONDS
    return result


def _threshold(labels: Array, scores: Array, own: float, task: Task, evaluation: Evaluation) -> float:
    if task.type not in ("binary", "anomaly_detection"):
        return 0.5
    chosen = evaluation.decision_threshold
    if chosen == "model":
        return own
    return best_f1_threshold(labels, scores) if chosen == "max_f1" else chosen


def _equal(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    one, other = _decoded(one), _decoded(other)
    if pa.types.is_floating(one.type) and pa.types.is_floating(other.type):
        return bool(np.array_equal(_floats(one), _floats(other), equal_nan=True))
    return one.type == other.type and one.equals(other)


def _decoded(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(values, values.type.value_type) if pa.types.is_dictionary(values.type) else values
