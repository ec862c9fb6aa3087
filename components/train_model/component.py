"""The KFP interface of `train_model`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TENSORFLOW, install_kfp_package=False)
def train_model(
    transformed: dsl.Input[dsl.Dataset],
    transform_graph: dsl.Input[dsl.Artifact],
    schema: dsl.Input[dsl.Artifact],
    task: dict,
    model: dict,
    training: dict,
    trained: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    user_module: str = "",
):
    """Fits one model and exports one SavedModel that takes raw rows.

    Args:
        transformed: the dataset that transform_data wrote.
        transform_graph: the TFT output of transform_data.
        schema: directory with `schema.pbtxt`.
        task: section `task` of pipeline.yaml.
        model: section `model` of pipeline.yaml.
        training: section `training` of pipeline.yaml.
        trained: `1/` (SavedModel with `serving_default` and `serve_tf_examples`) and spec.json.
        metrics: losses, epochs, parameters.
        report: self-contained page with learning curves.
        user_module: Python source that may define `build_model(inputs, task, options)`.
    """
    from components.settings import Task, Training
    from components.stage import stage
    from components.train_model.training import parse_model, train

    with stage("train_model"):
        result = train(
            transformed.path,
            transform_graph.path,
            schema.path,
            Task.model_validate(task),
            parse_model(model),
            Training.model_validate(training),
            user_module,
            trained.path,
            report.path,
        )
        for name, value in result.items():
            metrics.log_metric(name, value)
