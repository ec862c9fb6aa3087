"""The KFP interface of `predict_batch`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TENSORFLOW, install_kfp_package=False)
def predict_batch(
    examples: dsl.Input[dsl.Dataset],
    predictions: dsl.Output[dsl.Dataset],
    model: dsl.Input[dsl.Model] = None,
    model_uri: str = "",
    split: str = "eval",
    keep_columns: list = [],
    reasons: int = 0,
    top_rows: int = 0,
    challengers: dict = {},
    beam_args: list = [],
    scratch: str = "",
):
    """Runs the exported signature over raw rows.

    Args:
        examples: the dataset that ingest_data wrote.
        predictions: `<split>/*.parquet`, `rejected/*.parquet` with the reason, and manifest.json.
        model: the model that train_model exported.
        model_uri: a published model instead, by URI; neither: predictions stay empty.
        split: which split to predict.
        keep_columns: raw columns kept beside the prediction; empty: all.
        reasons: features named for each prediction that contribute most to it; 0: none.
        top_rows: only so many rows, those with the highest predictions, get reasons, in the folder `top`; 0: all.
        challengers: URIs of published models that predict the same rows beside it, by the name that begins their
            columns.
        beam_args: Beam pipeline options, e.g. ["--runner=FlinkRunner", …]; empty: in this process.
        scratch: URI that Beam's workers reach as well, for what goes to and fro; empty: they are on this machine.
    """
    from components.predict_batch.prediction import predict
    from components.stage import stage

    with stage("predict_batch"):
        path = model.path if model else model_uri
        options = reasons, top_rows, challengers, beam_args, scratch
        manifest = predict(examples.path, path, split, keep_columns, predictions.path, *options)
        predictions.metadata.update(manifest.splits, digest=manifest.digest)
