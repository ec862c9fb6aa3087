"""The trivial baseline: what a model knows that has seen only the labels."""

from dataclasses import replace

import numpy as np

from components.evaluate_model.metrics import Values, measure
from components.predictions import Array, Predictions


def measure_baseline(baseline: Predictions, train_labels: Array) -> Values:
    """Computes the metrics of the same prediction for every row.

    Classes: the train split's shares. Regression: the constant that is best for the metric: the mean of the
    train split (rmse, r2), its median (mae, median_absolute_error) or its quantile (quantile_loss).

    Args:
        baseline: constant predictions, the shares or the mean.
        train_labels: float64, none missing.
    """
    values = measure(baseline)
    if baseline.task.type != "regression":
        return values

    def constant(value: float) -> Values:
        return measure(replace(baseline, scores=np.full(len(baseline), value)))

    median = constant(float(np.median(train_labels)))
    quantile = constant(float(np.quantile(train_labels, baseline.quantile)))
    return {
        **values,
        "mae": median["mae"],
        "median_absolute_error": median["median_absolute_error"],
        "quantile_loss": quantile["quantile_loss"],
    }
