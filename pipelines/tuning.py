"""The tuning pipeline: trials side by side, each part in a pod of its own. Wiring only."""

from kfp import dsl

from components.tune_model.component import tune_model
from pipelines.preparation import prepare_data, report_at_the_end


@dsl.pipeline(name="tuning", description="Model selection with its trials in pods; training then finds them done.")
def tuning(
    data: dict,
    task: dict,
    validation: dict,
    features: dict,
    tuning: dict,
    training: dict,
    prices: dict,
    analysis_cache: str,
    parts: list,
    schema: str = "",
    window_features: dict = {},  # noqa: B006  (compiled to a constant)
    user_module: str = "",
    data_digest: str = "",
    production_model: str = "",
) -> None:
    """Tries all models; the sections of pipeline.yaml are its arguments.

    Args:
        data: section `data`.
        task: section `task`.
        validation: section `validation`.
        features: section `features`.
        tuning: section `tuning`, with candidates and sampler random.
        training: section `training`.
        prices: section `prices`.
        analysis_cache: URI under which trials and analysis results are kept.
        parts: of the trials, e.g. [1/2, 2/2]: each is a pod.
        schema: curated TFMD schema in text format; empty: inferred.
        window_features: section `window_features`; empty: there is none.
        user_module: source of the user's module; empty: none.
        data_digest: of what the source held at submission.
        production_model: URI of the version in production; empty: none.
    """
    with dsl.ExitHandler(report_at_the_end(prices)):
        prepared = prepare_data(
            data,
            task,
            validation,
            features,
            schema,
            user_module,
            data_digest,
            production_model,
            analysis_cache,
            window_features,
        )
        with dsl.ParallelFor(parts, name="parts") as part:
            # Not cached: another number of parts, or a trial that failed by chance, is no other input.
            tried = (
                tune_model(
                    transformed=prepared.transformed,
                    transform_graph=prepared.transform_graph,
                    task=task,
                    tuning=tuning,
                    training=training,
                    user_module=user_module,
                    studies=analysis_cache,
                    part=part,
                )
                .set_display_name("try models")
                .set_caching_options(False)
            )
        tune_model(
            transformed=prepared.transformed,
            transform_graph=prepared.transform_graph,
            task=task,
            tuning=tuning,
            training=training,
            user_module=user_module,
            studies=analysis_cache,
        ).after(tried)
