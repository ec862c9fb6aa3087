"""The KFP interface of `monitor_model`."""

from typing import NamedTuple

from kfp import dsl

from components import images


@dsl.component(base_image=images.TENSORFLOW, install_kfp_package=False)
def monitor_model(
    name: str,
    monitoring: dict,
    data: dict,
    task: dict,
    validation: dict,
    evaluation: dict,
    publication: dict,
    record: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    window: str = "",
    scheduled_time: str = "",
) -> NamedTuple("Outputs", [("verdict", str), ("reason", str), ("evidence", str)]):
    """Judges one window of a served model by what was logged and by labels that came later.

    Args:
        name: of the project and its model.
        monitoring: section `monitoring` of pipeline.yaml.
        data: section `data` of pipeline.yaml: the key, and where labels come from.
        task: section `task` of pipeline.yaml.
        validation: section `validation` of pipeline.yaml: severities, and the environment without a label.
        evaluation: section `evaluation` of pipeline.yaml: slices.
        publication: section `publication` of pipeline.yaml: the model store.
        record: directory with record.json; the history holds a copy.
        report: self-contained page.
        metrics: of the window.
        window: what to judge, e.g. 2013-10; empty: the last whole period before `scheduled_time`.
        scheduled_time: of the run, as RFC 3339 has it.

    Returns:
        verdict: `healthy`, `watch`, `retrain` or `page`. reason: one line. evidence: names what the verdict rests on.
    """
    from components.monitor_model.monitoring import monitor
    from components.monitor_model.sections import Settings
    from components.stage import stage

    with stage("monitor_model"):
        sections = Settings.read(monitoring, data, task, validation, evaluation, publication)
        result = monitor(name, sections, window, scheduled_time, record.path, report.path)
        for figure, value in result.scalars().items():
            metrics.log_metric(figure, value)
        return (result.verdict, result.reason, result.evidence)
