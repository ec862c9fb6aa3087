"""k-means: rows belong to the nearest of some centres. scikit-learn finds them; the graph measures distances."""

import time
from typing import Any

import numpy as np
import sklearn
import tensorflow as tf
from sklearn import cluster

from components.errors import DataRejectedError, InputError
from components.models.contract import Epoch, Fit, FittedModel, Kind, Problem, Progress
from components.models.examples import Matrix
from components.models.scaling import Scaling
from components.models.tree_graph import in_steps
from components.settings import MOST_CLUSTERS, KMeansModel

_MOST_AT_ONCE = 100_000
_BATCH_ROWS = 4_096
_MOST_CELLS = 250_000_000
"""Values learned from, of which each takes four bytes; of more, rows at equal distances are."""


class Centres(FittedModel):
    """The centres of clusters, on the features' scale."""

    knows_held_out = True

    def __init__(self, centres: Matrix, scaling: Scaling, category_weight: float, fit: Fit) -> None:
        """Args: centres: float32 [clusters, columns], as `scaling` lays them out."""
        super().__init__(fit, {"scikit-learn": sklearn.__version__, "tensorflow": tf.__version__})
        self._centres = tf.constant(centres)
        self._scaling = scaling
        self._category_weight = category_weight

    def __call__(self, numbers: Any, categories: Any) -> Any:
        """Measures transformed rows; see FittedModel."""
        columns = self._scaling.columns(numbers, categories, self._category_weight)
        clusters, width = self._centres.shape
        return in_steps(self._distances, columns, clusters * width, clusters)

    @property
    def weights(self) -> list[Matrix]:
        """The centres and the scale."""
        return [self._centres.numpy(), *self._scaling.weights, np.array(self._category_weight, np.float32)]

    @property
    def parameters(self) -> int:
        """The centres' coordinates."""
        return int(tf.size(self._centres))

    def _distances(self, columns: Any) -> Any:
        # Not by products: near a centre their difference would leave a few digits only.
        return tf.sqrt(tf.reduce_sum(tf.math.squared_difference(columns[:, None], self._centres), 2))


class KMeans(Kind[KMeansModel]):
    """Centres that are the means of their rows."""

    settings = KMeansModel
    holds_out = False

    def fit(self, settings: KMeansModel, problem: Problem, progress: Progress) -> Centres:
        """Finds centres; rows held out are learned from, too, as nothing here needs them.

        Raises:
            InputError: it is not said how many clusters.
            DataRejectedError: fewer different rows than clusters.
        """
        if settings.clusters is None:
            raise InputError(
                "k_means: it is not known how many clusters; give model.clusters, or let tune_model choose"
            )
        started = time.monotonic()
        rows = np.sort(np.concatenate([problem.learned, problem.held_out]))
        scaling = Scaling.of(problem.packing, problem.examples, rows)
        learned = rows[:: -(-len(rows) * scaling.width // _MOST_CELLS)]
        matrix = scaling.matrix(problem.examples, learned, settings.category_weight)
        distinct = len(np.unique(matrix[: 2 * _MOST_AT_ONCE], axis=0))
        if distinct < settings.clusters:
            raise DataRejectedError(
                f"model.clusters is {settings.clusters}, but the {len(learned):,} rows that are learned from have only "
                f"{distinct} different ones; lower it, or supply more rows"
            )
        shared = {
            "n_clusters": settings.clusters,
            "n_init": settings.starts,
            "random_state": problem.training.seed % 2**32,
        }
        batch = settings.batch_rows or (_BATCH_ROWS if len(learned) > _MOST_AT_ONCE else None)
        if batch:
            found = cluster.MiniBatchKMeans(batch_size=batch, **shared).fit(matrix)
        else:
            found = cluster.KMeans(**shared).fit(matrix)
        sizes = np.bincount(found.labels_, minlength=settings.clusters)
        centres = found.cluster_centers_[np.argsort(-sizes, kind="stable")].astype(np.float32)
        seconds = time.monotonic() - started
        step = Epoch(max(1, int(found.n_iter_)), float(found.inertia_) / len(learned), None, seconds, "iteration")
        progress(step)
        return Centres(centres, scaling, settings.category_weight, Fit([step], step))

    def space(self, settings: KMeansModel, draw: Any, problem: Problem) -> KMeansModel:
        """Draws the number of clusters."""
        most = max(2, min(settings.max_clusters, MOST_CLUSTERS, len(problem.learned) - 1))
        return settings.model_copy(update={"clusters": draw.suggest_int("clusters", 2, most)})
