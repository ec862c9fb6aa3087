"""The compiled pipelines: committed YAML that a laptop, a kind cluster and any Kubeflow get alike."""

import hashlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from components import images
from components.errors import InputError
from pipelines.environments import ALL, ROOT

_CODE = {".py", ".jinja", ".html"}
_BUILD = {"Dockerfile", "install.sh", "slim.py", "requirements.txt", "requirements-tfdv.txt"}

FOLDER = ROOT / "pipelines" / "compiled"

_IMAGE_LINE = re.compile(r"^(\s*image: ).*?([a-z]+):[^:\s]+$", re.MULTILINE)


def names() -> list[str]:
    """Lists the pipelines."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read(name: str, registry: str = images.REGISTRY, tag: str = images.TAG) -> str:
    """Reads a compiled pipeline and puts registry and tag into its images.

    Raises:
        InputError: there is no such pipeline.
    """
    path = FOLDER / f"{name.replace('-', '_')}.yaml"  # Kubeflow's names have dashes
    if not path.is_file():
        raise InputError(f"no pipeline '{name}' (there are: {', '.join(names())})")
    return _IMAGE_LINE.sub(rf"\g<1>{registry}/\g<2>:{tag}", path.read_text(encoding="utf-8"))


def documents(text: str) -> list[Any]:
    """Reads the documents of a compiled pipeline: its specification, then what is Kubernetes' own, if anything."""
    return list(yaml.load_all(text, Loader=yaml.CSafeLoader))  # by libyaml: 8 times as fast as safe_load_all


def inputs(text: str) -> set[str]:
    """Names the arguments that a compiled pipeline takes."""
    return set(documents(text)[0]["root"].get("inputDefinitions", {}).get("parameters", {}))


def without_platform(text: str) -> str:
    """Leaves out how stages run on Kubernetes; Vertex AI's client takes no second document."""
    return text.partition("\n---\n")[0].rstrip("\n") + "\n"


@cache
def code_digest() -> str:
    """Names the code of the stages and how their images are built (hex SHA-256).

    It is part of every image's tag, because KFP's cache keys on the image's name. It is the same on every machine.
    """
    digest = hashlib.sha256()
    for path in sorted(_code_files()):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def content_tag() -> str:
    """Gives the tag for the code as it is: version and content."""
    return f"{images.VERSION}-{code_digest()[:12]}"


def lock_digests() -> dict[str, str]:
    """Gives the digest of every lock that this machine's environments come from."""
    return {e.lock: hashlib.sha256((ROOT / e.lock).read_bytes()).hexdigest() for e in ALL}


def _code_files() -> Iterator[Path]:
    yield from (path for path in (ROOT / "components").rglob("*") if path.suffix in _CODE)
    yield from (path for path in (ROOT / "containers").rglob("*") if path.name in _BUILD)
    yield from (ROOT / "tools").rglob("requirements.txt")
