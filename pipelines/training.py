"""The training pipeline: data to a published model, and on to a served one. Wiring only."""

from kfp import dsl

from components.check_serving.component import check_serving
from components.deploy_model.component import deploy_model
from components.evaluate_model.component import evaluate_model
from components.explain_model.component import explain_model
from components.gate.component import gate
from components.predict_batch.component import predict_batch
from components.publish_model.component import publish_model
from components.train_model.component import train_model
from components.tune_model.component import tune_model
from pipelines.preparation import prepare_data, report_at_the_end


@dsl.pipeline(name="training", description="Tabular data to a published TensorFlow model; nothing bad passes.")
def training(
    name: str,
    data: dict,
    task: dict,
    validation: dict,
    features: dict,
    tuning: dict,
    training: dict,
    evaluation: dict,
    explanation: dict,
    serving: dict,
    publication: dict,
    prices: dict,
    config: dict,
    deployment: dict = {},  # noqa: B006  (compiled to a constant)
    deployment_target: str = "local",
    schema: str = "",
    window_features: dict = {},  # noqa: B006  (compiled to a constant)
    user_module: str = "",
    prediction_columns: list = [],  # noqa: B006  (compiled to a constant)
    data_digest: str = "",
    inputs_digest: str = "",
    production_model: str = "",
    analysis_cache: str = "",
) -> None:
    """Trains, evaluates, publishes and may deploy one model; the sections of pipeline.yaml are its arguments.

    Args:
        name: of the project and its model.
        data: section `data`.
        task: section `task`.
        validation: section `validation`.
        features: section `features`.
        tuning: section `tuning`, with candidates; section `model` is the only one, where there is one.
        training: section `training`.
        evaluation: section `evaluation`.
        explanation: section `explanation`.
        serving: section `serving`.
        publication: section `publication`.
        prices: section `prices`.
        config: the whole configuration and the code's version, for the model card.
        deployment: section `deployment`.
        deployment_target: its `target`; a condition cannot look into a section.
        schema: curated TFMD schema in text format; empty: inferred.
        window_features: section `window_features`; empty: there is none.
        user_module: source of the user's module; empty: none.
        prediction_columns: raw columns kept beside each prediction of the model in production.
        data_digest: of what the source held at submission.
        inputs_digest: of everything that decides the result.
        production_model: URI of the version in production; empty: none.
        analysis_cache: URI under which analysis results are kept; empty: none.
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
        in_production = (
            predict_batch(examples=prepared.examples, model_uri=production_model, keep_columns=prediction_columns)
            .set_display_name("predict (production)")
            .after(prepared.data_passed)
        )
        tuned = tune_model(
            transformed=prepared.transformed,
            transform_graph=prepared.transform_graph,
            task=task,
            tuning=tuning,
            training=training,
            user_module=user_module,
            studies=analysis_cache,
        )
        trained = train_model(
            transformed=prepared.transformed,
            transform_graph=prepared.transform_graph,
            schema=prepared.schema,
            task=task,
            model=tuned.outputs["model"],
            training=training,
            user_module=user_module,
        )
        # All columns are kept: the golden rows are taken from them.
        predicted = predict_batch(examples=prepared.examples, model=trained.outputs["trained"]).set_display_name(
            "predict (candidate)"
        )
        evaluated = evaluate_model(
            predictions=predicted.outputs["predictions"],
            production_predictions=in_production.outputs["predictions"],
            examples=prepared.examples,
            task=task,
            evaluation=evaluation,
        )
        model_passed = gate(
            name="model", verdict=evaluated.outputs["verdict"], reason=evaluated.outputs["reason"]
        ).set_display_name("model gate")

        # Beside the way to the model store: nothing waits for it.
        explain_model(
            model=trained.outputs["trained"],
            examples=prepared.examples,
            predictions=predicted.outputs["predictions"],
            transform_graph=prepared.transform_graph,
            schema=prepared.schema,
            task=task,
            explanation=explanation,
        )
        checked = check_serving(
            model=trained.outputs["trained"], predictions=predicted.outputs["predictions"], serving=serving
        )
        serving_passed = gate(
            name="serving", verdict=checked.outputs["verdict"], reason=checked.outputs["reason"]
        ).set_display_name("serving gate")

        published = (
            publish_model(
                model=trained.outputs["trained"],
                examples=prepared.examples,
                schema=prepared.schema,
                statistics=prepared.statistics,
                evaluation_result=evaluated.outputs["evaluation_result"],
                name=name,
                config=config,
                publication=publication,
                run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
                inputs_digest=inputs_digest,
                production_model=production_model,
            )
            .set_caching_options(False)
            .after(model_passed, serving_passed)
        )

        with dsl.If(deployment_target == "kserve", name="deploy"):
            deployed = deploy_model(
                model_uri=published.outputs["uri"],
                predictions=predicted.outputs["predictions"],
                name=name,
                deployment=deployment,
                run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
            ).set_caching_options(False)
            gate(
                name="deployment", verdict=deployed.outputs["verdict"], reason=deployed.outputs["reason"]
            ).set_caching_options(False).set_display_name("deployment gate")
