"""The KFP interface of `publish_model`."""

from typing import NamedTuple

from kfp import dsl

from components import images


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def publish_model(
    model: dsl.Input[dsl.Model],
    examples: dsl.Input[dsl.Dataset],
    schema: dsl.Input[dsl.Artifact],
    statistics: dsl.Input[dsl.Artifact],
    evaluation_result: dsl.Input[dsl.Artifact],
    name: str,
    config: dict,
    publication: dict,
    run_name: str,
    inputs_digest: str = "",
    production_model: str = "",
) -> NamedTuple("Outputs", [("uri", str), ("version", str), ("registries", str)]):
    """Copies a model into the model store under an immutable version, and tells model registries of it.

    Args:
        model: the model that passed the gate.
        examples: the dataset it was trained on; its manifest goes into the card.
        schema: directory with `schema.pbtxt`.
        statistics: of the training data; drift is measured against them later.
        evaluation_result: directory with `evaluation.json`.
        name: of the model in the store.
        config: the whole configuration of the run, for the card.
        publication: section `publication` of pipeline.yaml.
        run_name: of this run, for the card.
        inputs_digest: digest of everything that decides the result: configuration, data, code, locks.
        production_model: URI of the model that was in production when the run started; empty: none.

    Returns:
        uri: of the version in the store. version: its name. registries: which ones were told, or why not.
    """
    from components.model_store import ModelStore
    from components.publish_model.publication import publish
    from components.registries.telling import tell
    from components.settings import Publication
    from components.stage import stage

    with stage("publish_model"):
        section = Publication.model_validate(publication)
        published = publish(
            model.path,
            examples.path,
            schema.path,
            statistics.path,
            evaluation_result.path,
            name,
            config,
            section,
            run_name,
            inputs_digest,
            production_model,
        )
        told = tell(section.registries, ModelStore(section.store, name), published.version)
        return (published.uri, published.version, "; ".join(told))
