"""`python -m pipelines models`: what is in a model store, and which version is in production."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Column, Table

from components.errors import InputError
from components.model_card import ModelCard, to_markdown
from components.model_store import ModelStore, Promotion
from pipelines.project import load_project

app = typer.Typer(help="Published models: list, compare, put into production, roll back.", no_args_is_help=True)

# A pipe has no width: nothing is cut off for a program that reads the table.
_out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 1000)

ProjectOption = Annotated[
    Path | None, typer.Option(help="A pipeline.yaml, or its folder; names store and model.", show_default=False)
]
StoreOption = Annotated[str | None, typer.Option(help="The store: a path, gs:// or s3://.", show_default=False)]
NameOption = Annotated[str | None, typer.Option(help="The model's name in the store.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
VersionArgument = Annotated[str, typer.Argument(help="v0007-1a2b3c4d, v0007, 7, or latest.", show_default=False)]


@app.command("list")
def list_(
    project: ProjectOption = None, store: StoreOption = None, name: NameOption = None, as_json: JsonOption = False
) -> None:
    """List the versions, oldest first, and which one is in production."""
    opened = _open(project, store, name)
    cards, latest, retired = opened.cards(), opened.latest(), opened.retired()
    if as_json:
        _print_json([{**_summary(card, latest), "retired": card.version in retired} for card in cards])
        return
    if not cards:
        _out.print(f"no version of model '{opened.name}' in '{opened.uri}'", markup=False)
        return
    table = Table(Column("version", no_wrap=True), "", "published", "parent", "spans", *_main_metrics(cards), box=None)
    for card in cards:
        metrics = [_figure(card.evaluation.metrics.get(metric)) for metric in _main_metrics(cards)]
        published = f"{card.created:%Y-%m-%d %H:%M}"
        state = "in production" if card.version == latest else "retired" if card.version in retired else ""
        table.add_row(card.version, state, published, card.parent or "–", _spans(card), *metrics)
    _out.print(table)


@app.command()
def show(
    version: VersionArgument = "latest",
    project: ProjectOption = None,
    store: StoreOption = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a version's card."""
    opened = _open(project, store, name)
    card = opened.card(version)
    if as_json:
        _print_json({**card.model_dump(mode="json"), "uri": opened.uri_of(card.version)})
        return
    _out.print(to_markdown(card), markup=False)
    _out.print(opened.uri_of(card.version), markup=False)


@app.command()
def diff(
    before: VersionArgument,
    after: VersionArgument = "latest",
    project: ProjectOption = None,
    store: StoreOption = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what differs between two versions."""
    opened = _open(project, store, name)
    old, new = opened.card(before).version, opened.card(after).version
    found = opened.diff(old, new)
    if as_json:
        _print_json([change.model_dump(mode="json") for change in found])
        return
    if not found:
        _out.print(f"{old} and {new} do not differ")
        return
    table = Table("", *(Column(title, overflow="fold") for title in ("", old, new)), box=None)
    for change in found:
        table.add_row(change.topic, *(_cell(value) for value in (change.key, change.before, change.after)))
    _out.print(table)


@app.command()
def promote(
    version: VersionArgument,
    project: ProjectOption = None,
    store: StoreOption = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a version into production."""
    opened = _open(project, store, name)
    promotion = opened.promote(version)
    _print_promotion(opened, promotion, _tell(project, opened, promotion), as_json)


@app.command()
def rollback(
    to: Annotated[str | None, typer.Option(help="Which version; else the one before.", show_default=False)] = None,
    project: ProjectOption = None,
    store: StoreOption = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the version before the current one back into production."""
    opened = _open(project, store, name)
    promotion = opened.rollback(to)
    _print_promotion(opened, promotion, _tell(project, opened, promotion), as_json)


@app.command()
def export(
    to: Annotated[Literal["mlflow", "kubeflow"], typer.Option(help="Which kind of registry.", show_default=False)],
    uri: Annotated[str, typer.Option(help="Its URL; how to log in comes from the environment.", show_default=False)],
    version: Annotated[str, typer.Option(help="v0007-1a2b3c4d, v0007, 7, or latest.")] = "latest",
    every: Annotated[bool, typer.Option("--all", help="All versions, oldest first.")] = False,
    project: ProjectOption = None,
    store: StoreOption = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell a model registry of a version: digest, metrics, parameters, lineage, and what is in production.

    Doing it again changes nothing.
    """
    from components.registries.entry import entry_of
    from components.registries.telling import KINDS

    opened = _open(project, store, name)
    versions = opened.versions() if every else [opened.card(version).version]
    registry = KINDS[to](uri)
    for one in versions:
        done = registry.export(entry_of(opened, one), opened.latest())
        if as_json:
            _print_json({"version": one, "where": done.where, "changes": done.changes})
            continue
        _out.print(f"{one}: {'; '.join(done.changes) or 'all was there already'}", markup=False)
        _out.print(done.where, markup=False)


def _open(project: Path | None, store: str | None, name: str | None) -> ModelStore:
    """Finds the store that the options name; --store and --name win over the project's.

    Raises:
        InputError: they name none.
    """
    if project is not None:
        loaded = load_project(project)
        store = store or loaded.resolve(loaded.settings.publication.store)
        name = name or loaded.settings.name
    if store is None or name is None:
        raise InputError("which store? give --project PATH, or --store URI and --name NAME")
    return ModelStore(store, name)


def _summary(card: ModelCard, latest: str | None) -> dict[str, Any]:
    return {
        "version": card.version,
        "in_production": card.version == latest,
        "created": card.created.isoformat(),
        "parent": card.parent,
        "spans": card.data.spans,
        "metrics": card.evaluation.metrics,
    }


def _main_metrics(cards: list[ModelCard]) -> list[str]:
    """The first metrics of the newest card: as many as fit beside the rest."""
    return list(cards[-1].evaluation.metrics)[:3]


def _spans(card: ModelCard) -> str:
    spans = card.data.spans
    return f"{spans[0]} … {spans[-1]}" if len(spans) > 1 else "".join(spans) or "–"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _cell(value: Any) -> str:
    """Writes a value for a cell, where rich would take [..] for markup."""
    text = "–" if value is None else _figure(value) if isinstance(value, float) else str(value)
    return text.replace("[", r"\[")


def _tell(project: Path | None, store: ModelStore, promotion: Promotion) -> list[str]:
    """Tells the project's model registries what is in production now."""
    if project is None:
        return []
    from components.registries.telling import tell

    return tell(load_project(project).settings.publication.registries, store, promotion.version)


def _print_promotion(store: ModelStore, promotion: Promotion, told: list[str], as_json: bool) -> None:
    if as_json:
        _print_json({**promotion.model_dump(mode="json"), "registries": told})
        return
    for line in (f"in production: {store.uri_of(promotion.version)}", *told):
        _out.print(line, markup=False)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))
