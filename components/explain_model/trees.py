"""Contributions to the predictions of tree ensembles, from their own structure: exact, and no question is asked.

TreeSHAP (Lundberg et al., From local explanations to global understanding with explainable AI for trees, Nature
Machine Intelligence 2020), as LightGBM computes it, gives each transformed feature's share of a margin. Shares of the
features that are made of one raw column are added up. A feature that is made of several, such as a cross, counts for
each of them in equal parts, which is how Shapley values divide what players only achieve together.

The margin is the sum over the trees, or their mean in a forest; of an isolation forest, the mean path length, relative
to the usual one. A share of it becomes one of the prediction by the mean
slope of the link function on the way from the reference's margin to the row's, so that the sum is still the difference:
the rescale rule by which Shapley values are passed through a link (Chen, Lundberg, Lee, Explaining a series of models
by propagating Shapley values, Nature Communications 2022). Of several classes, whose margins move together, it is the
mean gradient on the straight way (Aumann-Shapley). The reference is what the model gives at its mean margin over the
rows that the trees learned from.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special

from components.errors import InputError
from components.explain_model.contributions import Contributions, of_classes
from components.explain_model.material import Material, taken
from components.model_spec import ModelSpec
from components.rows import Arrays
from components.shapley import Array

TREES = "trees.txt"
"""The ensemble in LightGBM's text format, beside a model's spec.json; where each class has its own: trees-0.txt, …"""
_AVERAGE = "average_output"
"""In the head of a forest, whose trees are averaged."""
_LINK_ROWS = 5_000
_TOLERANCE = 1e-4
_SURE = 1e-7
"""Shares of classes are kept so far from 0 and 1, as in the exported forest."""
_NEAR = 1e-6
_STEPS = 64


class LinkError(Exception):
    """Predictions are another function of the margin than is known here; the text says which."""


class Ensemble:
    """The trees of a model, and the features that they see."""

    def __init__(self, model: Path, transform_graph: Path) -> None:
        """Loads them.

        Raises:
            InputError: no trees, a damaged file, or a transform graph of other features.
        """
        # Both cost seconds to import, which other models' explanations don't need.
        import tensorflow as tf

        from components.models.boosting_library import lightgbm_library
        from components.models.packing import Packing, column_slices
        from components.transform_graph import TransformGraph

        lightgbm = lightgbm_library()
        self._graph = TransformGraph(transform_graph)
        self._packing = Packing(self._graph.spec)
        self._tensor = tf.constant
        self._boosters: list[Any] = []
        self._scale = 1.0
        for path in tree_files(model):
            try:
                self._boosters.append(lightgbm.Booster(model_file=str(path)))
                if _AVERAGE in path.read_text(encoding="utf-8").partition("\n\n")[0]:
                    # LightGBM gives sums all the same, of margins and of shares.
                    self._scale = 1 / self._boosters[-1].current_iteration()
            except lightgbm.basic.LightGBMError as error:
                reason = str(error).splitlines()[0]
                raise InputError(f"'{path}' is damaged: {reason}; export the model again") from error
        self.columns_of: list[list[str]] = []
        for features in (self._packing.numbers, self._packing.categories):
            for feature, columns in column_slices(features):
                self.columns_of += [feature.columns] * (columns.stop - columns.start)
        if self._boosters[0].num_feature() != len(self.columns_of):
            raise InputError(
                f"the trees of '{model}' see {self._boosters[0].num_feature()} features, transform graph "
                f"'{transform_graph}' gives {len(self.columns_of)}; give that of the same run"
            )

    def features(self, rows: Arrays) -> Array:
        """Transforms raw rows, float64 [rows, features]."""
        raw = {i.name: self._tensor(rows[i.name], i.dtype) for i in self._graph.spec.inputs}
        packed = self._packing.pack(self._graph(raw))
        matrix: Array = np.concatenate([part.numpy().astype(np.float64) for part in packed], axis=1)
        return matrix

    def margins(self, features: Array) -> Array:
        """Gives what the trees say together, float64 [rows, outputs]."""
        parts = [np.asarray(booster.predict(features, raw_score=True)) for booster in self._boosters]
        return self._scale * np.concatenate([part.reshape(len(features), -1) for part in parts], axis=1)

    def shares(self, features: Array) -> tuple[Array, Array]:
        """Gives the features' shares of the margins, [rows, outputs, features], and the mean margins, [outputs]."""
        parts = [np.asarray(booster.predict(features, pred_contrib=True)) for booster in self._boosters]
        width = features.shape[1] + 1
        shares = self._scale * np.concatenate([part.reshape(len(features), -1, width) for part in parts], axis=1)
        return shares[:, :, :-1], shares[0, :, -1]


def tree_files(model: Path) -> list[Path]:
    """Lists the files that hold a model's trees, in the order of its outputs; none: it has no trees."""
    if (model / TREES).is_file():
        return [model / TREES]
    return sorted(model.glob("trees-*.txt"), key=lambda path: (len(path.name), path.name))


def can_explain(model: Path, transform_graph: str) -> bool:
    """Tells whether a model is an ensemble of trees whose features are known."""
    if not tree_files(model):
        return False
    if not transform_graph:
        print("explain_model: no transform_graph is given, so the trees are explained as any other model", flush=True)
        return False
    from components.features import read_features

    unknown = [feature.name for feature in read_features(Path(transform_graph)).features if not feature.columns]
    if unknown:
        print(
            f"explain_model: it is not known which columns feature '{unknown[0]}' is made of, so the trees are "
            "explained as any other model",
            flush=True,
        )
    return not unknown


def shap_values(model: Path, transform_graph: Path, material: Material, spec: ModelSpec) -> Contributions:
    """Gives the contributions to the predictions of the rows to explain.

    Raises:
        InputError: the trees are not the model's.
        LinkError: predictions are no known function of the margin.
    """
    ensemble = Ensemble(model, transform_graph)
    some = np.union1d(
        np.arange(0, len(material.scores), max(1, len(material.scores) // _LINK_ROWS)), material.explained
    )
    margins = ensemble.margins(ensemble.features(taken(material.judged, some)))
    link = find_link(margins, material.scores[some], spec.label.kind, model)
    rows = material.explained_rows
    by_feature, start = ensemble.shares(ensemble.features(rows))
    by_column = by_feature @ _weights(ensemble.columns_of, list(rows))
    scores = material.scores[material.explained]
    classes = material.chosen[material.explained]
    shares, references = link.through(by_column, start, classes)
    return Contributions(
        method="tree_shap",
        features=list(rows),
        shares=shares,
        values=of_classes(scores, classes),
        references=references,
        compared_rows=0,
    )


def _weights(columns_of: list[list[str]], names: list[str]) -> Array:
    """Tells which part of a feature belongs to which raw column, [features, columns]."""
    weights = np.zeros((len(columns_of), len(names)))
    for feature, columns in enumerate(columns_of):
        for column in columns:
            weights[feature, names.index(column)] += 1 / len(columns)
    return weights


@dataclass(frozen=True)
class Link:
    """From margins to predictions."""

    kind: str
    """Of the label."""
    of_shares: bool = False
    """The margins are shares of the classes, as a forest gives them, not logits."""
    slope: float = 1.0
    """Of the logit in the calibrated logit, or of the value in the label's unit; 1 for an isolation forest."""
    offset: float = 0.0

    def logits(self, margins: Array) -> Array:
        """Gives calibrated logits, or values, [rows, outputs]."""
        if self.of_shares:
            shares = np.clip(margins, _SURE, 1 - _SURE)
            margins = np.log(shares) if self.kind == "multiclass" else scipy.special.logit(shares)
        return self.slope * margins + self.offset

    def __call__(self, margins: Array) -> Array:
        """Predicts, [rows, outputs]."""
        if self.kind == "regression":
            return self.logits(margins)
        if self.kind == "anomaly_detection":
            return np.asarray(2.0 ** -self.logits(margins))
        if self.kind == "binary":
            return np.asarray(scipy.special.expit(self.logits(margins)))
        return np.asarray(scipy.special.softmax(self.logits(margins), axis=1))

    def through(self, shares: Array, start: Array, classes: Array) -> tuple[Array, Array]:
        """Turns shares of margins into shares of predictions.

        Args:
            shares: [rows, outputs, columns].
            start: the margins that shares start from, [outputs].
            classes: of each row, the number of the class that is explained; one output has only number 0.

        Returns:
            [rows, columns], and the references, [rows].
        """
        ways = shares.sum(2)
        line = np.arange(len(classes))
        references = self(start[None])[0][classes]
        difference = self(start + ways)[line, classes] - references
        if len(start) == 1:
            near = np.abs(ways[:, 0]) < _NEAR
            flat = (self(start[None] + _NEAR) - self(start[None] - _NEAR))[0, 0] / (2 * _NEAR)
            slopes = np.where(near, flat, difference / np.where(near, 1, ways[:, 0]))
            return shares[:, 0] * slopes[:, None], references
        result = np.einsum("rk,rkc->rc", self._gradients(start, ways, classes), shares)
        # What the quadrature leaves over, where margins are far apart, goes to all by their size.
        sizes, left = np.abs(result).sum(1), difference - result.sum(1)
        return result + np.abs(result) * _ratio(left, sizes)[:, None], references

    def _gradients(self, start: Array, ways: Array, classes: Array) -> Array:
        """Gives the mean gradient of each row's probability on the straight way to its margins, [rows, classes]."""
        line = np.arange(len(classes))
        nodes, weights = np.polynomial.legendre.leggauss(_STEPS)
        gradients = np.zeros_like(ways)
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            margins = start + node * ways
            probabilities = self(margins)
            own = weight * self.slope * probabilities[line, classes]
            steps = -own[:, None] * probabilities
            steps[line, classes] += own
            gradients += steps / np.clip(margins, _SURE, 1 - _SURE) if self.of_shares else steps
        return gradients


def find_link(margins: Array, scores: Array, kind: str, model: Path) -> Link:
    """Finds how a model's predictions come from its margins: slope and offset are the label's scale or a calibration.

    Args:
        margins: float64 [rows, outputs].
        scores: what the model predicts, [rows, outputs].
        kind: of the label.
        model: its directory, for the message.

    Raises:
        InputError: larger margins do not mean larger predictions.
        LinkError: the relation is none of these.
    """
    if margins.shape == scores.shape:
        for of_shares in (False, True) if kind in ("binary", "multiclass") else (False,):
            link = _fitted(Link(kind, of_shares), margins, scores)
            spread = np.ptp(scores) if kind == "regression" else 1
            if np.abs(link(margins) - scores).max() <= _TOLERANCE * max(spread, 1e-6 * np.abs(scores).max()):
                return link
        rising = scores[np.argsort(margins[:, 0], kind="stable"), 0]
        if kind == "binary" and np.diff(rising).min(initial=0) > -_TOLERANCE:
            raise LinkError("its probabilities are calibrated by a curve")
    raise InputError(f"'{tree_files(model)[0]}' does not give the predictions of the model beside it; export it again")


def _fitted(link: Link, margins: Array, scores: Array) -> Link:
    """Fits slope and offset by least squares, where probabilities are not next to 0 or 1."""
    before = link.logits(margins)
    if link.kind == "multiclass":
        usable = scores.min(1) > _SURE
        before, after = (x[usable] - x[usable].mean(1, keepdims=True) for x in (before, np.log(scores + 1e-30)))
    else:
        usable = np.ones(len(scores), bool)
        after = scores
        if link.kind == "anomaly_detection":
            after = -np.log2(np.maximum(scores, np.finfo(np.float32).tiny))
        if link.kind == "binary":
            usable = np.abs(scores[:, 0] - 0.5) < 0.5 - 1e-5
            after = scipy.special.logit(np.clip(scores, _SURE, 1 - _SURE))
        before, after = before[usable], after[usable]
    if not before.size or np.ptp(before) < 1e-9:
        offset = 0.0 if link.kind == "multiclass" or not before.size else float((after - before).mean())
        return replace(link, offset=offset)
    slope, offset = np.polyfit(before.reshape(-1), after.reshape(-1), 1)
    return replace(link, slope=float(slope), offset=0.0 if link.kind == "multiclass" else float(offset))


def _ratio(one: Array, other: Array) -> Array:
    """Divides, with 0 where there is nothing to divide by."""
    return np.divide(one, other, out=np.zeros_like(one), where=other > 0)
