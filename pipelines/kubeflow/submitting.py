"""Starts runs: the arguments, the pipeline as a version named by its content, the run."""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from components import storage
from components.errors import InputError
from pipelines import compiled
from pipelines.kubeflow.api import AlreadyThereError, Api, NotFoundError, Object, matching, quoted
from pipelines.kubeflow.runs import RUNS, Run, read_run, write_tags
from pipelines.project import LoadedProject, ProjectError

MAX_ARGUMENT_BYTES = 120_000
"""KFP hands all arguments of a run to its first pod at once, as JSON within JSON, which may have 131,072 bytes with the
root of the pipeline (4 KB): for more, Argo wants to make a ConfigMap, which KFP does not let it do."""

_PIPELINES = "/apis/v2beta1/pipelines"
_EXPERIMENTS = "/apis/v2beta1/experiments"


@dataclass(frozen=True)
class Version:
    """An uploaded pipeline."""

    pipeline: str
    name: str
    pipeline_id: str
    version_id: str
    new: bool

    @property
    def reference(self) -> Object:
        """As a run names it."""
        return {"pipeline_id": self.pipeline_id, "pipeline_version_id": self.version_id}


@dataclass(frozen=True)
class Request:
    """What a run is started with besides its arguments."""

    pipeline_root: str = ""
    service_account: str = ""


def require_reachable(project: LoadedProject, to_predict: bool = False) -> None:
    """Checks that data and model store, and where predictions go, are where a cluster reaches them.

    Raises:
        ProjectError: one is on this machine.
    """
    settings = project.settings
    places = {
        "data.source": (project.resolve(settings.data.source), "s3://bucket/data/flights-{YYYY}-{MM}.parquet"),
        "publication.store": (project.resolve(settings.publication.store), "s3://bucket/models"),
    }
    log = settings.monitoring.log.source
    if log:
        places["monitoring.log.source"] = (project.resolve(log), "s3://bucket/requests")
    if to_predict:
        batch = settings.batch
        if batch.source:
            places["batch.source"] = (project.resolve(batch.source), "s3://bucket/rows/flights-{YYYY}-{MM}.parquet")
            del places["data.source"]
        target = project.resolve(batch.output.target)
        is_file = target.startswith("sqlite:")
        places["batch.output.target"] = ("sqlite" if is_file else target, "s3://bucket/predictions")
    faults = [
        f"{key}: '{uri}' is on this machine, and the cluster cannot reach it; put it into a bucket and say where: "
        f"--set {key}={example} (or gs://)"
        for key, (uri, example) in places.items()
        if not storage.is_remote(uri)
    ]
    if faults:
        raise ProjectError(faults)


def require_small(arguments: Mapping[str, Any]) -> None:
    """Checks that the arguments fit.

    Raises:
        InputError: they do not; the largest are named.
    """
    sizes = {name: _size({name: value}) for name, value in arguments.items()}
    total = _size(dict(arguments))
    if total > MAX_ARGUMENT_BYTES:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        shown = ", ".join(f"{name} {sizes[name]:,}" for name in largest)
        raise InputError(
            f"the arguments of the run take {total:,} bytes (limit: {MAX_ARGUMENT_BYTES:,}); the largest: {shown}; "
            "make the schema or the user module smaller"
        )


def uncached(text: str) -> str:
    """Takes the cache away from every task of a compiled pipeline.

    KFP's client would do so at the root only, and leave the tasks inside exit handlers and conditions alone.
    """
    documents = compiled.documents(text)
    for task in _tasks(documents[0]):
        task["cachingOptions"] = {}
    return written(documents)


def written(documents: list[Any]) -> str:
    """Writes a compiled pipeline."""
    return str(yaml.dump_all(documents, Dumper=yaml.CSafeDumper, sort_keys=False, width=1000))


def _tasks(spec: Object) -> Iterator[Object]:
    for component in (spec["root"], *spec["components"].values()):
        yield from component.get("dag", {}).get("tasks", {}).values()


def images_in(text: str) -> tuple[str, str]:
    """Gives registry and tag of a compiled pipeline's images."""
    spec = compiled.documents(text)[0]
    image = next(iter(spec["deploymentSpec"]["executors"].values()))["container"]["image"]
    name, _, tag = image.rpartition(":")
    return name.rpartition("/")[0], tag


def read_compiled(path: Path) -> str:
    """Reads a compiled pipeline.

    Raises:
        InputError: it is none.
    """
    if not path.is_file():
        raise InputError(f"--compiled: '{path}' is no file")
    try:
        text = path.read_text(encoding="utf-8")
        whole = {"root", "components", "deploymentSpec", "pipelineInfo"} <= compiled.documents(text)[0].keys()
    except (UnicodeDecodeError, yaml.YAMLError, IndexError, AttributeError):
        whole = False
    if not whole:
        raise InputError(f"--compiled: '{path}' is no compiled pipeline; see pipelines/compiled/")
    return text


def upload(api: Api, text: str, tags: Mapping[str, str]) -> Version:
    """Uploads a compiled pipeline under a name made of its content, unless it is there already."""
    info = compiled.documents(text)[0]["pipelineInfo"]
    pipeline = f"lockgate-{info['name']}"
    name = f"{images_in(text)[1]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    pipeline_id = _pipeline_id(api, pipeline, info.get("description", ""))
    versions = f"{_PIPELINES}/{quoted(pipeline_id)}/versions"
    found = next(api.everything(versions, "pipeline_versions", filter=matching(name=name)), None)
    if found:
        return Version(pipeline, name, pipeline_id, found["pipeline_version_id"], new=False)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pipeline.yaml")
        file.write_text(text, encoding="utf-8")
        try:
            made = api.upload(
                f"{_PIPELINES}/upload_version",
                str(file),
                name=name,
                pipelineid=pipeline_id,
                tags=json.dumps(dict(tags)) if tags else "",
            )
        except AlreadyThereError:  # somebody else was faster
            return upload(api, text, tags)
    return Version(pipeline, name, pipeline_id, made["pipeline_version_id"], new=True)


def find_pipeline(api: Api, name: str) -> Object:
    """Finds a pipeline by its name; without our prefix too.

    Raises:
        InputError: there is none.
    """
    for candidate in (name, f"lockgate-{name}"):
        found = next(api.everything(_PIPELINES, "pipelines", filter=matching(name=candidate)), None)
        if found:
            return found
    names = ", ".join(one.get("display_name", "") for one in api.everything(_PIPELINES, "pipelines")) or "none"
    raise InputError(f"{api.tried} has no pipeline '{name}' (there are: {names})")


def list_pipelines(api: Api) -> Iterator[Object]:
    """Lists the pipelines, newest first."""
    return api.everything(_PIPELINES, "pipelines")


def list_versions(api: Api, pipeline_id: str) -> Iterator[Object]:
    """Lists the versions of a pipeline, newest first."""
    return api.everything(f"{_PIPELINES}/{quoted(pipeline_id)}/versions", "pipeline_versions")


def _pipeline_id(api: Api, name: str, description: str) -> str:
    found = next(api.everything(_PIPELINES, "pipelines", filter=matching(name=name)), None)
    if found is None:
        body = {"name": name, "display_name": name, "description": description, "namespace": api.namespace}
        try:
            found = api.post(_PIPELINES, body)
        except AlreadyThereError:
            return _pipeline_id(api, name, description)
    return str(found["pipeline_id"])


def experiment_id(api: Api, name: str, make: bool = True) -> str:
    """Finds an experiment by its name, or makes it.

    Raises:
        NotFoundError: it is not there, and none is made.
    """
    filters = matching(display_name=name, storage_state="AVAILABLE")
    found = next(api.everything(_EXPERIMENTS, "experiments", filter=filters), None)
    if found is None and not make:
        names = ", ".join(one.get("display_name", "") for one in api.everything(_EXPERIMENTS, "experiments"))
        raise NotFoundError(f"there is no experiment '{name}' (there are: {names or 'none'})")
    if found is None:
        try:
            found = api.post(_EXPERIMENTS, {"display_name": name, "namespace": api.namespace})
        except AlreadyThereError:
            found = next(api.everything(_EXPERIMENTS, "experiments", filter=matching(display_name=name)), None)
            if found is None or found.get("storage_state") == "ARCHIVED":
                raise InputError(f"experiment '{name}' is archived; restore it, or give another --experiment") from None
    return str(found["experiment_id"])


def start(
    api: Api,
    version: Version,
    arguments: Mapping[str, Any],
    name: str,
    experiment: str,
    tags: Mapping[str, str],
    request: Request,
) -> Run:
    """Starts a run."""
    body = {
        "display_name": name,
        "description": write_tags(tags),
        "experiment_id": experiment_id(api, experiment),
        "pipeline_version_reference": version.reference,
        "runtime_config": runtime_config(arguments, request),
        "service_account": request.service_account,
    }
    return read_run(api.post(RUNS, body))


def runtime_config(arguments: Mapping[str, Any], request: Request) -> Object:
    """Gives the part of a request that holds the arguments."""
    found: Object = {"parameters": dict(arguments)}
    if request.pipeline_root:
        found["pipeline_root"] = request.pipeline_root
    return found


def timestamped(name: str) -> str:
    """Makes a run's name of a project's."""
    return f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def text_of(pipeline: str, registry: str, tag: str) -> str:
    """Reads one of the pipelines here, with the images that it shall run."""
    return compiled.read(pipeline, registry, tag or compiled.content_tag())


def _size(value: Any) -> int:
    """Gives the bytes of a value as JSON text within JSON text."""
    inner = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return len(json.dumps(inner, ensure_ascii=False).encode())
