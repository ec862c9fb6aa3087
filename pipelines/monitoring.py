"""The monitoring pipeline: what a served model was asked, judged window by window, and what follows. Wiring only."""

from kfp import dsl

from components.monitor_model.component import monitor_model
from components.respond_to_verdict.component import respond_to_verdict
from pipelines.preparation import report_at_the_end


@dsl.pipeline(
    name="monitoring",
    description="Judges a window of a served model by its log and by later labels; starts training, or tells somebody.",
)
def monitoring(
    name: str,
    monitoring: dict,
    data: dict,
    task: dict,
    validation: dict,
    evaluation: dict,
    publication: dict,
    prices: dict,
    window: str = "",
    retrain_on: str = "kubeflow",
) -> None:
    """Judges one window; the sections of pipeline.yaml are its arguments.

    Args:
        name: of the project and its model.
        monitoring: section `monitoring`.
        data: section `data`.
        task: section `task`.
        validation: section `validation`.
        evaluation: section `evaluation`.
        publication: section `publication`.
        prices: section `prices`.
        window: what to judge, e.g. 2013-10; empty: the last whole period before the time that the run is scheduled for.
        retrain_on: `kubeflow`, or `local`: whoever started this run trains.
    """
    with dsl.ExitHandler(report_at_the_end(prices)):
        # Not cached: rows and labels arrive late, and records of the windows before may change.
        judged = monitor_model(
            name=name,
            monitoring=monitoring,
            data=data,
            task=task,
            validation=validation,
            evaluation=evaluation,
            publication=publication,
            window=window,
            scheduled_time=dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER,
        ).set_caching_options(False)
        # In every run: kfp.local cannot decide by what a task in an exit handler gave.
        respond_to_verdict(
            name=name,
            monitoring=monitoring,
            data=data,
            publication=publication,
            record=judged.outputs["record"],
            retrain_on=retrain_on,
        ).set_caching_options(False)
