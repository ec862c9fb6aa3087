"""The KFP interface of `respond_to_verdict`."""

from typing import NamedTuple

from kfp import dsl

from components import images


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def respond_to_verdict(
    name: str,
    monitoring: dict,
    data: dict,
    publication: dict,
    record: dsl.Input[dsl.Artifact],
    retrain_on: str = "kubeflow",
) -> NamedTuple("Outputs", [("run", str), ("training_window", str), ("reason", str)]):
    """Starts training or notifies, once for the same evidence.

    Args:
        name: of the project and its model.
        monitoring: section `monitoring` of pipeline.yaml; its `response` says what follows.
        data: section `data` of pipeline.yaml: what training reads.
        publication: section `publication` of pipeline.yaml: where the history is, unless `monitoring` says so.
        record: directory with record.json, of monitor_model.
        retrain_on: `kubeflow` starts a run of the schedule. `local` starts none, and says what to train on: whoever
            started this run does it.

    Returns:
        run: that was started for this evidence, now or before; empty: none. training_window: the spans that training
        is due on; empty: it is not due. reason: one line.
    """
    from components.respond_to_verdict.response import respond
    from components.settings import Data, Monitoring, Publication
    from components.stage import stage

    with stage("respond_to_verdict"):
        answer = respond(
            name,
            Monitoring.model_validate(monitoring),
            Data.model_validate(data),
            Publication.model_validate(publication),
            record.path,
            retrain_on,
        )
        return (answer.run, answer.training_window, answer.reason)
