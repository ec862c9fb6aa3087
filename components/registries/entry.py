"""What a registry is told of a version: the same whichever registry it is."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from components import storage
from components.model_card import ModelCard
from components.model_store import ModelStore

PREFIX = "lockgate."
"""Of every tag and property that is ours."""
_LONGEST_VALUE = 2000


@dataclass(frozen=True)
class Entry:
    """A version of a model."""

    name: str
    """Of the model."""
    version: str
    uri: str
    """Of its folder in the model store."""
    created: datetime
    description: str
    owner: str
    metrics: dict[str, float]
    parameters: dict[str, str]
    """Kind and hyperparameters."""
    lineage: dict[str, str]
    """What made it: digests, data, code, parent; empty values are left out."""
    retired: bool
    """Its files are gone."""


@dataclass(frozen=True)
class Exported:
    """What an export did."""

    where: str
    """The version in the registry."""
    changes: list[str]
    """In words; empty: all was there already."""


def entry_of(store: ModelStore, version: str) -> Entry:
    """Reads a version from the store.

    Args:
        store: the model store.
        version: `v0007-1a2b3c4d`, `v0007`, `7` or `latest`.
    """
    card = store.card(version)
    values = {name: value for name, value in card.evaluation.metrics.items() if value is not None}
    if card.evaluation.decision_threshold is not None:
        values["decision_threshold"] = card.evaluation.decision_threshold
    return Entry(
        name=card.name,
        version=card.version,
        uri=_global(store.uri_of(card.version)),
        created=card.created,
        description=card.description,
        owner=card.owner,
        metrics=values,
        parameters={name: _cut(str(value)) for name, value in _leaves(card.model)},
        lineage={name: _cut(value) for name, value in _lineage(card).items() if value},
        retired=card.version in store.retired(),
    )


def _lineage(card: ModelCard) -> dict[str, str]:
    data, code, spans = card.data, card.code, card.data.spans
    return {
        "model_digest": card.model_digest,
        "inputs_digest": card.inputs_digest,
        "schema_digest": card.schema_digest,
        "data_digest": data.digest,
        "data_source": data.source,
        "data_spans": f"{spans[0]} … {spans[-1]} ({len(spans)})" if len(spans) > 1 else "".join(spans),
        "data_files": str(len(data.files)) if data.files else "",
        **{f"rows_{split}": str(rows) for split, rows in data.splits.items()},
        "run": card.run_name,
        "parent": card.parent or "",
        "code_version": code.version,
        "image_tag": code.image_tag,
        **{f"library_{name}": version for name, version in code.libraries.items()},
        "verdict": card.evaluation.verdict,
    }


def _global(uri: str) -> str:
    """Adds to a local path the machine that it is on (RFC 8089), without which nobody else can read it."""
    return uri if storage.is_remote(uri) else f"file://{socket.gethostname()}{Path(uri).resolve().as_posix()}"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
