"""The KFP interface of `deploy_model`."""

from typing import NamedTuple

from kfp import dsl

from components import images


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def deploy_model(
    model_uri: str,
    predictions: dsl.Input[dsl.Dataset],
    name: str,
    deployment: dict,
    run_name: str,
    decision: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> NamedTuple("Outputs", [("url", str), ("verdict", str), ("reason", str)]):
    """Serves a published model on KServe: dark launch, golden test, canary steps, promotion or rollback.

    Args:
        model_uri: of a published version, or any other that KServe's storage initializer takes.
        predictions: of the model, from predict_batch with all columns kept; the golden rows are taken from them.
        name: of the project; its service has it, too, unless `deployment` names another.
        deployment: section `deployment` of pipeline.yaml.
        run_name: of this run.
        decision: directory with `decision.json`: what was done, seen and decided.
        report: self-contained page.

    Returns:
        url: of the model. verdict: `pass` or `fail`. reason: one line for the gate.
    """
    from components.deploy_model.serving import serve
    from components.settings import Deployment
    from components.stage import stage

    with stage("deploy_model"):
        decided = serve(
            model_uri,
            predictions.path,
            name,
            Deployment.model_validate(deployment),
            run_name,
            decision.path,
            report.path,
        )
        return (decided.url, decided.verdict, decided.reason)
