"""Ensembles of decision trees as TensorFlow graphs, equal to LightGBM to float32 accuracy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from components.models.examples import Matrix

_ZERO = np.float32(1e-35)  # LightGBM's kZeroThreshold: what is nearer to 0 is 0
_CATEGORICAL, _DEFAULT_LEFT = 1, 2  # bits of LightGBM's decision_type; the next two are what counts as missing
_NOTHING_MISSING, _ZERO_MISSING, _NAN_MISSING = 0, 1, 2
_LEAVES = 32  # bits of a word
_TABLE_BYTES = 32 << 20
_TABLE_ADVANTAGE = 10  # how much longer a step down a tree takes than a word of a vector
_WORKING_VALUES = 1 << 18  # of one step over rows: 1 MiB, which the second-level cache holds


@dataclass(frozen=True)
class Split:
    """An inner node: rows go left or right by the value of one feature."""

    column: int
    """Of the numbers; after these, of the categories."""
    threshold: np.float32
    """Of a number: rows go left up to here."""
    missing: int
    """Of a number: which values go where missing ones do."""
    missing_left: bool
    left: int
    """A node below, or ~leaf."""
    right: int
    categories: Matrix | None = None
    """Of a category: ids that go left, sorted. None: the feature is a number."""


@dataclass(frozen=True)
class Tree:
    """A decision tree; the first node is the root."""

    splits: list[Split]
    values: Matrix
    """float64 [leaves]."""
    output: int = 0
    """Which of the outputs it adds to."""


@dataclass(frozen=True)
class Ensemble:
    """Trees whose values are added up."""

    trees: list[Tree]
    outputs: int
    number_columns: int
    """The columns from here on are categories."""

    @classmethod
    def read(cls, texts: Sequence[str], number_columns: int) -> "Ensemble":
        """Reads models in LightGBM's text form, version 4: one, or one an output; means become sums."""
        models = [_read(text) for text in texts]
        if len(models) == 1:
            return cls(*models[0], number_columns)
        trees = [replace(tree, output=output) for output, (some, _) in enumerate(models) for tree in some]
        return cls(trees, len(models), number_columns)

    @property
    def weights(self) -> list[Matrix]:
        """All that decides its answers, as arrays."""
        splits = [split for tree in self.trees for split in tree.splits]
        return [
            np.array([[s.column, s.left, s.right, s.missing, s.missing_left] for s in splits], np.int32),
            np.array([s.threshold for s in splits], np.float32),
            _joined([s.categories for s in splits if s.categories is not None], np.int32),
            _joined([tree.values for tree in self.trees], np.float64),
            np.array([[len(tree.splits), tree.output] for tree in self.trees], np.int32),
        ]


def _read(text: str) -> tuple[list[Tree], int]:
    header, *blocks = text.partition("\nend of trees")[0].split("\nTree=")
    lines = _fields(header)
    outputs = int(lines["num_tree_per_iteration"])
    scale = outputs / len(blocks) if "average_output" in header.splitlines() else 1.0
    return [_tree(_fields(block), index % outputs, scale) for index, block in enumerate(blocks)], outputs


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _tree(fields: dict[str, str], output: int, scale: float) -> Tree:
    def column(name: str, kind: type[Any]) -> list[Any]:
        return [kind(value) for value in fields.get(name, "").split()]

    values = np.array(column("leaf_value", float)) * scale
    if int(fields["num_leaves"]) == 1:
        return Tree([], values, output)
    starts, words = column("cat_boundaries", int), column("cat_threshold", int)
    nodes = zip(
        column("split_feature", int),
        column("threshold", float),
        column("decision_type", int),
        column("left_child", int),
        column("right_child", int),
        strict=True,
    )
    splits = []
    for feature, threshold, decision, left, right in nodes:
        categories = None
        if decision & _CATEGORICAL:
            start, stop = starts[int(threshold)], starts[int(threshold) + 1]
            categories = _set_bits(np.array(words[start:stop], np.uint32))
        missing = _NOTHING_MISSING if decision & _CATEGORICAL else decision >> 2 & 3
        splits.append(
            Split(feature, _down(threshold), missing, bool(decision & _DEFAULT_LEFT), left, right, categories)
        )
    return Tree(splits, values, output)


def _down(threshold: float) -> np.float32:
    """Gives the largest float32 that is not above: a float32 is not above it either exactly if it is not above both."""
    with np.errstate(over="ignore"):
        rounded = np.float32(threshold)
    return rounded if float(rounded) <= threshold else np.nextafter(rounded, np.float32(-np.inf))


def _set_bits(words: Matrix) -> Matrix:
    return np.flatnonzero(np.unpackbits(words.astype("<u4").view(np.uint8), bitorder="little")).astype(np.int32)


def _joined(arrays: Sequence[Matrix], kind: type[Any]) -> Matrix:
    return np.concatenate([np.zeros(0, kind), *arrays]).astype(kind)


def graph_of(ensemble: Ensemble) -> "Bitvectors":
    """Lays an ensemble out."""
    return Bitvectors(ensemble)


class Bitvectors(tf.Module):  # type: ignore[misc]
    """Rules leaves out: each feature's value allows some leaves, a bit each, and one remains of every tree.

    Its time does not depend on the depth, but on the number of features. Source: Lucchese et al.: QuickScorer, SIGIR
    2015. Here a vector holds all that is known of one feature, since LightGBM has 255 thresholds of it at most.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        """Makes the table: what each interval between thresholds, or set of categories, allows in all trees."""
        super().__init__()
        trees = _by_output(ensemble)
        leaves = _Leaves(trees, ensemble.outputs)
        numbers: list[tuple[int, int, Matrix, Matrix]] = []
        categories: list[tuple[int, Matrix, Matrix]] = []
        for (column, missing), nodes in _groups(trees).items():
            if column < ensemble.number_columns:
                numbers.append((column, missing, *leaves.by_number(nodes)))
            else:
                categories.append((column - ensemble.number_columns, *leaves.by_category(nodes)))
        tables = [table for *_, table in numbers] + [table for *_, table in categories]
        starts = _starts(tables)
        self._table = tf.constant(np.concatenate(tables).view(np.int32))
        self._values = tf.constant(leaves.values.ravel())
        self._offsets = np.arange(len(leaves.values), dtype=np.int32) * (_LEAVES + 1)
        self._outputs = ensemble.outputs

        self._number_columns = [column for column, *_ in numbers]
        self._missing = np.array([[missing] for _, missing, *_ in numbers])
        self._thresholds = tf.constant(_padded([thresholds for _, _, thresholds, _ in numbers]))
        self._number_starts = starts[: len(numbers), None]
        self._missing_starts = self._number_starts + np.array([[len(table) - 1] for *_, table in numbers], np.int32)

        self._category_columns = [column for column, *_ in categories]
        kinds = [start + kinds for start, (_, kinds, _) in zip(starts[len(numbers) :], categories, strict=True)]
        self._kinds = tf.constant(_joined(kinds, np.int32))
        self._kind_starts = _starts(kinds)[:, None]
        self._others = np.array([[len(some) - 1] for some in kinds], np.int32)

    @property
    def table_bytes(self) -> int:
        """What the vectors take."""
        return 4 * int(self._table.shape.num_elements())

    def __call__(self, numbers: Any, categories: Any) -> Any:
        """Adds the trees' values up: float32 [rows, outputs]."""
        entries = tf.concat([self._number_entries(numbers), self._category_entries(categories)], 0)
        per_row = entries.shape[0] * self._table.shape[1]
        return _in_steps(self._few_rows, [tf.transpose(entries)], per_row, self._outputs)

    def _number_entries(self, numbers: Any) -> Any:
        """Gives rows of the table, [features, rows]."""
        if not self._number_columns:
            return tf.zeros([0, tf.shape(numbers)[0]], tf.int32)
        values, is_missing = _known(tf.gather(tf.transpose(numbers), self._number_columns), self._missing)
        below = tf.raw_ops.LowerBound(sorted_inputs=self._thresholds, values=values)
        return tf.where(is_missing, self._missing_starts, below + self._number_starts)

    def _category_entries(self, categories: Any) -> Any:
        """Gives rows of the table, [features, rows]."""
        if not self._category_columns:
            return tf.zeros([0, tf.shape(categories)[0]], tf.int32)
        ids = tf.gather(tf.transpose(categories), self._category_columns)
        ids = tf.where((ids >= 0) & (ids < self._others), ids, self._others)
        return tf.gather(self._kinds, ids + self._kind_starts)

    def _few_rows(self, entries: Any) -> Any:
        vectors = tf.gather(self._table, tf.transpose(entries))
        while vectors.shape[0] > 1:
            half = (vectors.shape[0] + 1) // 2  # of an odd number one is in both halves, which changes nothing
            vectors = tf.bitwise.bitwise_and(vectors[:half], vectors[-half:])
        # The number of the only bit; 32 in a word that has none.
        leaf = tf.cast(tf.raw_ops.PopulationCount(x=vectors[0] - 1), tf.int32)
        return _added_up(tf.gather(self._values, leaf + self._offsets), self._outputs)


class _Leaves:
    """Leaves as bits: a tree's are in words of its own, an output's words side by side and as many for each."""

    def __init__(self, trees: list[Tree], outputs: int) -> None:
        """Numbers the words."""
        each = len(trees) // outputs
        # A multiple of 16 words is a multiple of 64 bytes, from where TensorFlow takes part of a tensor without a copy.
        width = (
            -(-max(sum(map(_words, trees[start : start + each])) for start in range(0, len(trees), each)) // 16) * 16
        )
        self.values = np.zeros((outputs * width, _LEAVES + 1), np.float32)
        self._all = np.zeros(outputs * width, np.uint32)
        self._trees = trees
        self._places: list[slice] = []
        for number, tree in enumerate(trees):
            start = self._places[-1].stop if number % each else number // each * width
            place = slice(start, start + _words(tree))
            self._places.append(place)
            self._all[place] = _bits(np.arange(len(tree.values)), _words(tree))
            self.values[place, :_LEAVES].flat[: len(tree.values)] = tree.values
        self._below = [_leaves_below(tree) for tree in trees]

    def by_number(self, nodes: list[tuple[int, int]]) -> tuple[Matrix, Matrix]:
        """Gives thresholds, sorted, and what is allowed up to each, above all, and where the number is missing."""
        thresholds = np.unique([self._trees[tree].splits[node].threshold for tree, node in nodes])
        table = np.tile(self._all, (len(thresholds) + 2, 1))
        for tree, node in nodes:
            split, place, (left, right) = self._trees[tree].splits[node], self._places[tree], self._below[tree][node]
            after = np.searchsorted(thresholds, split.threshold) + 1
            table[:after, place] &= ~right
            table[after:-1, place] &= ~left
            table[-1, place] &= ~(right if split.missing_left else left)
        return thresholds, table

    def by_category(self, nodes: list[tuple[int, int]]) -> tuple[Matrix, Matrix]:
        """Gives which kind each category is, the last is all others, and what is allowed for each kind."""
        goes_left = np.zeros(
            (1 + max(_largest(self._trees[tree].splits[node]) for tree, node in nodes) + 1, len(nodes)), bool
        )
        for index, (tree, node) in enumerate(nodes):
            goes_left[self._trees[tree].splits[node].categories, index] = True
        _, first, kinds = np.unique(np.packbits(goes_left, axis=1), axis=0, return_index=True, return_inverse=True)
        table = np.tile(self._all, (len(first), 1))
        for index, (tree, node) in enumerate(nodes):
            place, (left, right) = self._places[tree], self._below[tree][node]
            table[:, place] &= ~np.where(goes_left[first, index, None], right, left)
        return kinds.ravel().astype(np.int32), table


def _known(values: Any, missing: Matrix) -> tuple[Any, Any]:
    """Tells, by what counts as missing in a column, what its values are and which are missing, [rows, columns]."""
    is_nan = tf.math.is_nan(values)
    values = tf.where(is_nan, 0.0, values)
    is_zero = (tf.abs(values) <= _ZERO) & (missing == _ZERO_MISSING)
    return values, (is_nan & (missing == _NAN_MISSING)) | is_zero


def _in_steps(function: Callable[..., Any], arrays: list[Any], per_row: int, outputs: int) -> Any:
    """Calls a function with a few rows at a time, so that what it makes stays in the processor's cache."""
    rows, step = tf.shape(arrays[0])[0], max(1, _WORKING_VALUES // per_row)

    def some(start: Any, results: Any) -> tuple[Any, Any]:
        part = function(*(array[start : start + step] for array in arrays))
        return start + step, results.write(start // step, part)

    def all_rows() -> Any:
        results = tf.TensorArray(tf.float32, -(-rows // step), element_shape=[None, outputs], infer_shape=False)
        return tf.while_loop(lambda start, _: start < rows, some, (0, results), parallel_iterations=1)[1].concat()

    return tf.cond(rows <= step, lambda: function(*arrays), all_rows)


def _added_up(values: Any, outputs: int) -> Any:
    """Sums [rows, outputs · n] to [rows, outputs]."""
    return tf.reduce_sum(tf.reshape(values, [-1, outputs, values.shape[1] // outputs]), 2)


def _by_output(ensemble: Ensemble) -> list[Tree]:
    """Gives the trees of the first output, then as many of the second, and so on."""
    by_output = [[tree for tree in ensemble.trees if tree.output == output] for output in range(ensemble.outputs)]
    most = max(map(len, by_output))
    return [tree for some in by_output for tree in (*some, *[Tree([], np.zeros(1))] * (most - len(some)))]


def _groups(trees: list[Tree]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Gives trees and splits by the feature that is compared, and by what counts as missing there."""
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for number, tree in enumerate(trees):
        for node, split in enumerate(tree.splits):
            groups.setdefault((split.column, split.missing), []).append((number, node))
    return groups


def _depth(tree: Tree) -> int:
    depths = [1] * len(tree.splits)
    for node, split in enumerate(tree.splits):  # a split comes before those below it
        for child in (split.left, split.right):
            if child >= 0:
                depths[child] = depths[node] + 1
    return max(depths, default=0)


def _leaves_below(tree: Tree) -> list[tuple[Matrix, Matrix]]:
    """Gives the bits of the leaves to the left and to the right of each split."""
    below: list[list[int]] = [[] for _ in tree.splits]
    sides = []
    for node in range(len(tree.splits) - 1, -1, -1):
        split = tree.splits[node]
        left, right = ([~child] if child < 0 else below[child] for child in (split.left, split.right))
        below[node] = left + right
        sides.append((_bits(left, _words(tree)), _bits(right, _words(tree))))
    return sides[::-1]


def _words(tree: Tree) -> int:
    return -(-len(tree.values) // _LEAVES)


def _bits(numbers: Any, words: int) -> Matrix:
    """Gives words, uint32, in which the bits of these numbers are set."""
    bits = np.zeros(words * _LEAVES, bool)
    bits[numbers] = True
    return np.packbits(bits, bitorder="little").view("<u4").astype(np.uint32)


def _largest(split: Split) -> int:
    assert split.categories is not None
    return int(split.categories[-1])


def _starts(parts: Sequence[Matrix]) -> Matrix:
    return np.cumsum([0, *map(len, parts)])[:-1].astype(np.int32)


def _padded(rows: list[Matrix]) -> Matrix:
    """Puts rows of different lengths into one matrix, with infinity behind them."""
    padded = np.full((len(rows), max(map(len, rows), default=0)), np.inf, np.float32)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded
