"""Ensembles of decision trees: gradient-boosted ones and random forests, fitted by LightGBM."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from components.errors import DataRejectedError, InputError
from components.models.boosting_library import lightgbm_library
from components.models.contract import Epoch, Fit, FittedModel, Kind, Problem, Progress
from components.models.examples import Matrix, is_reserved
from components.models.fitting import class_weights
from components.models.tree_graph import Ensemble, TreeGraph
from components.settings import BoostedTreesModel, EarlyStopping, RandomForestModel

if TYPE_CHECKING:
    import lightgbm

_REPORTS = 10
"""How often progress is told of."""
_PATIENCE = 10
"""Trees without a better validation loss, for each epoch of early_stopping.patience."""
_EXACT = 1 << 24
"""Whole numbers below are exact in float32."""
_MOST_TREES = 500
_SURE_ROWS = 1_000
"""With fewer held out, chance decides when their loss is lowest: the number of trees is fixed, and all rows are learned
from in the end."""
_STEPS = 10
"""That number, times the learning rate: what scikit-learn's default comes to."""
_ROWS_OF_A_THREAD = 10_000
_SAMPLE_ROWS = 20_000
"""Of a forest's loss on rows learned from."""
_SURE = 1e-7
"""A forest's shares are kept so far from 0 and 1, whose logits are infinite."""


class Trees(FittedModel):
    """A fitted ensemble, as a graph of its own."""

    def __init__(
        self, texts: list[str], number_columns: int, fit: Fit, gives_shares: bool, knows_held_out: bool = False
    ) -> None:
        """Makes the graph.

        Args:
            texts: LightGBM's text form of one booster, or of one an output.
            number_columns: of the packing.
            fit: how fitting went.
            gives_shares: whether the trees' sums are shares of the classes, not logits or values.
            knows_held_out: see FittedModel.
        """
        super().__init__(fit, {"lightgbm": lightgbm_library().__version__, "tensorflow": tf.__version__})
        self.knows_held_out = knows_held_out
        self._texts = texts
        self._ensemble = Ensemble.read(texts, number_columns)
        self._gives_shares = gives_shares
        self._graph = TreeGraph(self._ensemble)

    def __call__(self, numbers: Any, categories: Any) -> Any:
        """Predicts transformed rows; see FittedModel."""
        sums = self._graph(numbers, categories)
        if not self._gives_shares:
            return sums
        shares = tf.clip_by_value(sums, _SURE, 1 - _SURE)
        return tf.math.log(shares) - (tf.math.log1p(-shares) if self._ensemble.outputs == 1 else 0.0)

    @property
    def weights(self) -> list[Matrix]:
        """The trees, as arrays."""
        return self._ensemble.weights

    @property
    def parameters(self) -> int:
        """How many thresholds, or sets of categories, and leaves there are."""
        return self._ensemble.parameters

    @property
    def assets(self) -> dict[str, bytes]:
        """The boosters' text form, which LightGBM reads."""
        names = ["trees.txt"] if len(self._texts) == 1 else [f"trees-{i}.txt" for i in range(len(self._texts))]
        return {name: text.encode() for name, text in zip(names, self._texts, strict=True)}


class BoostedTrees(Kind[BoostedTreesModel]):
    """Trees of which each corrects the sum of those before."""

    settings = BoostedTreesModel

    def fit(self, settings: BoostedTreesModel, problem: Problem, progress: Progress) -> Trees:
        """Adds trees, until the loss of the rows held out no longer falls."""
        parameters = {
            **_parameters(settings, problem),
            "objective": problem.label.kind,
            "learning_rate": settings.learning_rate,
            "lambda_l2": settings.l2,
            "bagging_fraction": settings.row_fraction if settings.row_fraction * len(problem.learned) >= 1 else 1.0,
            "bagging_freq": 1,
            "feature_fraction_bynode": settings.feature_fraction,
        }
        if problem.label.kind == "multiclass":
            parameters["num_class"] = len(problem.label.classes)
        stopping = problem.training.early_stopping if len(problem.held_out) >= _SURE_ROWS else None
        trees = settings.trees or (_MOST_TREES if stopping else math.ceil(_STEPS / settings.learning_rate))
        with _fitting():
            booster = _booster(parameters, problem, problem.examples.labels)
            fit = _boost(booster, trees, stopping, progress)
            again = not stopping and len(problem.held_out) > 0 and not is_reserved(problem.training)
            if again:
                booster = _booster(parameters, _with_all_rows(problem), problem.examples.labels)
                for _ in range(fit.best.number):
                    booster.update()
            text = booster.model_to_string(num_iteration=fit.best.number)
        return Trees([text], problem.packing.number_columns, fit, gives_shares=False, knows_held_out=again)

    def space(self, settings: BoostedTreesModel, draw: Any, problem: Problem) -> BoostedTreesModel:
        """Draws how large trees are, and how much each may say and see."""
        most = max(8, min(255, len(problem.learned) // 20))
        return settings.model_copy(
            update={
                "learning_rate": draw.suggest_float("learning_rate", 0.02, 0.2, log=True),
                "leaves": draw.suggest_int("leaves", 4, most, log=True),
                "min_leaf_rows": draw.suggest_int("min_leaf_rows", 5, 200, log=True),
                "l2": draw.suggest_float("l2", 1e-3, 30.0, log=True),
                "row_fraction": draw.suggest_float("row_fraction", 0.5, 1.0),
                "feature_fraction": draw.suggest_float("feature_fraction", 0.4, 1.0),
            }
        )


class RandomForest(Kind[RandomForestModel]):
    """The mean of trees that learn from different rows and features.

    They learn 0 and 1, so that a leaf holds the share of a class; each of several classes has trees of its own.
    """

    settings = RandomForestModel

    def fit(self, settings: RandomForestModel, problem: Problem, progress: Progress) -> Trees:
        """Fits all trees.

        Raises:
            DataRejectedError: so few rows that a tree would have none, or none that a feature divides.
        """
        rows = len(problem.learned)
        if settings.row_fraction * rows < 1:
            raise DataRejectedError(
                f"model.row_fraction {settings.row_fraction:g} of {rows} rows leaves a tree none (needed: 1); "
                "supply more rows, or raise it"
            )
        parameters = {
            **_parameters(settings, problem),
            "boosting": "rf",
            "objective": "regression",
            "bagging_fraction": settings.row_fraction,
            "bagging_freq": 1,
            "feature_fraction_bynode": settings.feature_fraction,
        }
        labels = problem.examples.labels
        targets = [labels]
        if problem.label.kind == "multiclass":
            targets = [(labels == index).astype(np.float32) for index in range(len(problem.label.classes))]
        with _fitting():
            boosters = [_booster(parameters, problem, target) for target in targets]
            fit = _grow(boosters, settings.trees, problem, progress)
            texts = [booster.model_to_string() for booster in boosters]
        if not any(booster.feature_importance().any() for booster in boosters):
            # LightGBM's forest without a split does not even give the mean.
            raise DataRejectedError(
                f"no feature divides the {rows} rows that are learned from; check them, or lower model.min_leaf_rows "
                f"({settings.min_leaf_rows})"
            )
        return Trees(texts, problem.packing.number_columns, fit, gives_shares=problem.label.kind != "regression")

    def space(self, settings: RandomForestModel, draw: Any, problem: Problem) -> RandomForestModel:
        """Draws how large and how different the trees are."""
        del problem
        return settings.model_copy(
            update={
                "leaves": draw.suggest_int("leaves", 32, 512, log=True),
                "min_leaf_rows": draw.suggest_int("min_leaf_rows", 1, 50, log=True),
                "feature_fraction": draw.suggest_float("feature_fraction", 0.2, 1.0),
            }
        )


def _parameters(settings: BoostedTreesModel | RandomForestModel, problem: Problem) -> dict[str, Any]:
    """Gives what both kinds have in common, named as LightGBM does."""
    # Threads wait for each other by spinning, which costs more than they save where rows are few.
    threads = min(len(os.sched_getaffinity(0)), 1 + len(problem.learned) // _ROWS_OF_A_THREAD)
    return {
        "num_leaves": settings.leaves,
        "min_data_in_leaf": settings.min_leaf_rows,
        # LightGBM's default is 100: in 300 rows hardly a category has as many.
        "min_data_per_group": min(100, max(5, len(problem.learned) // 100)),
        "max_depth": settings.max_depth or -1,
        "seed": problem.training.seed % 2**31,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": threads,
        "feature_pre_filter": False,
        "verbosity": -1,
    }


def _booster(parameters: dict[str, Any], problem: Problem, labels: Matrix) -> "lightgbm.Booster":
    """Gives LightGBM the rows to learn from and, if there are some, those held out."""
    lightgbm = lightgbm_library()
    matrix = _side_by_side(problem.examples.numbers, problem.examples.categories)
    categories = list(range(problem.packing.number_columns, matrix.shape[1]))
    weights = _weights(problem)

    def dataset(rows: Matrix, reference: Any = None) -> Any:
        return lightgbm.Dataset(
            matrix[rows],
            labels[rows],
            weight=None if weights is None else weights[rows],
            categorical_feature=categories,
            reference=reference,
            params=parameters,
        )

    learned = dataset(problem.learned)
    booster = lightgbm.Booster(parameters, learned)
    if len(problem.held_out):
        booster.add_valid(dataset(problem.held_out, learned), "held out")
    return booster


def _side_by_side(numbers: Matrix, categories: Matrix) -> Matrix:
    exact = np.float32 if categories.max(initial=0) < _EXACT else np.float64
    return np.hstack([numbers.astype(exact), categories.astype(exact)])


def _weights(problem: Problem) -> Matrix | None:
    if problem.training.class_weight == "none":
        return None
    labels = problem.examples.labels
    weights: Matrix = class_weights(problem.label, labels[problem.learned])[labels.astype(np.int64)]
    return weights


def _with_all_rows(problem: Problem) -> Problem:
    """Has the rows held out learned from, too."""
    every = np.sort(np.concatenate([problem.learned, problem.held_out]))
    return replace(problem, learned=every, held_out=problem.held_out[:0])


def _boost(booster: "lightgbm.Booster", trees: int, stopping: EarlyStopping | None, progress: Progress) -> Fit:
    """Adds trees one by one; in the end the booster may have more than the best number."""
    steps: list[Epoch] = []
    best: Epoch | None = None
    started = time.monotonic()
    for number in range(1, trees + 1):
        cannot_split = booster.update()
        loss = float(booster.eval_train()[0][2])
        held_out = booster.eval_valid()
        validation_loss = float(held_out[0][2]) if held_out else None
        step = Epoch(number, loss, validation_loss, time.monotonic() - started, "tree")
        if best is None or not stopping or _is_better(step, best, stopping.min_delta):
            best = step
        is_last = cannot_split or number == trees
        if stopping:
            is_last |= number - best.number >= stopping.patience * _PATIENCE
        if is_last or number % math.ceil(trees / _REPORTS) == 0:
            steps.append(step)
            progress(step)
            started = time.monotonic()
        if is_last:
            break
    assert best  # there is a tree at least
    return Fit(sorted({*steps, best}, key=lambda step: step.number), best)


def _is_better(step: Epoch, best: Epoch, min_delta: float) -> bool:
    assert step.validation_loss is not None
    assert best.validation_loss is not None
    return step.validation_loss < best.validation_loss - min_delta


def _grow(boosters: "list[lightgbm.Booster]", trees: int, problem: Problem, progress: Progress) -> Fit:
    """Adds trees to all boosters by turns."""
    every = max(1, len(problem.learned) // _SAMPLE_ROWS)
    learned, held_out = _Shares(problem, problem.learned[::every]), _Shares(problem, problem.held_out)
    steps: list[Epoch] = []
    started = time.monotonic()
    for number in range(1, trees + 1):
        for booster in boosters:
            booster.update()
        if number == trees or number % math.ceil(trees / _REPORTS) == 0:
            validation_loss = held_out.loss(boosters) if len(problem.held_out) else None
            steps.append(Epoch(number, learned.loss(boosters), validation_loss, time.monotonic() - started, "tree"))
            progress(steps[-1])
            started = time.monotonic()
    return Fit(steps, steps[-1])


class _Shares:
    """What a growing forest says of some rows."""

    def __init__(self, problem: Problem, rows: Matrix) -> None:
        examples, weights = problem.examples, _weights(problem)
        self._matrix = _side_by_side(examples.numbers[rows], examples.categories[rows])
        self._labels = examples.labels[rows]
        self._weights = None if weights is None else weights[rows]
        self._kind = problem.label.kind
        self._sums, self._trees = 0.0, 0

    def loss(self, boosters: "list[lightgbm.Booster]") -> float:
        """Gives the mean loss of the trees so far, of which only the new ones are asked."""
        trees = boosters[0].current_iteration()
        new = {"start_iteration": self._trees, "num_iteration": trees - self._trees}
        means = np.stack([booster.predict(self._matrix, **new) for booster in boosters], axis=1)
        self._sums = self._sums + means * (trees - self._trees)
        self._trees = trees
        return float(np.average(self._losses(self._sums / trees), weights=self._weights))

    def _losses(self, means: Matrix) -> Matrix:
        if self._kind == "regression":
            return np.square(means[:, 0] - self._labels)
        shares = np.clip(means, _SURE, 1 - _SURE)
        if self._kind == "binary":
            return -np.log(np.where(self._labels == 1, shares[:, 0], 1 - shares[:, 0]))
        of_label = shares[np.arange(len(shares)), self._labels.astype(np.int64)]
        return np.log(shares.sum(axis=1)) - np.log(of_label)


@contextmanager
def _fitting() -> Iterator[None]:
    """Turns what LightGBM refuses into an error of one line."""
    try:
        yield
    except lightgbm_library().basic.LightGBMError as error:
        raise InputError(f"LightGBM: {str(error).splitlines()[0]}; change section model or training") from error
