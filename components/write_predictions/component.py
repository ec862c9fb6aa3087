"""The KFP interface of `write_predictions`."""

from typing import NamedTuple

from kfp import dsl

from components import images


@dsl.component(base_image=images.TENSORFLOW, install_kfp_package=False)
def write_predictions(
    predictions: dsl.Input[dsl.Dataset],
    name: str,
    task: dict,
    batch: dict,
    evaluation: dict,
    model_uri: str,
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    challengers: dict = {},
    run_name: str = "",
) -> NamedTuple("Outputs", [("verdict", str), ("reason", str), ("uri", str)]):
    """Judges the predictions of a span and writes them to their place, unless they fail.

    Args:
        predictions: split `batch`, from predict_batch.
        name: of the project and its model.
        task: section `task` of pipeline.yaml.
        batch: section `batch` of pipeline.yaml, with the target as an absolute path or URI.
        evaluation: section `evaluation` of pipeline.yaml: its slices are the report's segments.
        model_uri: the published model that predicted.
        metrics: rows, rejected rows, distance from the span before.
        report: self-contained page.
        challengers: URIs of the models beside it, by name.
        run_name: of this run, for the record beside the predictions.

    Returns:
        verdict: `pass` or `fail`; then nothing was written. reason: one line. uri: where the predictions are.
    """
    from components.settings import Batch, Evaluation, Task
    from components.stage import stage
    from components.write_predictions.writing import Origin, write

    with stage("write_predictions"):
        origin = Origin(name, run_name, {"": model_uri, **challengers})
        sections = Task.model_validate(task), Batch.model_validate(batch), Evaluation.model_validate(evaluation)
        result = write(predictions.path, *sections, origin, report.path)
        for figure, value in result.figures.items():
            metrics.log_metric(figure, value)
        return (result.verdict, result.reason, result.uri)
