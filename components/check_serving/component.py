"""The KFP interface of `check_serving`."""

from typing import NamedTuple

from kfp import dsl

from components import images


@dsl.component(base_image=images.PREDICTOR, install_kfp_package=False)
def check_serving(
    model: dsl.Input[dsl.Model],
    predictions: dsl.Input[dsl.Dataset],
    serving: dict,
    metrics: dsl.Output[dsl.Metrics],
    serving_result: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> NamedTuple("Outputs", [("verdict", str), ("reason", str)]):
    """Starts the model server on a model and asks it what clients will: golden rows, hostile requests, one by one.

    Args:
        model: the model that train_model exported.
        predictions: of the model, from predict_batch with all columns kept; the golden rows are taken from them.
        serving: section `serving` of pipeline.yaml.
        metrics: start-up, latency, memory.
        serving_result: directory with `serving.json`: every check, every hostile request and its answer.
        report: self-contained page.

    Returns:
        verdict: `pass` or `fail`. reason: one line for the gate.
    """
    from components.check_serving.checking import check
    from components.settings import Serving
    from components.stage import stage

    with stage("check_serving"):
        result = check(model.path, predictions.path, Serving.model_validate(serving), serving_result.path, report.path)
        for name, value in result.scalars().items():
            metrics.log_metric(name, value)
        return (result.verdict, result.reason)
