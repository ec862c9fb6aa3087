"""The KFP interface of `validate_data`."""

from typing import NamedTuple

from kfp import dsl

from components import images


@dsl.component(base_image=images.TENSORFLOW, install_kfp_package=False)
def validate_data(
    examples: dsl.Input[dsl.Dataset],
    task: dict,
    validation: dict,
    statistics: dsl.Output[dsl.Artifact],
    schema: dsl.Output[dsl.Artifact],
    anomalies: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    curated_schema: str = "",
    production_model: str = "",
) -> NamedTuple("Outputs", [("verdict", str), ("reason", str)]):
    """Computes statistics of every split and holds them against schema, each other and production.

    Args:
        examples: the dataset that ingest_data wrote.
        task: section `task` of pipeline.yaml.
        validation: section `validation` of pipeline.yaml.
        statistics: directory with `<split>.pb`, one DatasetFeatureStatisticsList each, and the train split's
            `profile.json`, which monitoring holds requests against.
        schema: directory with `schema.pbtxt`, curated or inferred.
        anomalies: directory with `anomalies.json`.
        report: self-contained page with distributions and anomalies.
        curated_schema: TFMD schema in text format; empty: one is inferred from the train split; rows to predict are
            held against that of the model in production.
        production_model: URI of the published model whose statistics drift is measured against; empty: none.

    Returns:
        verdict: `pass` or `fail`. reason: one line for the gate.
    """
    from components.settings import Task, Validation
    from components.stage import stage
    from components.validate_data.validation import validate

    with stage("validate_data"):
        result = validate(
            examples.path,
            Task.model_validate(task),
            Validation.model_validate(validation),
            curated_schema,
            production_model,
            statistics.path,
            schema.path,
            anomalies.path,
            report.path,
        )
        return (result.verdict, result.reason)
