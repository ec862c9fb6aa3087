"""The batch prediction pipeline: a span of rows to predictions in their place. Wiring only."""

from kfp import dsl

from components.gate.component import gate
from components.ingest_data.component import ingest_data
from components.predict_batch.component import predict_batch
from components.write_predictions.component import write_predictions
from pipelines.preparation import check_data, report_at_the_end


@dsl.pipeline(name="batch-prediction", description="Rows without a label to predictions; bad rows are not predicted.")
def batch_prediction(
    name: str,
    data: dict,
    task: dict,
    validation: dict,
    evaluation: dict,
    batch: dict,
    prices: dict,
    production_model: str = "",
    serving_environment: str = "SERVING",
    schema: str = "",
    data_digest: str = "",
    window_features: dict = {},  # noqa: B006  (compiled to a constant)
    prediction_columns: list = [],  # noqa: B006  (compiled to a constant)
    challengers: dict = {},  # noqa: B006  (compiled to a constant)
    reasons: int = 0,
    top_rows: int = 0,
    beam_args: list = [],  # noqa: B006  (compiled to a constant)
    scratch: str = "",
) -> None:
    """Predicts a window of spans with a published model; the sections of pipeline.yaml are its arguments.

    Args:
        name: of the project and its model.
        data: section `data`, with the source of the rows to predict.
        task: section `task`.
        validation: section `validation`.
        evaluation: section `evaluation`.
        batch: section `batch`.
        prices: section `prices`.
        production_model: URI of the version that decides.
        serving_environment: of the schema, in which there is no label.
        schema: curated TFMD schema in text format; empty: the published model's.
        data_digest: of what the source held at submission.
        window_features: section `window_features`; empty: there is none.
        prediction_columns: raw columns kept beside each prediction; empty: all.
        challengers: URIs of versions that predict the same rows, by name.
        reasons: features named for each of the top rows.
        top_rows: how many rows get reasons.
        beam_args: options of the Beam pipeline that predicts; empty: in memory.
        scratch: URI that Beam's workers reach.
    """
    with dsl.ExitHandler(report_at_the_end(prices)):
        ingested = ingest_data(
            data=data,
            task=task,
            schema=schema,
            data_digest=data_digest,
            serving_environment=serving_environment,
            window_features=window_features,
        )
        examples = ingested.outputs["examples"]
        _, data_passed = check_data(examples, task, validation, schema, production_model)
        predicted = predict_batch(
            examples=examples,
            model_uri=production_model,
            split="batch",
            keep_columns=prediction_columns,
            reasons=reasons,
            top_rows=top_rows,
            challengers=challengers,
            beam_args=beam_args,
            scratch=scratch,
        ).after(data_passed)
        # Not cached: somebody may have written the span since, or removed it.
        written = write_predictions(
            predictions=predicted.outputs["predictions"],
            name=name,
            task=task,
            batch=batch,
            evaluation=evaluation,
            model_uri=production_model,
            challengers=challengers,
            run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
        ).set_caching_options(False)
        gate(name="predictions", verdict=written.outputs["verdict"], reason=written.outputs["reason"]).set_display_name(
            "predictions gate"
        )
