"""What pipelines have in common: rows, checked and transformed, and the report at the end. Wiring only."""

from dataclasses import dataclass
from typing import Any

from kfp import dsl

from components.gate.component import gate
from components.ingest_data.component import ingest_data
from components.report_run.component import report_run
from components.transform_data.component import transform_data
from components.validate_data.component import validate_data


@dataclass(frozen=True)
class Prepared:
    """Outputs of the stages, and what to wait for."""

    examples: Any
    schema: Any
    statistics: Any
    transformed: Any
    transform_graph: Any
    data_passed: dsl.PipelineTask


def report_at_the_end(prices: Any) -> dsl.PipelineTask:
    """Gives the task of an exit handler: the page that sums up the run."""
    return report_run(
        run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
        pipeline_root=dsl.PIPELINE_ROOT_PLACEHOLDER,
        prices=prices,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    ).set_caching_options(False)


def check_data(
    examples: Any, task: Any, validation: Any, schema: Any, production_model: Any
) -> tuple[dsl.PipelineTask, dsl.PipelineTask]:
    """Puts `validate_data` and the data gate into a pipeline, and gives both; arguments as of `training`."""
    validated = validate_data(
        examples=examples,
        task=task,
        validation=validation,
        curated_schema=schema,
        production_model=production_model,
    )
    data_passed = gate(
        name="data", verdict=validated.outputs["verdict"], reason=validated.outputs["reason"]
    ).set_display_name("data gate")
    return validated, data_passed


def prepare_data(
    data: Any,
    task: Any,
    validation: Any,
    features: Any,
    schema: Any,
    user_module: Any,
    data_digest: Any,
    production_model: Any,
    analysis_cache: Any,
    window_features: Any,
) -> Prepared:
    """Puts the stages from `ingest_data` to `transform_data` into a pipeline; arguments as of `training`."""
    ingested = ingest_data(
        data=data, task=task, schema=schema, data_digest=data_digest, window_features=window_features
    )
    examples = ingested.outputs["examples"]
    validated, data_passed = check_data(examples, task, validation, schema, production_model)
    transformed = transform_data(
        examples=examples,
        schema=validated.outputs["schema"],
        task=task,
        features=features,
        user_module=user_module,
        analysis_cache=analysis_cache,
    ).after(data_passed)
    return Prepared(
        examples,
        validated.outputs["schema"],
        validated.outputs["statistics"],
        transformed.outputs["transformed"],
        transformed.outputs["transform_graph"],
        data_passed,
    )
