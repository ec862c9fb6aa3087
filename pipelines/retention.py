"""`python -m pipelines prune`: removes what nobody needs any more; first it only tells."""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from components import storage
from components.errors import InputError
from components.model_store import ModelStore
from components.settings import Deployment, Retention
from pipelines.environments import ROOT
from pipelines.kubeflow.api import Api, quoted
from pipelines.kubeflow.options import Connect, ProjectArgument, connected
from pipelines.kubeflow.runs import RUNS, list_runs
from pipelines.project import LoadedProject, load_project

_out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 1000)

_DAY_FOLDER = re.compile(r"(\d{4}-\d{2}-\d{2})")
_RUN_FOLDER = r"{name}-(\d{{8}}-\d{{6}})-\d+"


@dataclass(frozen=True)
class Item:
    """Something that may go."""

    kind: str
    """model, log, run or cluster run."""
    what: str
    why: str
    bytes: int
    """0: unknown."""
    remove: Callable[[], object] = field(repr=False, compare=False)


@connected
def prune(
    api: Connect,
    project: ProjectArgument,
    apply: Annotated[bool, typer.Option("--apply", help="Remove it; without this, only tell.")] = False,
    runs: Annotated[Path, typer.Option(help="Folder of the local runs.")] = ROOT / "runs",
    cluster: Annotated[
        bool | None,
        typer.Option(
            "--cluster/--no-cluster",
            help="Spare what the cluster serves, and prune runs there, too; default: as deployment.target says.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Remove old models, logs and runs, as section `retention` says; without --apply, only tell what would go.

    A version in production, the one before it, and one that is served always stay; of others the files go, and what
    lineage needs stays.
    """
    loaded = load_project(project)
    settings = loaded.settings
    asks = settings.deployment.target == "kserve" if cluster is None else cluster
    now = datetime.now(UTC)
    items = [*old_models(loaded, asks), *old_logs(loaded, now), *old_runs(settings.name, settings.retention, runs, now)]
    if asks:
        items += old_cluster_runs(api(), settings.name, settings.retention, now)
    if apply:
        for item in items:
            item.remove()
    _print(items, apply, as_json)


def old_models(project: LoadedProject, asks_cluster: bool) -> Iterator[Item]:
    """Yields versions whose files may go.

    Raises:
        UnavailableError, InputError: the cluster, which is asked, does not say what it serves.
    """
    settings = project.settings
    store = ModelStore(project.resolve(settings.publication.store), settings.name)
    keep = settings.retention.models
    stay = {*store.protected(), *store.retired()}
    stay |= _served(settings.deployment, settings.name) if asks_cluster else set()
    for card in store.cards()[:-keep]:
        if card.version in stay:
            continue
        yield Item(
            "model",
            store.uri_of(card.version),
            f"{keep} newer versions (retention.models)",
            _size(store.uri_of(card.version)),
            lambda version=card.version: store.retire(version),  # type: ignore[misc]
        )


def old_logs(project: LoadedProject, now: datetime) -> Iterator[Item]:
    """Yields days of the request log."""
    days, uri = project.settings.retention.log_days, project.settings.monitoring.log.source
    if days is None or not uri or project.settings.monitoring.log.format != "lockgate":
        return
    uri = project.resolve(uri)
    fs, root = storage.filesystem(uri)
    with storage.reaching(uri):
        names = [path.rstrip("/").rpartition("/")[2] for path in fs.ls(root, detail=False)] if fs.exists(root) else []
    oldest = f"{now - timedelta(days=days):%Y-%m-%d}"
    for name in sorted(name for name in names if _DAY_FOLDER.fullmatch(name) and name < oldest):
        folder = f"{uri.rstrip('/')}/{name}"
        why = f"older than {days} days (retention.log_days)"
        yield Item("log", folder, why, _size(folder), lambda folder=folder: _remove(folder))  # type: ignore[misc]


def old_runs(name: str, retention: Retention, runs: Path, now: datetime) -> Iterator[Item]:
    """Yields local runs of a project; what is cached of them is made again when a run needs it."""
    if retention.run_days is None or not runs.is_dir():
        return
    form = re.compile(_RUN_FOLDER.format(name=re.escape(name)))
    oldest = f"{now - timedelta(days=retention.run_days):%Y%m%d-%H%M%S}"
    for folder in sorted(path for path in runs.iterdir() if path.is_dir()):
        match = form.fullmatch(folder.name)
        if match and match[1] < oldest:
            why = f"older than {retention.run_days} days (retention.run_days)"
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            yield Item("run", str(folder), why, size, lambda folder=folder: shutil.rmtree(folder))  # type: ignore[misc]


def old_cluster_runs(api: Api, name: str, retention: Retention, now: datetime) -> Iterator[Item]:
    """Yields runs of a project on Kubeflow Pipelines that are over; what they stored is the bucket's to keep or not."""
    if retention.run_days is None:
        return
    oldest = now - timedelta(days=retention.run_days)
    for run in list(list_runs(api, description__contains=f"project={name}")):
        if run.tags.get("project") == name and run.is_over and run.created < oldest:
            path = f"{RUNS}/{quoted(run.id)}"
            why = f"older than {retention.run_days} days (retention.run_days)"
            yield Item("cluster run", f"{run.name} ({run.id})", why, 0, lambda path=path: api.delete(path))  # type: ignore[misc]


def _served(deployment: Deployment, name: str) -> set[str]:
    from pipelines.deployments import served

    try:
        return {version for _, version, _ in served(deployment, deployment.service or name)}
    except InputError as error:
        raise InputError(f"what is served must not go, and: {error}; give --no-cluster if nothing is") from error


def _size(uri: str) -> int:
    fs, path = storage.filesystem(uri)
    with storage.reaching(uri):
        return int(fs.du(path)) if fs.exists(path) else 0


def _remove(uri: str) -> None:
    fs, path = storage.filesystem(uri)
    with storage.reaching(uri):
        fs.rm(path, recursive=True)


def _print(items: Sequence[Item], apply: bool, as_json: bool) -> None:
    if as_json:
        found = [{name: value for name, value in asdict(item).items() if name != "remove"} for item in items]
        typer.echo(json.dumps({"removed": apply, "items": found}, indent=1, ensure_ascii=False))
        return
    if not items:
        _out.print("nothing is old enough to go")
        return
    table = Table("", "", "size", "because of", box=None, show_header=True)
    for item in items:
        table.add_row(item.kind, item.what, decimal(item.bytes) if item.bytes else "", item.why)
    _out.print(table)
    total = decimal(sum(item.bytes for item in items))
    _out.print(f"{len(items)} things, {total}: {'removed' if apply else 'nothing was removed yet; add --apply'}")
