"""Times isolation forests: `.venvs/tensorflow/bin/python benchmarks/isolation_forest.py`.

100 trees of 256 rows each, over 6 and over 30 columns: the exported graph and scikit-learn's `score_samples`, by turns,
for 10,000 rows and for one. The best and the median of many are told, as other programs only ever add to a time.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import tensorflow as tf
from sklearn.ensemble import IsolationForest

from components.models.contract import Epoch, Fit
from components.models.isolation_forest import IsolationTrees, as_text

ROWS, LEARNED = 10_000, 20_000


def main() -> None:
    """Prints two lines a width."""
    for width in (6, 30):
        numbers = np.random.default_rng(0).normal(size=(LEARNED, width)).astype("f4")
        forest = IsolationForest(n_estimators=100, max_samples=256, random_state=1).fit(numbers)
        step = Epoch(100, 0.0, None, 0.0, "tree")
        fitted = IsolationTrees(as_text(forest, numbers.mean(axis=0), []), width, Fit([step], step))
        signature = [tf.TensorSpec([None, width], tf.float32), tf.TensorSpec([None, 0], tf.int32)]
        graph = tf.function(fitted.__call__, signature, autograph=False).get_concrete_function()
        for rows, repeats in ((ROWS, 15), (1, 200)):
            asked = numbers[:rows]
            tensors = tf.constant(asked), tf.zeros([rows, 0], tf.int32)
            ours, theirs = _by_turns(partial(graph, *tensors), partial(forest.score_samples, asked), repeats)
            apart = np.abs(graph(*tensors).numpy()[:, 0] + forest.score_samples(asked)).max()
            print(
                f"{width} columns, {rows:,} rows: graph {ours}; scikit-learn {theirs}; largest difference {apart:.1g}"
            )


def _by_turns(one: Callable[[], Any], other: Callable[[], Any], repeats: int) -> tuple[str, str]:
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for function, taken in zip((one, other), times, strict=True):
            started = time.perf_counter()
            function()
            taken.append(time.perf_counter() - started)
    return tuple(f"{1000 * min(taken):.2f} ms (median {1000 * statistics.median(taken):.2f})" for taken in times)  # type: ignore[return-value]


if __name__ == "__main__":
    main()
