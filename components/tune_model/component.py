"""The KFP interface of `tune_model`."""

from typing import NamedTuple

from kfp import dsl

from components import images


@dsl.component(base_image=images.TENSORFLOW, install_kfp_package=False)
def tune_model(
    transformed: dsl.Input[dsl.Dataset],
    transform_graph: dsl.Input[dsl.Artifact],
    task: dict,
    tuning: dict,
    training: dict,
    leaderboard: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    user_module: str = "",
    studies: str = "",
    part: str = "",
) -> NamedTuple("Outputs", [("model", dict), ("reason", str)]):
    """Tries models on rows of the train split that they did not learn from, and chooses one.

    Args:
        transformed: the dataset that transform_data wrote; only its split `train` is read.
        transform_graph: from the same run of transform_data.
        task: section `task` of pipeline.yaml.
        tuning: section `tuning` of pipeline.yaml, with candidates.
        training: section `training` of pipeline.yaml: how each candidate is fitted.
        leaderboard: directory with `leaderboard.json`.
        metrics: the chosen model's metric, and how many trials there were.
        report: self-contained page.
        user_module: Python source that may define `build_model(inputs, task, options)`.
        studies: URI under which trials are kept, so that a run that is started again does not repeat them; empty: none.
        part: which of the trials are tried here, e.g. 2/4: every fourth, from the second; empty: all. The others
            are tried elsewhere, under the same `studies`.

    Returns:
        model: section `model` for train_model. reason: one line, why it was chosen.
    """
    from components.settings import Task, Training, Tuning
    from components.stage import stage
    from components.tune_model.selection import select

    with stage("tune_model"):
        board = select(
            transformed.path,
            transform_graph.path,
            Task.model_validate(task),
            Tuning.model_validate(tuning),
            Training.model_validate(training),
            user_module,
            studies,
            leaderboard.path,
            report.path,
            part,
        )
        for name, value in board.scalars().items():
            metrics.log_metric(name, value)
        return (board.model.model_dump(mode="json", exclude_none=True), board.why)
