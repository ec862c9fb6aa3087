"""The KFP interface of `evaluate_model`."""

from typing import NamedTuple

from kfp import dsl

from components import images


@dsl.component(base_image=images.TENSORFLOW, install_kfp_package=False)
def evaluate_model(
    predictions: dsl.Input[dsl.Dataset],
    production_predictions: dsl.Input[dsl.Dataset],
    examples: dsl.Input[dsl.Dataset],
    task: dict,
    evaluation: dict,
    metrics: dsl.Output[dsl.Metrics],
    classification_metrics: dsl.Output[dsl.ClassificationMetrics],
    evaluation_result: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> NamedTuple("Outputs", [("verdict", str), ("reason", str)]):
    """Measures a model, its slices, the trivial baseline and the model in production on the same rows.

    Args:
        predictions: of the candidate, from predict_batch.
        production_predictions: of the model in production, on the same rows; empty: there is none.
        examples: the dataset that ingest_data wrote; its train labels make the trivial baseline.
        task: section `task` of pipeline.yaml.
        evaluation: section `evaluation` of pipeline.yaml.
        metrics: the candidate's overall metrics.
        classification_metrics: ROC curve and confusion matrix; empty for a regression.
        evaluation_result: directory with `evaluation.json`: all metrics, intervals, slices and checks.
        report: self-contained page.

    Returns:
        verdict: `pass` or `fail`. reason: one line for the gate.
    """
    from components.evaluate_model.evaluation import evaluate
    from components.settings import Evaluation, Task
    from components.stage import stage

    with stage("evaluate_model"):
        result = evaluate(
            predictions.path,
            production_predictions.path,
            examples.path,
            Task.model_validate(task),
            Evaluation.model_validate(evaluation),
            evaluation_result.path,
            report.path,
        )
        for name, value in result.scalars().items():
            metrics.log_metric(name, value)
        if result.roc:
            classification_metrics.log_roc_curve(result.roc.fpr, result.roc.tpr, result.roc.thresholds)
        if result.confusion:
            classification_metrics.log_confusion_matrix(result.confusion.classes, result.confusion.counts)
        return (result.verdict, result.reason)
