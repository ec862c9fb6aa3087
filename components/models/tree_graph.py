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
_ADVANTAGE = 7  # how much longer a word takes that is found on its own
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
    def parameters(self) -> int:
        """How many thresholds, or sets of categories, and leaves there are."""
        return sum(len(tree.splits) + len(tree.values) for tree in self.trees)

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


class TreeGraph(tf.Module):  # type: ignore[misc]
    """Rules leaves out: each feature's value allows some leaves, a bit each, and one remains of every tree.

    Its time does not depend on the depth. Source: Lucchese et al.: QuickScorer, SIGIR 2015. Here a vector holds all
    that is known of one feature, since LightGBM has 255 thresholds of it at most.
    """

    def __init__(self, ensemble: Ensemble, full_bytes: int = 32 << 20) -> None:
        """Makes the table: which leaves each interval between thresholds, or kind of category, allows.

        Args:
            ensemble: the trees.
            full_bytes: what the table may take with all trees for each feature.
        """
        super().__init__()
        trees = _by_output(ensemble)
        leaves = _Leaves(trees, ensemble.outputs)
        groups = _groups(trees)
        numbers = [(key, *leaves.by_number(groups[key])) for key in groups if key[0] < ensemble.number_columns]
        categories = [(key, *leaves.by_category(groups[key])) for key in groups if key[0] >= ensemble.number_columns]
        tables = [table for *_, table in (*numbers, *categories)] or [leaves.all[None]]
        starts = _starts(tables)
        self._outputs = ensemble.outputs
        self._values = tf.constant(leaves.values.ravel())
        self._offsets = np.arange(len(leaves.all), dtype=np.int32) * (_LEAVES + 1)
        sparse = _Sparse(tables, starts, leaves.all)
        is_full = len(tables) <= _ADVANTAGE * sparse.width and sum(part.nbytes for part in tables) <= full_bytes
        self._table: _Full | _Sparse = _Full(tables) if is_full else sparse

        self._number_columns = [column for (column, _), *_ in numbers]
        self._missing = np.array([[missing] for (_, missing), *_ in numbers])
        self._thresholds = tf.constant(_padded([thresholds for _, thresholds, _ in numbers]))
        self._number_starts = starts[: len(numbers), None]
        self._missing_starts = self._number_starts + np.array([[len(table) - 1] for *_, table in numbers], np.int32)

        self._category_columns = [column - ensemble.number_columns for (column, _), *_ in categories]
        kinds = [start + kinds for start, (_, kinds, _) in zip(starts[len(numbers) :], categories, strict=False)]
        self._kinds = tf.constant(_joined(kinds, np.int32))
        self._kind_starts = _starts(kinds)[:, None]
        self._others = np.array([[len(some) - 1] for some in kinds], np.int32)

    @property
    def width(self) -> int:
        """How many vectors are intersected for a row."""
        return self._table.width

    def __call__(self, numbers: Any, categories: Any) -> Any:
        """Adds the trees' values up: float32 [rows, outputs]."""
        entries = [*self._number_entries(numbers), *self._category_entries(categories)]
        entries = entries or [tf.zeros([1, tf.shape(numbers)[0]], tf.int32)]
        per_row = self.width * len(self._offsets)
        return in_steps(self._few_rows, tf.transpose(tf.concat(entries, 0)), per_row, self._outputs)

    def _number_entries(self, numbers: Any) -> list[Any]:
        """Gives rows of the table, [features, rows], if numbers are compared."""
        if not self._number_columns:
            return []
        values, is_missing = _known(tf.gather(tf.transpose(numbers), self._number_columns), self._missing)
        below = tf.raw_ops.LowerBound(sorted_inputs=self._thresholds, values=values)
        return [tf.where(is_missing, self._missing_starts, below + self._number_starts)]

    def _category_entries(self, categories: Any) -> list[Any]:
        """Gives rows of the table, [features, rows], if categories are."""
        if not self._category_columns:
            return []
        ids = tf.gather(tf.transpose(categories), self._category_columns)
        ids = tf.where((ids >= 0) & (ids < self._others), ids, self._others)
        return [tf.gather(self._kinds, ids + self._kind_starts)]

    def _few_rows(self, entries: Any) -> Any:
        words = self._table.remaining(tf.transpose(entries))
        # The number of the only bit; 32 in a word that has none.
        leaf = tf.cast(tf.raw_ops.PopulationCount(x=words - 1), tf.int32)
        return _added_up(tf.gather(self._values, leaf + self._offsets), self._outputs)


class _Full(tf.Module):  # type: ignore[misc]
    """Vectors of all trees for each feature: copied fast, and many where features are."""

    def __init__(self, tables: list[Matrix]) -> None:
        """Puts the features' tables one below the other."""
        super().__init__()
        self.width = len(tables)
        self._vectors = tf.constant(np.concatenate(tables).view(np.int32))

    def remaining(self, entries: Any) -> Any:
        """Gives [rows, words] for rows of the tables, [features, rows]."""
        return _intersection(tf.gather(self._vectors, entries))


class _Sparse(tf.Module):  # type: ignore[misc]
    """Words of the trees that know a feature only, each found on its own."""

    def __init__(self, tables: list[Matrix], starts: Matrix, leaves: Matrix) -> None:
        """Takes out the columns that rule a leaf out; a word in which there is none keeps one."""
        super().__init__()
        segments: list[Matrix] = []
        found: list[list[tuple[int, int]]] = [[] for _ in leaves]
        place = 0
        decides = [(table != leaves).any(axis=0) for table in tables]
        decides[0] |= ~np.any(decides, axis=0)
        for feature, (table, start) in enumerate(zip(tables, starts, strict=True)):
            for word in np.flatnonzero(decides[feature]):
                found[word].append((feature, place - start))
                place += len(table)
            segments.append(table[:, decides[feature]].T.ravel())
        self.width = max(map(len, found))
        padded = np.array([some + [some[0]] * (self.width - len(some)) for some in found], np.int32)
        self._features, self._bases = tf.constant(padded[..., 0].T), tf.constant(padded[..., 1].T[..., None])
        self._vectors = tf.constant(np.concatenate(segments).view(np.int32))

    def remaining(self, entries: Any) -> Any:
        """Gives [rows, words] for rows of the tables, [features, rows]."""
        places = tf.gather(entries, self._features) + self._bases
        return tf.transpose(_intersection(tf.gather(self._vectors, places)))


def _intersection(vectors: Any) -> Any:
    """Gives the bits that all have, of [vectors, …]."""
    while vectors.shape[0] > 1:
        half = (vectors.shape[0] + 1) // 2  # of an odd number one is in both halves, which changes nothing
        vectors = tf.bitwise.bitwise_and(vectors[:half], vectors[-half:])
    return vectors[0]


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
        self.all = np.zeros(outputs * width, np.uint32)
        self._trees = trees
        self._places: list[slice] = []
        for number, tree in enumerate(trees):
            start = self._places[-1].stop if number % each else number // each * width
            place = slice(start, start + _words(tree))
            self._places.append(place)
            self.all[place] = _bits(np.arange(len(tree.values)), _words(tree))
            self.values[place, :_LEAVES].flat[: len(tree.values)] = tree.values[_leaves_in_order(tree)]
        self._below = [_leaves_below(tree) for tree in trees]

    def by_number(self, nodes: list[tuple[int, int]]) -> tuple[Matrix, Matrix]:
        """Gives thresholds, sorted, and what is allowed up to each, above all, and where the number is missing."""
        thresholds = np.unique([self._trees[tree].splits[node].threshold for tree, node in nodes])
        table = np.tile(self.all, (len(thresholds) + 2, 1))
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
        table = np.tile(self.all, (len(first), 1))
        for index, (tree, node) in enumerate(nodes):
            place, (left, right) = self._places[tree], self._below[tree][node]
            table[:, place] &= ~np.where(goes_left[first, index, None], right, left)
        return kinds.ravel().astype(np.int32), table


def _known(values: Any, missing: Matrix) -> tuple[Any, Any]:
    """Tells, by what counts as missing in a column, what its values are and which are missing, [columns, rows]."""
    is_nan = tf.math.is_nan(values)
    is_zero = is_nan | (tf.abs(values) <= _ZERO)
    is_missing = (is_nan & (missing == _NAN_MISSING)) | (is_zero & (missing == _ZERO_MISSING))
    return tf.where(is_zero, 0.0, values), is_missing


def in_steps(function: Callable[[Any], Any], rows: Any, per_row: int, outputs: int) -> Any:
    """Calls a function with a few rows at a time, so that what it makes stays in the processor's cache."""
    count, step = tf.shape(rows)[0], max(1, _WORKING_VALUES // per_row)

    def some(start: Any, results: Any) -> tuple[Any, Any]:
        return start + step, results.write(start // step, function(rows[start : start + step]))

    def all_rows() -> Any:
        results = tf.TensorArray(tf.float32, -(-count // step), element_shape=[None, outputs], infer_shape=False)
        return tf.while_loop(lambda start, _: start < count, some, (0, results), parallel_iterations=1)[1].concat()

    return tf.cond(count <= step, lambda: function(rows), all_rows)


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


def _leaves_in_order(tree: Tree) -> list[int]:
    """Gives the leaves from left to right, so that those of a subtree are neighbours."""
    order, pending = [], [0 if tree.splits else ~0]
    while pending:
        node = pending.pop()
        if node < 0:
            order.append(~node)
        else:
            pending += [tree.splits[node].right, tree.splits[node].left]
    return order


def _leaves_below(tree: Tree) -> list[tuple[Matrix, Matrix]]:
    """Gives the bits of the leaves to the left and to the right of each split."""
    position = np.argsort(_leaves_in_order(tree))
    below: list[list[int]] = [[] for _ in tree.splits]
    sides = []
    for node in range(len(tree.splits) - 1, -1, -1):
        split = tree.splits[node]
        left, right = ([position[~child]] if child < 0 else below[child] for child in (split.left, split.right))
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
