"""Turns a project into the arguments of a compiled pipeline, with everything pinned that decides the result."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components import images, storage
from components.errors import InputError
from components.model_store import ModelStore
from components.monitoring_history import history_of
from components.prediction_log.windows import parse_window, scheduled_window
from components.settings import Section
from components.spans import SpanFile, before, listing_digest, pin_data, pinned_window, resolve_from_afar
from pipelines import compiled
from pipelines.project import LoadedProject

MONITORING_SECTIONS = ("monitoring", "data", "task", "validation", "evaluation", "publication", "prices")
SECTIONS = (
    *("data", "task", "validation", "features", "tuning", "training"),
    *("evaluation", "explanation", "serving", "publication", "prices"),
)
_OPTIONAL = ("window_features",)

PRODUCTION = "production"
"""What batch.model says of the version that is in production when a run starts."""
BATCH_SECTIONS = ("data", "task", "validation", "evaluation", "batch", "prices")


@dataclass(frozen=True)
class Submission:
    """What a run is started with."""

    arguments: dict[str, Any]
    spans: str
    """The pinned window, for people."""
    files: list[str]
    """URIs of what will be read, or patterns of them."""
    writes: list[str]
    """URIs of the folders that the run writes into: the model store, or where predictions go, and the history."""
    inputs: str
    """Names everything that decides the result (hex)."""


def prepare(
    project: LoadedProject,
    analysis_cache: str = "",
    registry: str = images.REGISTRY,
    tag: str = "",
) -> Submission:
    """Pins the window to the spans that are there now, and the model in production to its version.

    Args:
        project: a valid project.
        analysis_cache: URI under which transform_data keeps analysis results; empty: none.
        registry: of the images that the tasks run in, for the model card.
        tag: of these images; empty: that of the code as it is.

    Raises:
        InputError: the source's pattern is wrong.
        DataRejectedError: nothing matches, or a span in the window is missing.
        UnavailableError: a storage does not answer.
    """
    settings = project.settings
    source, store_uri = project.resolve(settings.data.source), project.resolve(settings.publication.store)
    files = resolve_from_afar(source, settings.data.window)
    earlier = _earlier(project, source, files)
    sections = (*SECTIONS, *_OPTIONAL) if settings.window_features else SECTIONS
    arguments: dict[str, Any] = {name: _section(getattr(settings, name)) for name in sections}
    arguments["tuning"] = _section(settings.selection)
    arguments["data"] = pin_data(arguments["data"] | {"source": source}, files)
    if settings.data.kafka.format.schema_file:
        arguments["data"]["kafka"]["avro_schema"] = project.beside(settings.data.kafka.format.schema_file)
    window = arguments["data"]["window"]
    arguments["publication"] |= {"store": store_uri}
    arguments |= {
        "name": settings.name,
        "schema": project.schema_text,
        "user_module": project.user_module,
        "prediction_columns": project.prediction_columns,
        "data_digest": listing_digest([*files, *earlier]),
        "analysis_cache": analysis_cache,
    }
    arguments["inputs_digest"] = digest_of({**arguments, "code": compiled.code_digest()})
    arguments["config"] = {
        "pipeline": {name: arguments[name] for name in sections},
        "code": {
            "version": images.VERSION,
            "digest": compiled.code_digest(),
            "registry": registry,
            "tag": tag or compiled.content_tag(),
        },
        "locks": compiled.lock_digests(),
    }
    # Neither in the digest nor in the card: where a model is served does not change it.
    arguments |= {"deployment": _section(settings.deployment), "deployment_target": settings.deployment.target}
    arguments["production_model"] = _production_model(ModelStore(store_uri, settings.name), arguments["inputs_digest"])
    arguments["parts"] = [f"{number}/{settings.tuning.parallel}" for number in range(1, settings.tuning.parallel + 1)]
    read = [file.uri for file in (*files, *earlier)]
    return Submission(arguments, window, read, [store_uri], arguments["inputs_digest"])


def prepare_monitoring(
    project: LoadedProject, window: str = "", pin: bool = True, here: bool = False, respond: bool | None = None
) -> Submission:
    """Gives the arguments of the monitoring pipeline.

    Args:
        project: a valid project.
        window: what to judge, e.g. 2013-10; empty: the last whole period before now.
        pin: false: a schedule starts the run, whose window is then the last whole period before its time.
        here: it runs on this machine, and whoever starts it trains.
        respond: whether verdict retrain starts training; None: as the settings have it.

    Raises:
        InputError: the window is none, or no log is named.
    """
    settings = project.settings
    monitoring = settings.monitoring
    served = settings.deployment.request_log.uri if monitoring.log.format == "lockgate" else ""
    log = monitoring.log.source or served
    if not log:
        raise InputError(
            f"{project.path}: monitoring.log.source is empty; name what is logged, e.g. the server's log_uri"
        )
    if pin:
        chosen = (
            parse_window(window) if window else scheduled_window(datetime.now(UTC), monitoring.window, monitoring.delay)
        )
        window = chosen.name
    arguments: dict[str, Any] = {name: _section(getattr(settings, name)) for name in MONITORING_SECTIONS}
    store = project.resolve(settings.publication.store)
    arguments["publication"] |= {"store": store}
    arguments["data"] |= {"source": project.resolve(settings.data.source)}
    arguments["monitoring"]["log"] |= {"source": project.resolve(log)}
    if monitoring.labels.source:
        arguments["monitoring"]["labels"] |= {"source": project.resolve(monitoring.labels.source)}
    if monitoring.history:
        arguments["monitoring"] |= {"history": project.resolve(monitoring.history)}
    if respond is not None:
        arguments["monitoring"]["response"] |= {"retrain": respond}
    arguments |= {"name": settings.name, "window": window, "retrain_on": "local" if here else "kubeflow"}
    inputs = digest_of({**arguments, "code": compiled.code_digest()})
    settled = arguments["monitoring"]
    places = [settled["log"]["source"], settled["labels"]["source"], arguments["data"]["source"]]
    writes = [store, history_of(settled["history"], store)]
    return Submission(arguments, window or f"the last {monitoring.window}", list(filter(None, places)), writes, inputs)


def rows_to_predict(project: LoadedProject) -> str:
    """Gives the source of the rows that batch prediction reads."""
    return project.resolve(project.settings.batch.source or project.settings.data.source)


def prepare_batch(project: LoadedProject) -> Submission:
    """Gives the arguments of the batch prediction pipeline: window and models are pinned.

    Args:
        project: a valid project.

    Raises:
        InputError: the source's pattern is wrong, or there is no such model.
        DataRejectedError: nothing matches, or a span in the window is missing.
        UnavailableError: a storage does not answer.
    """
    settings, batch = project.settings, project.settings.batch
    store = ModelStore(project.resolve(settings.publication.store), settings.name)
    model = _version_uri(store, batch.model, "batch.model")
    versions = {name: (version, f"batch.challengers.{name}") for name, version in batch.challengers.items()}
    source = rows_to_predict(project)
    files = resolve_from_afar(source, settings.data.window)
    window = pinned_window(files)
    target = project.resolve(batch.output.target)
    earlier = _earlier(project, source, files)
    sections = (*BATCH_SECTIONS, *_OPTIONAL) if settings.window_features else BATCH_SECTIONS
    arguments: dict[str, Any] = {name: _section(getattr(settings, name)) for name in sections}
    arguments["data"] |= {"source": source, "window": window}
    arguments["batch"]["output"] |= {"target": target}
    # What is not kept cannot be written; the key tells which row it is.
    kept = dict.fromkeys([*settings.data.key, *batch.columns, *filter(None, [batch.output.partition_by])])
    arguments |= {
        "name": settings.name,
        "schema": project.schema_text,
        "serving_environment": settings.validation.serving_environment,
        "data_digest": listing_digest([*files, *earlier]),
        "production_model": model,
        "challengers": {name: _version_uri(store, *version) for name, version in versions.items()},
        "prediction_columns": list(kept) if batch.columns else [],
        "reasons": batch.reasons,
        "top_rows": batch.top_rows if batch.reasons else 0,
        "beam_args": batch.beam_args,
        "scratch": batch.scratch,
    }
    inputs = digest_of({**arguments, "code": compiled.code_digest()})
    models = [model, *arguments["challengers"].values()]
    local = str(Path(target.removeprefix("sqlite://")).parent) if target.startswith("sqlite:") else target
    return Submission(arguments, window, [*(file.uri for file in (*files, *earlier)), *models], [local], inputs)


def _earlier(project: LoadedProject, source: str, files: list[SpanFile]) -> list[SpanFile]:
    """Lists what window features look back into."""
    windows = project.settings.window_features
    return before(source, files, windows.look_back)[0] if windows else []


def _version_uri(store: ModelStore, version: str, setting: str) -> str:
    if storage.is_remote(version) or version.startswith("/"):
        return version.rstrip("/")
    if version == PRODUCTION:
        latest = store.latest()
        if latest is None:
            raise InputError(
                f"{setting}: no model '{store.name}' is published in '{store.uri}'; run the training pipeline first, "
                "or set publication.store"
            )
        return store.uri_of(latest)
    return store.uri_of(store.card(version).version)


def accepted(text: str, prepared: Submission) -> dict[str, Any]:
    """Picks the arguments that a compiled pipeline takes.

    Raises:
        InputError: it tries models in pods, and the settings do not allow that.
    """
    names = compiled.inputs(text)
    if "parts" in names:
        _require_parts(prepared.arguments)
    return {name: value for name, value in prepared.arguments.items() if name in names}


def _require_parts(arguments: dict[str, Any]) -> None:
    tuning = arguments["tuning"]
    if not arguments["analysis_cache"]:
        raise InputError(
            "pipeline tuning keeps its trials where training finds them; say where: --analysis-cache s3://bucket/analysis"
        )
    if tuning["trials"] and tuning["sampler"] != "random":
        raise InputError(
            f"tuning.sampler is {tuning['sampler']}: it learns from the trials before, and those in other pods are not "
            "over; run pipeline tuning with --set tuning.sampler=random, and training as well"
        )


def _section(section: Section) -> dict[str, Any]:
    return section.model_dump(mode="json", exclude_none=True)


def digest_of(value: Any) -> str:
    """Names a value by its content (hex SHA-256)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _production_model(store: ModelStore, inputs_digest: str) -> str:
    """Gives the URI of the model that a new one is measured against; empty: there is none.

    When the latest model came from exactly these inputs, it is what this run would make again: then the
    one that it replaced is meant, so that an unchanged rerun does nothing twice.
    """
    latest = store.latest()
    if latest is None:
        return ""
    card = store.card(latest)
    version = card.parent if card.inputs_digest == inputs_digest else latest
    return store.uri_of(version) if version else ""
