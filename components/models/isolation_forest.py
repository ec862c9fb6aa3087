"""Isolation forests: random trees, in which anomalies are alone after few splits.

Source: Liu, Ting, Zhou, Isolation Forest, ICDM 2008. scikit-learn fits them; here they are written in LightGBM's text
form, from which the graph is made as that of any other trees, and of which LightGBM gives exact SHAP values. A row's
score is 2^-s with s its mean path length over that of an unsuccessful search among the rows of a tree.
"""

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
import tensorflow as tf
from sklearn import ensemble

from components.errors import DataRejectedError
from components.models.contract import Epoch, Fit, FittedModel, Kind, Problem, Progress
from components.models.examples import Examples, Matrix, column_means
from components.models.packing import Packing, category_sizes
from components.models.tree_graph import Ensemble, TreeGraph
from components.settings import IsolationForestModel

ASSET = "trees.txt"

_NUMBER, _NUMBER_MISSING_LEFT, _CATEGORY = 2 << 2, 2 << 2 | 2, 1
"""LightGBM's decision_type; a missing number is NaN."""
_TABLE_BYTES = 32 << 20
"""Of a graph's tables, all groups of trees together; fewer trees in a group take less."""


class IsolationTrees(FittedModel):
    """A fitted forest, as a graph of its own."""

    knows_held_out = True

    def __init__(self, text: str, number_columns: int, fit: Fit) -> None:
        """Args: text: the trees in LightGBM's form; number_columns: of the packing."""
        super().__init__(fit, {"scikit-learn": sklearn.__version__, "tensorflow": tf.__version__})
        self._text = text
        self._ensemble = Ensemble.read([text], number_columns)
        self._graphs = [TreeGraph(group) for group in _groups(self._ensemble)]

    def __call__(self, numbers: Any, categories: Any) -> Any:
        """Scores transformed rows; see FittedModel."""
        return tf.pow(2.0, -tf.add_n([graph(numbers, categories) for graph in self._graphs]))

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
        """The trees' text form, which LightGBM reads."""
        return {ASSET: self._text.encode()}


class IsolationForest(Kind[IsolationForestModel]):
    """Trees of random splits."""

    settings = IsolationForestModel
    holds_out = False

    def fit(self, settings: IsolationForestModel, problem: Problem, progress: Progress) -> IsolationTrees:
        """Fits all trees; rows held out are learned from, too, as nothing here needs them.

        Raises:
            DataRejectedError: fewer than two rows, or rows that are all alike.
        """
        started = time.monotonic()
        rows = np.sort(np.concatenate([problem.learned, problem.held_out]))
        encoding = _Encoding.of(problem.packing, problem.examples, rows)
        matrix = encoding.matrix(problem.examples, rows)
        if len(rows) < 2 or not np.ptp(matrix, axis=0).any():
            raise DataRejectedError(
                f"the {len(rows):,} rows that are learned from are all alike (needed: two different ones): nothing "
                "can be told apart; supply other rows, or other features"
            )
        forest = ensemble.IsolationForest(
            n_estimators=settings.trees,
            max_samples=min(settings.sample_rows, len(rows)),
            max_features=settings.feature_fraction,
            random_state=problem.training.seed % 2**32,
        ).fit(matrix)
        text = as_text(forest, encoding.means, encoding.surprises)
        step = Epoch(settings.trees, float(-forest.score_samples(matrix).mean()), None, 0.0, "tree")
        fitted = IsolationTrees(text, problem.packing.number_columns, Fit([step], step))
        progress(Epoch(step.number, step.loss, None, time.monotonic() - started, step.unit))
        return fitted

    def space(self, settings: IsolationForestModel, draw: Any, problem: Problem) -> IsolationForestModel:
        """Draws what a tree sees."""
        most = max(16, min(2_048, len(problem.learned)))
        return settings.model_copy(
            update={
                "sample_rows": draw.suggest_int("sample_rows", 8, most, log=True),
                "feature_fraction": draw.suggest_float("feature_fraction", 0.3, 1.0),
            }
        )


@dataclass(frozen=True)
class _Encoding:
    """What the trees see of a row: numbers, means where they are missing, and of a category its surprise."""

    means: Matrix
    """float32 [number columns]."""
    surprises: list[Matrix]
    """By column of categories, float32 [ids]: minus the binary logarithm of an id's share; one that does not occur
    counts as half a row."""

    @classmethod
    def of(cls, packing: Packing, examples: Examples, rows: Matrix) -> "_Encoding":
        surprises = []
        for column, size in enumerate(category_sizes(packing)):
            counts = np.bincount(examples.categories[rows, column], minlength=size)
            surprises.append(-np.log2(np.maximum(counts, 0.5) / len(rows)).astype(np.float32))
        return cls(column_means(examples.numbers, rows), surprises)

    def matrix(self, examples: Examples, rows: Matrix) -> Matrix:
        """Gives rows, by their numbers: float32 [rows, number and category columns]."""
        numbers = examples.numbers[rows]
        columns = [of_id[examples.categories[rows, column]] for column, of_id in enumerate(self.surprises)]
        return np.column_stack([np.where(np.isnan(numbers), self.means, numbers), *columns])


def path_length(rows: Matrix) -> Matrix:
    """Gives the mean length of an unsuccessful search in a binary search tree of so many rows, c(n); float64."""
    many = np.maximum(rows, 3).astype(np.float64)
    length = 2 * (np.log(many - 1) + np.euler_gamma) - 2 * (many - 1) / many
    return np.where(rows > 2, length, np.where(rows == 2, 1.0, 0.0))


def as_text(forest: Any, means: Matrix, surprises: Sequence[Matrix]) -> str:
    """Writes a forest of scikit-learn in LightGBM's text form, version 4.

    The trees' sum is s, of which the score is 2^-s.

    Args:
        forest: fitted to numbers, then the surprises of categories.
        means: float32 [number columns]; stand in for missing numbers.
        surprises: by column of categories, float32 [ids].
    """
    columns = len(means) + len(surprises)
    scale = len(forest.estimators_) * float(path_length(np.array(forest.max_samples_)))
    blocks = [
        _tree_text(index, one.tree_, features, means, surprises, scale)
        for index, (one, features) in enumerate(zip(forest.estimators_, forest.estimators_features_, strict=True))
    ]
    header = {
        "version": "v4",
        "num_class": 1,
        "num_tree_per_iteration": 1,
        "label_index": 0,
        "max_feature_idx": columns - 1,
        "objective": "regression",
        "feature_names": " ".join(f"Column_{index}" for index in range(columns)),
        "feature_infos": " ".join(["none"] * columns),
    }
    return "\n".join(["tree", _lines(header), "", *blocks, "end of trees", ""])


def _tree_text(
    index: int, tree: Any, features: Matrix, means: Matrix, surprises: Sequence[Matrix], scale: float
) -> str:
    is_leaf = tree.children_left < 0
    inner, leaves = np.flatnonzero(~is_leaf), np.flatnonzero(is_leaf)
    numbers = np.empty(tree.node_count, np.int64)
    numbers[inner], numbers[leaves] = np.arange(len(inner)), ~np.arange(len(leaves))
    values = (_depths(tree)[leaves] + path_length(tree.n_node_samples[leaves])) / scale
    thresholds, decisions, words, ends = [], [], list[int](), [0]
    for node in inner:
        column, threshold = int(features[tree.feature[node]]), float(tree.threshold[node])
        if column < len(means):
            thresholds.append(repr(threshold))
            decisions.append(_NUMBER_MISSING_LEFT if means[column] <= threshold else _NUMBER)
        else:
            thresholds.append(str(len(ends) - 1))
            decisions.append(_CATEGORY)
            words += _words(surprises[column - len(means)] <= threshold)
            ends.append(len(words))
    fields: dict[str, Any] = {"Tree": index, "num_leaves": len(leaves), "num_cat": len(ends) - 1}
    if len(inner):
        fields |= {
            "split_feature": _listed(features[tree.feature[inner]]),
            "split_gain": _listed([1] * len(inner)),
            "threshold": " ".join(thresholds),
            "decision_type": _listed(decisions),
            "left_child": _listed(numbers[tree.children_left[inner]]),
            "right_child": _listed(numbers[tree.children_right[inner]]),
        }
    fields["leaf_value"] = " ".join(repr(float(value)) for value in values)
    if len(inner):
        fields |= {
            "leaf_weight": _listed(tree.n_node_samples[leaves]),
            "leaf_count": _listed(tree.n_node_samples[leaves]),
            "internal_value": _listed([0] * len(inner)),
            "internal_weight": _listed(tree.n_node_samples[inner]),
            "internal_count": _listed(tree.n_node_samples[inner]),
        }
    if words:
        fields |= {"cat_boundaries": _listed(ends), "cat_threshold": _listed(words)}
    return f"{_lines({**fields, 'is_linear': 0, 'shrinkage': 1})}\n\n"


def _depths(tree: Any) -> Matrix:
    """Counts the splits above each node; scikit-learn numbers parents before their children."""
    depths = np.zeros(tree.node_count, np.int64)
    for node in np.flatnonzero(tree.children_left >= 0):
        depths[[tree.children_left[node], tree.children_right[node]]] = depths[node] + 1
    return depths


def _words(goes_left: Matrix) -> list[int]:
    """Gives the set of ids that go left as bits of 32-bit words."""
    bits = np.zeros(-(-len(goes_left) // 32) * 32, bool)
    bits[: len(goes_left)] = goes_left
    words: list[int] = np.packbits(bits, bitorder="little").view("<u4").tolist()
    return words


def _listed(values: Any) -> str:
    return " ".join(str(int(value)) for value in values)


def _lines(fields: dict[str, Any]) -> str:
    return "\n".join(f"{name}={value}" for name, value in fields.items())


def _groups(forest: Ensemble) -> list[Ensemble]:
    """Divides trees so that the tables of all groups take no more than they may: thresholds times words, in each."""
    thresholds = sum(len(tree.splits) for tree in forest.trees)
    words = sum(-(-len(tree.values) // 32) for tree in forest.trees)
    count = min(len(forest.trees), max(1, math.ceil(4 * thresholds * words / _TABLE_BYTES)))
    edges = np.linspace(0, len(forest.trees), count + 1).astype(int)
    return [
        Ensemble(forest.trees[start:stop], forest.outputs, forest.number_columns)
        for start, stop in itertools.pairwise(edges)
    ]
