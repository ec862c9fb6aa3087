"""`python -m pipelines lineage`: which data made a model, which models saw a span, what is served where."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from components.errors import InputError, LockgateError
from components.model_card import ModelCard
from components.model_store import ModelStore
from components.settings import Deployment
from pipelines.project import load_project

_out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 1000)
_err = Console(stderr=True, highlight=False, soft_wrap=True)

_ANSWER_SECONDS = 10.0
_SHOWN_FILES = 12


@dataclass(frozen=True)
class Place:
    """Where a version answers requests, or is meant to."""

    where: str
    """E.g. production, or service flights in namespace lockgate."""
    version: str
    share: int
    """Of the traffic, in percent."""


@dataclass(frozen=True)
class Origin:
    """What made a version, and what became of it."""

    version: str
    uri: str
    created: str
    run: str
    inputs_digest: str
    model: dict[str, Any]
    source: str
    spans: list[str]
    rows: dict[str, int]
    data_digest: str
    files: list[dict[str, Any]]
    """uri, span, rows, bytes and digest of each."""
    schema_digest: str
    code: str
    """Version, registry and tag."""
    parents: list[str]
    """What was in production when it was trained, what was before that, and so on."""
    children: list[str]
    """Those that were measured against it."""
    promotions: list[dict[str, str]]
    retired: str
    """When its files went; empty: they are there."""
    served: list[Place]


@dataclass(frozen=True)
class Use:
    """A version that saw some data."""

    version: str
    created: str
    files: list[str]
    """That it saw, of those that were asked for."""
    rows: int
    """In them."""
    retired: str
    served: list[Place]


def lineage(
    target: Annotated[
        str,
        typer.Argument(
            help="A version (v0007, 7, latest), or data: a span such as 2013-05, a file's name or URI, or a digest."
        ),
    ] = "latest",
    project: Annotated[
        Path | None, typer.Option(help="A pipeline.yaml, or its folder; names store and model.", show_default=False)
    ] = None,
    store: Annotated[str | None, typer.Option(help="The store: a path, gs:// or s3://.", show_default=False)] = None,
    name: Annotated[str | None, typer.Option(help="The model's name in the store.", show_default=False)] = None,
    cluster: Annotated[
        bool | None,
        typer.Option(
            "--cluster/--no-cluster",
            help="Ask the cluster what it serves; default: as deployment.target says.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell which data made a model, or which models saw some data, and what is served where."""
    deployment, service = Deployment(), name or ""
    if project is not None:
        loaded = load_project(project)
        settings = loaded.settings
        store = store or loaded.resolve(settings.publication.store)
        name = name or settings.name
        deployment, service = settings.deployment, settings.deployment.service or name
    if store is None or name is None:
        raise InputError("which store? give --project PATH, or --store URI and --name NAME")
    opened = ModelStore(store, name)
    asked = deployment.target == "kserve" if cluster is None else cluster
    places = [*_in_production(opened), *(_on_cluster(deployment, service) if asked else ())]
    if card := _card_of(opened, target):
        found = origin_of(opened, card, places)
        typer.echo(json.dumps(asdict(found), indent=1, ensure_ascii=False)) if as_json else _print_origin(found)
        return
    uses = uses_of(opened, target, places)
    typer.echo(json.dumps([asdict(use) for use in uses], indent=1)) if as_json else _print_uses(target, uses)


def origin_of(store: ModelStore, card: ModelCard, places: Sequence[Place]) -> Origin:
    """Tells what made a version."""
    cards = {one.version: one for one in store.cards()}
    retirement = store.retired().get(card.version)
    return Origin(
        version=card.version,
        uri=store.uri_of(card.version),
        created=_minute(card),
        run=card.run_name,
        inputs_digest=card.inputs_digest,
        model=card.model,
        source=card.data.source,
        spans=card.data.spans,
        rows=card.data.splits,
        data_digest=card.data.digest,
        files=[file.model_dump(mode="json") for file in card.data.files],
        schema_digest=card.schema_digest,
        code=f"{card.code.version}, images {card.code.registry}, tag {card.code.image_tag}",
        parents=list(_parents(cards, card)),
        children=[one.version for one in cards.values() if one.parent == card.version],
        promotions=[
            {"action": one.action, "at": f"{one.at:%Y-%m-%d %H:%M}"}
            for one in store.promotions()
            if one.version == card.version
        ],
        retired=f"{retirement.at:%Y-%m-%d %H:%M}" if retirement else "",
        served=[place for place in places if place.version == card.version],
    )


def uses_of(store: ModelStore, target: str, places: Sequence[Place]) -> list[Use]:
    """Lists the versions that saw some data, oldest first.

    Raises:
        InputError: no version did; says what they saw.
    """
    cards, retired = store.cards(), store.retired()
    uses = []
    for card in cards:
        files = [file for file in card.data.files if _is_meant(target, file.uri, file.span, file.digest)]
        if not files and target != card.data.digest:
            continue
        files = files or card.data.files
        retirement = retired.get(card.version)
        uses.append(
            Use(
                version=card.version,
                created=_minute(card),
                files=[file.uri for file in files],
                rows=sum(file.rows for file in files),
                retired=f"{retirement.at:%Y-%m-%d %H:%M}" if retirement else "",
                served=[place for place in places if place.version == card.version],
            )
        )
    if not uses:
        spans = sorted({span for card in cards for span in card.data.spans})
        saw = f"spans {spans[0]} to {spans[-1]}" if spans else "files without spans" if cards else "nothing"
        raise InputError(
            f"'{target}' is no version of model '{store.name}' in '{store.uri}', and none was made of it (they saw "
            f"{saw}); name a version, a span, a file or a digest"
        )
    return uses


def _card_of(store: ModelStore, target: str) -> ModelCard | None:
    """Finds a version; what could be a span, too, such as 2013, is one only if there are so many versions."""
    try:
        return store.card(target)
    except InputError:
        if target == "latest":
            raise
        return None


def _is_meant(target: str, uri: str, span: str, digest: str) -> bool:
    return target in (uri, uri.rstrip("/").rpartition("/")[2], span, digest) or (
        bool(span) and (span.startswith((f"{target}-", f"{target}T")) or target.startswith((f"{span}-", f"{span}T")))
    )


def _parents(cards: dict[str, ModelCard], card: ModelCard) -> Iterator[str]:
    seen = {card.version}
    while card.parent and card.parent not in seen:
        yield card.parent
        seen.add(card.parent)
        if card.parent not in cards:
            return
        card = cards[card.parent]


def _in_production(store: ModelStore) -> Iterator[Place]:
    if latest := store.latest():
        yield Place("production", latest, 100)


def _on_cluster(deployment: Deployment, service: str) -> Iterator[Place]:
    """Asks the cluster; what it does not tell is said, and the rest goes on."""
    from pipelines.deployments import served  # it imports the Kubernetes client

    try:
        yield from (Place(where, version, share) for where, version, share in served(deployment, service))
    except LockgateError as error:
        _err.print(f"the cluster does not say what it serves: {error}", markup=False)


def _minute(card: ModelCard) -> str:
    return f"{card.created:%Y-%m-%d %H:%M}"


# -------------------------------------------------------------------------------------------- printing


def _print_origin(origin: Origin) -> None:
    lines = [
        ("version", origin.version + (f", retired {origin.retired}" if origin.retired else "")),
        ("files", origin.uri if not origin.retired else "gone"),
        ("published", origin.created),
        ("model", ", ".join(f"{key} {value}" for key, value in origin.model.items()) or "–"),
        ("run", origin.run),
        ("data", origin.source or "–"),
        ("spans", _listed(origin.spans)),
        ("rows", ", ".join(f"{split} {rows:,}" for split, rows in origin.rows.items())),
        ("digest", origin.data_digest),
        ("schema", origin.schema_digest),
        ("code", origin.code),
        ("before it", " ← ".join(origin.parents) or "nothing"),
        ("after it", ", ".join(origin.children) or "nothing"),
        ("history", ", ".join(f"{one['action']} {one['at']}" for one in origin.promotions) or "–"),
        ("served", _served(origin.served) or "nowhere"),
    ]
    for label, text in lines:
        _out.print(f"{label:<10}{text}", markup=False)
    if not origin.files:
        return
    table = Table("span", "file", "rows", "bytes", "digest", box=None)
    for file in origin.files[:_SHOWN_FILES]:
        table.add_row(file["span"], file["uri"], f"{file['rows']:,}", f"{file['bytes']:,}", file["digest"][:12])
    _out.print()
    _out.print(table)
    if len(origin.files) > _SHOWN_FILES:
        _out.print(f"and {len(origin.files) - _SHOWN_FILES} more files; --json lists all")


def _print_uses(target: str, uses: Sequence[Use]) -> None:
    table = Table("version", "published", "files", "rows", "served", box=None)
    for use in uses:
        state = "files retired " + use.retired if use.retired else _served(use.served)
        table.add_row(
            use.version, use.created, _listed([Path(file).name for file in use.files]), f"{use.rows:,}", state
        )
    _out.print(f"{len(uses)} versions saw {target}" if len(uses) > 1 else f"1 version saw {target}", markup=False)
    _out.print(table)


def _listed(values: Sequence[str]) -> str:
    if not values:
        return "–"
    return values[0] if len(values) == 1 else f"{values[0]} … {values[-1]} ({len(values)})"


def _served(places: Sequence[Place]) -> str:
    return ", ".join(place.where if place.share == 100 else f"{place.where} ({place.share} %)" for place in places)
