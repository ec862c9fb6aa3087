"""What the platform consists of, as `manifests/platform/sources.toml` pins it."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pipelines.environments import ROOT

PLATFORM = ROOT / "manifests" / "platform"
VENDORED = PLATFORM / "vendor"

_Version = Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
_Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# Inside the repository, and not out of it.
_Folder = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][\w.-]*(/[A-Za-z0-9_-][\w.-]*)*$")]


class _Pinned(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Pinned):
    """Folders of a git repository at one commit."""

    name: _Folder
    version: str
    """The tag at the commit."""
    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    """Owner and name."""
    commit: _Commit
    licence: str
    folders: tuple[_Folder, ...]
    """What is fetched."""
    entries: tuple[_Folder, ...]
    """The folders that kustomize renders."""


class Tool(_Pinned):
    """A program that is downloaded where there is none."""

    version: _Version
    oldest: _Version
    """What is good enough where PATH has it."""
    url: str
    """With `{version}`, `{system}` and `{machine}`."""
    sha256: Mapping[str, _Sha256]
    """By system and machine, e.g. `linux-amd64`."""


class Node(_Pinned):
    """The node of the cluster."""

    image: Annotated[str, Field(pattern=r"@sha256:[0-9a-f]{64}$")]


class Platform(_Pinned):
    """All that is pinned."""

    node: Node
    sources: Annotated[tuple[Source, ...], Field(alias="source")]
    tools: Mapping[str, Tool]

    def source(self, name: str) -> Source:
        """Gives a source by its name."""
        return next(source for source in self.sources if source.name == name)


def load(path: Path = PLATFORM / "sources.toml") -> Platform:
    """Reads the file; what it says must be whole."""
    return Platform.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
