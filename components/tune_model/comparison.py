"""Which rows candidates learn from, and on which they are compared."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.errors import DataRejectedError
from components.features import FeatureSpec, read_features
from components.models.contract import Problem
from components.models.examples import SPLIT, Examples, Matrix, hold_out, read_examples, standardized
from components.models.packing import Packing
from components.models.scaling import Scaling
from components.settings import Training, Tuning
from components.silhouettes import drawn_rows
from components.tune_model.records import Experiment

_SEED = 17
_FEW, _FOLDS_OF_FEW = 1_000, 5
_FEWEST = 2
"""Rows to compare on: one has no spread."""


@dataclass(frozen=True)
class Fold:
    """One division of the rows; row numbers are sorted, and in one of the three."""

    learned: Matrix
    held_out: Matrix
    """Tell the candidate when to stop."""
    compared: Matrix

    @property
    def known(self) -> Matrix:
        """All that the candidate may look at."""
        return np.concatenate([self.learned, self.held_out])


@dataclass(frozen=True)
class Space:
    """Rows as points, on the features' scale."""

    rows: Matrix
    """Their numbers among all rows compared on; sorted."""
    points: Matrix
    """float32 [rows, columns]."""


@dataclass(frozen=True)
class Comparison:
    """The rows, in memory, and how they are divided."""

    spec: FeatureSpec
    packing: Packing
    examples: Examples
    """Those that take part; labels in their own unit."""
    train_rows: int
    """Of the train split."""
    folds: list[Fold]

    @functools.cached_property
    def spaces(self) -> list[Space]:
        """Where clusters are compared, fold by fold, as models of several folds share none; as all candidates do."""
        scaling = Scaling.of(self.packing, self.examples, np.arange(len(self.examples.labels)))
        spaces, start = [], 0
        for fold in self.folds:
            rows = drawn_rows(len(fold.compared), _SEED)
            spaces.append(Space(start + rows, scaling.matrix(self.examples, fold.compared[rows])))
            start += len(fold.compared)
        return spaces

    @property
    def labels(self) -> Matrix:
        """Of the rows compared on, fold by fold, as predictions come."""
        return self.examples.labels[np.concatenate([fold.compared for fold in self.folds])]

    def problem(self, fold: Fold, experiment: Experiment) -> tuple[Problem, float, float]:
        """Gives what a candidate is to learn in a fold, and mean and scale of a regression's labels (else 0, 1)."""
        examples, mean, scale = standardized(self.examples, self.spec.label, fold.learned)
        problem = Problem(
            examples,
            fold.learned,
            fold.held_out,
            self.packing,
            self.spec.label,
            experiment.task,
            experiment.training,
            experiment.user_module,
        )
        return problem, mean, scale


def read_comparison(experiment: Experiment) -> Comparison:
    """Reads the rows of an experiment.

    Raises:
        InputError: the dataset does not fit its features.json, or cannot be read.
        DataRejectedError: the rows cannot be learned from, or are too few.
    """
    tuning = experiment.tuning
    spec = read_features(Path(experiment.transform_graph))
    packing = Packing(spec)
    examples = read_examples(Path(experiment.transformed), packing, spec.label)
    train_rows = len(examples.labels)
    if tuning.max_rows is not None and train_rows > tuning.max_rows:
        rows = _some(train_rows, tuning)
        examples = Examples(examples.numbers[rows], examples.categories[rows], examples.labels[rows])
    folds = divide(examples.labels, tuning, experiment.training, _usual_folds(len(examples.labels), experiment))
    return Comparison(spec, packing, examples, train_rows, folds)


def divide(labels: Matrix, tuning: Tuning, training: Training, usual_folds: int = 1) -> list[Fold]:
    """Divides rows; drawn ones have each class, and each range of a number, in its share.

    Args:
        labels: of the rows.
        tuning: how.
        training: what it holds out.
        usual_folds: where `tuning` does not say.

    Raises:
        DataRejectedError: too few rows.
    """
    rows = len(labels)
    folds = tuning.folds or usual_folds
    if folds > 1:
        _require(rows >= _FEWEST * folds, rows, f"{_FEWEST * folds} for {folds} folds")
        parts = _parts(labels, folds, tuning.seed)
    else:
        count = round(rows * tuning.validation_fraction)
        needed = f"{_FEWEST} to compare models on, validation_fraction {tuning.validation_fraction:g} gives {count}"
        _require(_FEWEST <= count <= rows - _FEWEST, rows, needed)
        is_drawn = tuning.validation_rows == "random"
        parts = [_drawn(labels, count, tuning.seed) if is_drawn else np.arange(rows - count, rows, dtype=np.int32)]
    return [_fold(rows, part, training) for part in parts]


def _usual_folds(rows: int, experiment: Experiment) -> int:
    # Clusters have no names that models of several folds share.
    may_be_pooled = not experiment.task.is_unsupervised and experiment.tuning.validation_rows == "random"
    return _FOLDS_OF_FEW if may_be_pooled and _FEWEST * _FOLDS_OF_FEW <= rows < _FEW else 1


def _fold(rows: int, compared: Matrix, training: Training) -> Fold:
    rest = np.setdiff1d(np.arange(rows, dtype=np.int32), compared, assume_unique=True)
    learned, held_out = hold_out(len(rest), training)
    return Fold(rest[learned], rest[held_out], compared)


def _parts(labels: Matrix, count: int, seed: int) -> list[Matrix]:
    """Deals rows out to parts of one size: of each `count` rows with labels next to each other, one to each."""
    random = np.random.default_rng(seed)
    order = _by_label(labels, random)
    part_of = random.permuted(np.tile(np.arange(count), (-(-len(order) // count), 1)), axis=1).ravel()[: len(order)]
    return [np.sort(order[part_of == part]) for part in range(count)]


def _drawn(labels: Matrix, count: int, seed: int) -> Matrix:
    """Draws rows: one of each group with labels next to each other."""
    random = np.random.default_rng(seed)
    order = _by_label(labels, random)
    edges = np.arange(count + 1) * len(order) // count
    return np.sort(order[edges[:-1] + (random.random(count) * np.diff(edges)).astype(np.int64)])


def _by_label(labels: Matrix, random: np.random.Generator) -> Matrix:
    """Orders rows by label, those with the same by chance."""
    drawn = random.permutation(len(labels)).astype(np.int32)
    ordered: Matrix = drawn[np.argsort(labels[drawn], kind="stable")]
    return ordered


def _some(rows: int, tuning: Tuning) -> Matrix:
    assert tuning.max_rows is not None
    if tuning.validation_rows == "last" and tuning.folds in (None, 1):
        return np.arange(rows - tuning.max_rows, rows)
    return np.sort(np.random.default_rng(tuning.seed).permutation(rows)[: tuning.max_rows])


def _require(holds: bool, rows: int, needed: str) -> None:
    if not holds:
        raise DataRejectedError(
            f"split '{SPLIT}' has {rows} rows (needed: {needed}); supply more rows, or name one model in section model"
        )
