"""The KFP interface of `ingest_data`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def ingest_data(
    data: dict,
    task: dict,
    examples: dsl.Output[dsl.Dataset],
    schema: str = "",
    data_digest: str = "",
    serving_environment: str = "",
    window_features: dict = {},
):
    """Reads one window of spans, checks their structure and splits the rows.

    Args:
        data: section `data` of pipeline.yaml.
        task: section `task` of pipeline.yaml.
        examples: `train/` and `eval/` Parquet parts (of rows to predict: `batch/`) and manifest.json.
        schema: TFMD schema in text format; empty: types come from the files.
        data_digest: digest of what the source held at submission; it only makes KFP's cache see new data.
        serving_environment: given, e.g. SERVING: the rows are only to be predicted. Neither the label nor columns that
            the schema keeps out of this environment are read, and all rows are one split.
        window_features: section `window_features` of pipeline.yaml; empty: there is none.
    """
    from components.ingest_data.ingestion import ingest
    from components.settings import Data, Task, WindowFeatures
    from components.stage import stage

    with stage("ingest_data"):
        sections = Data.model_validate(data), Task.model_validate(task)
        windows = WindowFeatures.model_validate(window_features) if window_features else None
        manifest = ingest(*sections, schema, examples.path, serving_environment, windows)
        examples.metadata.update(manifest.splits, digest=manifest.digest, spans=", ".join(manifest.spans))
