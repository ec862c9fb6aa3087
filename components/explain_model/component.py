"""The KFP interface of `explain_model`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TENSORFLOW, install_kfp_package=False)
def explain_model(
    model: dsl.Input[dsl.Model],
    examples: dsl.Input[dsl.Dataset],
    predictions: dsl.Input[dsl.Dataset],
    task: dict,
    explanation: dict,
    explanations: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    transform_graph: dsl.Input[dsl.Artifact] = None,
    schema: dsl.Input[dsl.Artifact] = None,
):
    """Tells which features predictions rest on, row by row and over all, and where the model is weakest.

    Args:
        model: the model that train_model exported.
        examples: the dataset that ingest_data wrote; its train split is what rows are compared with.
        predictions: of this model over one split of `examples`, from predict_batch.
        task: section `task` of pipeline.yaml.
        explanation: section `explanation` of pipeline.yaml.
        explanations: what each feature contributes to the predictions of a sample of rows, `<split>/*.parquet`.
        metrics: rows explained, how exactly contributions add up, slices in which the model is weak.
        report: self-contained page.
        transform_graph: that transform_data wrote; trees are explained by their own structure if it is given.
        schema: directory with `schema.pbtxt`; the report writes times as such if it is given.
    """
    from components.explain_model.explaining import explain
    from components.settings import Explanation, Task
    from components.stage import stage

    with stage("explain_model"):
        figures = explain(
            model.path,
            transform_graph.path if transform_graph else "",
            schema.path if schema else "",
            examples.path,
            predictions.path,
            Task.model_validate(task),
            Explanation.model_validate(explanation),
            explanations.path,
            report.path,
        )
        for name, value in figures.items():
            metrics.log_metric(name, value)
