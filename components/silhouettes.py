"""How well rows fit into their clusters."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MOST_ROWS = 3_000
"""That are compared with each other: time and memory grow with their square."""


def silhouettes(space: Array, clusters: Array) -> Array:
    """Gives each row's silhouette: -1, nearer to another cluster, to 1, far from all others.

    Source: Rousseeuw, Silhouettes: a graphical aid to the interpretation and validation of cluster analysis, 1987.

    Args:
        space: float [rows, columns], on one scale.
        clusters: [rows].

    Returns:
        float64 [rows]; 0 everywhere with one cluster, or one a row, and for a row that is alone in its cluster.
    """
    from sklearn.metrics import silhouette_samples

    if not 1 < len(np.unique(clusters)) < len(clusters):
        return np.zeros(len(clusters))
    return np.asarray(silhouette_samples(space, clusters), np.float64)


def drawn_rows(rows: int, seed: int) -> Array:
    """Draws at most MOST_ROWS row numbers, sorted."""
    if rows <= MOST_ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, MOST_ROWS, replace=False))
