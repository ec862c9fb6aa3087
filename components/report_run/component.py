"""The KFP interface of `report_run`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def report_run(
    status: dsl.PipelineTaskFinalStatus,
    run_name: str,
    pipeline_root: str,
    prices: dict,
    page: dsl.Output[dsl.HTML],
    run_id: str = "",
):
    """Writes one page: stages, durations, memory, verdicts, reports, lineage, cost.

    Args:
        status: of the run, from KFP.
        run_name: of this run.
        pipeline_root: where the run's artifacts lie.
        prices: section `prices` of pipeline.yaml.
        page: self-contained page.
        run_id: by which Kubeflow Pipelines knows this run; empty: its stages are shown only on one machine.
    """
    from components.report_run.summary import summarize
    from components.settings import Prices
    from components.stage import stage

    with stage("report_run"):
        summarize(status.state, run_name, run_id, pipeline_root, Prices.model_validate(prices), page.path)
