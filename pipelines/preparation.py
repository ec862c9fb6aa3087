"""What pipelines that fit models begin with: rows, checked and transformed. Wiring only."""

from dataclasses import dataclass
from typing import Any

from kfp import dsl

from components.gate.component import gate
from components.ingest_data.component import ingest_data
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
) -> Prepared:
    """Puts the stages from `ingest_data` to `transform_data` into a pipeline; arguments as of `training`."""
    ingested = ingest_data(data=data, task=task, schema=schema, data_digest=data_digest)
    examples = ingested.outputs["examples"]
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
