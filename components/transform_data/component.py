"""The KFP interface of `transform_data`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TENSORFLOW, install_kfp_package=False)
def transform_data(
    examples: dsl.Input[dsl.Dataset],
    schema: dsl.Input[dsl.Artifact],
    task: dict,
    features: dict,
    transform_graph: dsl.Output[dsl.Artifact],
    transformed: dsl.Output[dsl.Dataset],
    user_module: str = "",
    analysis_cache: str = "",
    beam_args: list = [],
):
    """Analyzes the train split once and applies the same TFT graph to every split.

    Args:
        examples: the dataset that ingest_data wrote.
        schema: directory with `schema.pbtxt`.
        task: section `task` of pipeline.yaml.
        features: section `features` of pipeline.yaml.
        transform_graph: TFT output (`transform_fn/`, `transformed_metadata/`).
        transformed: `<split>/*.parquet` of transformed features and label, and manifest.json.
        user_module: Python source that may define `preprocessing_fn(inputs)`.
        analysis_cache: URI under which analysis results are kept and found again; empty: none.
        beam_args: Beam pipeline options, e.g. ["--runner=FlinkRunner", …]; empty: in memory.
    """
    from components.settings import Features, Task
    from components.stage import stage
    from components.transform_data.transformation import transform

    with stage("transform_data"):
        manifest = transform(
            examples.path,
            schema.path,
            Task.model_validate(task),
            Features.model_validate(features),
            user_module,
            analysis_cache,
            beam_args,
            transform_graph.path,
            transformed.path,
        )
        transformed.metadata.update(manifest.splits, digest=manifest.digest)
