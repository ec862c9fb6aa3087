"""Contributions to the predictions of tree ensembles, from their own structure: exact, and no question is asked.

TreeSHAP (Lundberg et al., From local explanations to global understanding with explainable AI for trees, Nature
Machine Intelligence 2020), as LightGBM computes it, gives each transformed feature's share of a margin. Shares of the
features that are made of one raw column are added up. A feature that is made of several, such as a cross, counts for
each of them in equal parts, which is how Shapley values divide what players only achieve together.

A share of the margin becomes one of the prediction by the mean slope of the link function on the way from the
reference's margin to the row's, so that the sum is still the difference: the rescale rule by which Shapley values are
passed through a link (Chen, Lundberg, Lee, Explaining a series of models by propagating Shapley values, Nature
Communications 2022); with several classes, whose margins move together, the mean gradient on the straight way
(Aumann-Shapley). The reference is what the model gives at its mean margin over the rows that the trees learned from.
"""

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
"""The ensemble in LightGBM's text format, beside a model's spec.json."""
_LINK_ROWS = 5_000
_TOLERANCE = 1e-3
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
        import lightgbm
        import tensorflow as tf

        from components.models.packing import Packing, column_slices
        from components.transform_graph import TransformGraph

        self._graph = TransformGraph(transform_graph)
        self._packing = Packing(self._graph.spec)
        self._tensor = tf.constant
        try:
            self._booster: Any = lightgbm.Booster(model_file=str(model / TREES))
        except lightgbm.basic.LightGBMError as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"'{model / TREES}' is damaged: {reason}; export the model again") from error
        self.columns_of: list[list[str]] = []
        for features in (self._packing.numbers, self._packing.categories):
            for feature, columns in column_slices(features):
                self.columns_of += [feature.columns] * (columns.stop - columns.start)
        if self._booster.num_feature() != len(self.columns_of):
            raise InputError(
                f"the trees of '{model}' see {self._booster.num_feature()} features, transform graph "
                f"'{transform_graph}' gives {len(self.columns_of)}; give that of the same run"
            )

    def features(self, rows: Arrays) -> Array:
        """Transforms raw rows, float64 [rows, features]."""
        raw = {i.name: self._tensor(rows[i.name], i.dtype) for i in self._graph.spec.inputs}
        packed = self._packing.pack(self._graph(raw))
        matrix: Array = np.concatenate([part.numpy().astype(np.float64) for part in packed], axis=1)
        return matrix

    def margins(self, features: Array) -> Array:
        """Gives the sums over the trees, float64 [rows, classes or 1]."""
        margins: Array = np.asarray(self._booster.predict(features, raw_score=True))
        return margins.reshape(len(features), -1)

    def shares(self, features: Array) -> tuple[Array, Array]:
        """Gives features' shares of the margins, [rows, classes or 1, features], and mean margins, [classes or 1]."""
        flat = np.asarray(self._booster.predict(features, pred_contrib=True))
        shares = flat.reshape(len(features), -1, features.shape[1] + 1)
        return shares[:, :, :-1], shares[0, :, -1]


def can_explain(model: Path, transform_graph: str) -> bool:
    """Tells whether a model is an ensemble of trees whose features are known."""
    if not (model / TREES).is_file():
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
    slope, offset = _link(
        ensemble.margins(ensemble.features(taken(material.judged, some))), material.scores[some], spec.label.kind, model
    )
    rows = material.explained_rows
    names = list(rows)
    by_feature, means = ensemble.shares(ensemble.features(rows))
    by_column = slope * by_feature @ _weights(ensemble.columns_of, names)
    start = slope * means + offset
    scores = material.scores[material.explained]
    classes = scores.argmax(1)
    if spec.label.kind == "multiclass":
        shares, references = _through_softmax(by_column, start, classes)
    else:
        shares, references = _through_link(by_column[:, 0], float(start[0]), spec.label.kind)
    return Contributions(
        method="tree_shap",
        features=names,
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


def _link(margins: Array, scores: Array, kind: str, model: Path) -> tuple[float, float]:
    """Finds slope and offset of the margin inside the link: the label's scale, or a calibration.

    Raises:
        InputError: larger margins do not mean larger predictions.
        LinkError: the relation is not linear.
    """
    if kind == "multiclass":
        margins = (margins - margins.mean(1, keepdims=True)).reshape(-1)
        logs = np.log(np.maximum(scores, np.finfo(np.float32).tiny))
        outcomes = (logs - logs.mean(1, keepdims=True)).reshape(-1)
        usable = np.repeat(scores.min(1) > 1e-6, scores.shape[1])
    else:
        outcomes = scipy.special.logit(scores[:, 0]) if kind == "binary" else scores[:, 0]
        margins = margins[:, 0]
        usable = (scores[:, 0] > 1e-5) & (scores[:, 0] < 1 - 1e-5) if kind == "binary" else np.ones(len(margins), bool)
    margins, outcomes = margins[usable], outcomes[usable]
    if not len(margins) or np.ptp(margins) < 1e-9:
        return 1.0, float(np.mean(outcomes - margins)) if len(margins) and kind != "multiclass" else 0.0
    slope, offset = np.polyfit(margins, outcomes, 1)
    offset = 0.0 if kind == "multiclass" else offset
    spread = max(float(np.std(outcomes)), 1e-9)
    if np.abs(slope * margins + offset - outcomes).max() <= _TOLERANCE * max(
        spread, 1.0 if kind != "regression" else 0
    ):
        return float(slope), float(offset)
    falling = np.diff(outcomes[np.argsort(margins, kind="stable")])
    if falling.min() < -_TOLERANCE * spread:
        raise InputError(
            f"'{model / TREES}' does not give the predictions of the model beside it; export the model again"
        )
    raise LinkError("its probabilities are calibrated by a curve")


def _through_link(shares: Array, start: float, kind: str) -> tuple[Array, Array]:
    """Turns shares of the margin, [rows, columns], into shares of the prediction; gives the references, too."""
    if kind == "regression":
        return shares, np.full(len(shares), start)
    way = shares.sum(1)
    reference = scipy.special.expit(start)
    near = np.abs(way) < 1e-6
    slopes = np.where(
        near,
        reference * (1 - reference),
        (scipy.special.expit(start + way) - reference) / np.where(near, 1, way),
    )
    return shares * slopes[:, None], np.full(len(shares), reference)


def _through_softmax(shares: Array, start: Array, classes: Array) -> tuple[Array, Array]:
    """The same for the probability of each row's class; shares are [rows, classes, columns], start is [classes]."""
    ways = shares.sum(2)
    line = np.arange(len(classes))
    nodes, weights = np.polynomial.legendre.leggauss(_STEPS)
    gradients = np.zeros_like(ways)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        probabilities = scipy.special.softmax(start + node * ways, axis=1)
        own = probabilities[line, classes]
        gradients -= weight * own[:, None] * probabilities
        gradients[line, classes] += weight * own
    result = np.einsum("rk,rkc->rc", gradients, shares)
    references = scipy.special.softmax(start)[classes]
    # What the quadrature leaves over, where margins are far apart.
    difference = scipy.special.softmax(start + ways, axis=1)[line, classes] - references
    sizes = np.abs(result).sum(1)
    left = difference - result.sum(1)
    result += np.abs(result) * np.divide(left, sizes, out=np.zeros_like(left), where=sizes > 0)[:, None]
    return result, references
