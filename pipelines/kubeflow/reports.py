"""Downloads the pages that a run's stages wrote."""

from pathlib import Path
from urllib.parse import urlsplit

from components.artifacts import write_whole
from components.errors import InputError, LockgateError
from components.storage import filesystem, reaching
from pipelines.kubeflow.api import Api, Object
from pipelines.kubeflow.runs import Run, spec_of
from pipelines.kubeflow.watching import Seen

_HTML = "system.HTML"
_SOURCES = {"minio": "minio", "s3": "s3", "gs": "gcs"}
"""What Kubeflow's pages call the scheme of a URI."""


def download(api: Api, run: Run, seen: Seen, folder: Path) -> list[Path]:
    """Downloads a run's pages.

    Args:
        api: to ask.
        run: whose pages.
        seen: how it stands.
        folder: for the pages; it is made.

    Returns:
        The pages, that of the whole run first.

    Raises:
        InputError: there is none, or no way to them.
    """
    uris = pages_of(spec_of(api, run), seen)
    if not uris:
        cached = [seen.labels[step.task] for step in seen.steps.values() if step.state == "cached"]
        why = f"; {', '.join(cached)} came from the cache: look into the run that made them" if cached else ""
        raise InputError(f"run '{run.name}' has written no report yet{why}")
    written = []
    with reaching(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
    for task, uri in uris.items():
        content = _read(api, uri)
        path = folder / ("index.html" if task == "report-run" else f"{task}.html")
        with reaching(str(path)):
            write_whole(path, content.decode("utf-8", "replace"))
        written.append(path)
    return written


def pages_of(spec: Object, seen: Seen) -> dict[str, str]:
    """Gives the URIs of the pages, by task; that of the whole run first."""
    found = {}
    for task, component in _components(spec).items():
        step = seen.steps.get(task)
        artifacts = component.get("outputDefinitions", {}).get("artifacts", {})
        for name, artifact in artifacts.items():
            if artifact["artifactType"].get("schemaTitle") == _HTML and step and step.state == "succeeded":
                found[task] = step.outputs.get(name, "")
    order = sorted(found, key=lambda task: (task != "report-run", list(seen.labels).index(task)))
    return {task: found[task] for task in order if found[task]}


def _components(spec: Object) -> dict[str, Object]:
    components = spec.get("components", {})
    dags = [spec.get("root", {}), *components.values()]
    tasks = {name: task for dag in dags for name, task in dag.get("dag", {}).get("tasks", {}).items()}
    return {name: components[task["componentRef"]["name"]] for name, task in tasks.items()}


def _read(api: Api, uri: str) -> bytes:
    """Reads an artifact: through Kubeflow's pages, which have credentials, else from the object store itself."""
    parts = urlsplit(uri)
    try:
        return api.page(
            "/artifacts/get",
            source=_SOURCES.get(parts.scheme, parts.scheme),
            bucket=parts.netloc,
            key=parts.path.lstrip("/"),
            namespace=api.namespace,
        )
    except LockgateError as error:
        through_pages = error
    direct = uri.replace("minio://", "s3://", 1)
    try:
        fs, path = filesystem(direct)
        with reaching(direct):
            found: bytes = fs.cat_file(path)
    except LockgateError as error:
        raise type(error)(
            f"{error}; through Kubeflow's pages: {through_pages}; give the pages' address as --host, or the object "
            "store's by AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"
        ) from error
    return found
