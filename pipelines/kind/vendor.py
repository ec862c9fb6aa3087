"""Fetches the platform's sources: the folders named, at the commit named, and nothing else."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.errors import InputError, UnavailableError
from pipelines.kind.sources import Source

GIT_SOURCE = "https://github.com"

_STAMP = ".commit"
_REMOTE_BASE = re.compile(
    r"https://github\.com/(?P<repository>[\w.-]+/[\w.-]+)/(?P<path>[^?\s]+)\?ref=(?P<ref>[^&\s]+)\S*"
)
# git serves parts of a repository from a local folder only when it is told that it may.
_SERVE_PARTS = "git -c uploadpack.allowFilter=true -c uploadpack.allowAnySHA1InWant=true upload-pack"


def is_vendored(source: Source, output: Path) -> bool:
    """Tells whether a source is there, at its commit."""
    stamp = output / source.name / _STAMP
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == source.commit


def vendor(source: Source, others: Sequence[Source], origin: str, output: Path) -> None:
    """Fetches a source, whole or not at all.

    git checks every object against its hash, and the commit's hash is the one that is pinned.

    Args:
        source: what to fetch.
        others: that its manifests may name by URL; those names become paths.
        origin: where repositories are: a URL, or a folder of (bare) ones, as `owner/name`, with or without `.git`.
        output: the folder that gets a folder of the source's name.

    Raises:
        InputError: there is no git, or the source is not where `origin` says.
        UnavailableError: it could not be fetched.
    """
    if not shutil.which("git"):
        raise InputError("there is no `git` on PATH; install git, or set MANIFESTS to a folder that has the platform")
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".fetching-") as folder:
        tree = Path(folder, "tree")
        _check_out(source, _address(source, origin), tree)
        taken = Path(folder, source.name)
        for part in source.folders:
            if not (tree / part).is_dir():
                raise InputError(f"{source.repository} has no folder '{part}' at {source.commit}; see sources.toml")
            shutil.copytree(tree / part, taken / part)
        for path in taken.rglob("kustomization.yaml"):
            _localise(path, taken, others)
        (taken / _STAMP).write_text(source.commit, encoding="utf-8")
        shutil.rmtree(output / source.name, ignore_errors=True)
        taken.rename(output / source.name)


def _address(source: Source, origin: str) -> str:
    if "://" in origin:
        return f"{origin.rstrip('/')}/{source.repository}.git"
    candidates = [Path(origin, f"{source.repository}{ending}").resolve() for ending in (".git", "")]
    for candidate in candidates:
        if candidate.is_dir():
            return str(candidate)
    raise InputError(f"GIT_SOURCE has neither {candidates[0]} nor {candidates[1]}; clone it there, or unset GIT_SOURCE")


def _check_out(source: Source, address: str, tree: Path) -> None:
    def git(*arguments: str) -> None:
        done = subprocess.run(
            ["git", "-c", "advice.detachedHead=false", "-C", str(tree), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
        )
        if done.returncode:
            line = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UnavailableError(f"{source.repository} at {source.commit[:12]} from {address}: {line}; try again")

    tree.mkdir()
    git("init", "--quiet")
    git("remote", "add", "origin", address)
    if "://" not in address:
        git("config", "remote.origin.uploadpack", _SERVE_PARTS)
    git("sparse-checkout", "set", "--no-cone", *(f"/{folder}/" for folder in source.folders))
    git("fetch", "--quiet", "--depth=1", "--filter=blob:none", "--no-tags", "origin", source.commit)
    git("checkout", "--quiet", source.commit)


def _localise(path: Path, taken: Path, others: Sequence[Source]) -> None:
    """Puts paths in the place of URLs of other sources, so that kustomize needs no network.

    Raises:
        InputError: a URL names another version than the one that is pinned.
    """
    depth = len(path.parent.relative_to(taken.parent).parts)

    def local(found: re.Match[str]) -> str:
        for other in others:
            if found["repository"] == other.repository:
                if found["ref"] != other.version:
                    raise InputError(
                        f"{path.relative_to(taken.parent)} wants {other.name} {found['ref']} "
                        f"(pinned: {other.version}); change sources.toml"
                    )
                return f"{'../' * depth}{other.name}/{found['path']}"
        return found[0]

    text = path.read_text(encoding="utf-8")
    changed = _REMOTE_BASE.sub(local, text)
    if changed != text:
        path.write_text(changed, encoding="utf-8")


def missing(sources: Sequence[Source], folder: Path) -> Iterator[str]:
    """Names the entries that a folder lacks."""
    for source in sources:
        for entry in source.entries:
            if not (folder / source.name / entry / "kustomization.yaml").is_file():
                yield f"{source.name}/{entry}"
