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
    """
    from components.predict_batch.prediction import predict
    from components.stage import stage

    with stage("predict_batch"):
        path = model.path if model else model_uri
        manifest = predict(examples.path, path, split, keep_columns, predictions.path, reasons)
        predictions.metadata.update(manifest.splits, digest=manifest.digest)
