"""Kubernetes objects from kustomizations, and the images that they name."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipelines.environments import ROOT

Object = dict[str, Any]

KIND = ROOT / "manifests" / "kind"
SUITE = ROOT / "manifests" / "suite"

_LATEST = ":latest"
_EXECUTOR = "--executor-image"
_FIRST = ("Namespace", "CustomResourceDefinition")


def kustomization(folder: Path, resources: Sequence[Path], components: Sequence[Path]) -> Path:
    """Writes a kustomization that puts components on top of resources; both may lie anywhere."""
    folder.mkdir(parents=True, exist_ok=True)

    def relative(paths: Sequence[Path]) -> list[str]:
        return [os.path.relpath(path.resolve(), folder.resolve()) for path in paths]

    content = {"resources": relative(resources), "components": relative(components)}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


def parse(text: str) -> list[Object]:
    """Reads the objects of a stream of YAML documents."""
    return [document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]


def bundle(objects: Iterable[Object]) -> str:
    """Writes objects as one that kubectl takes."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


def split(objects: Iterable[Object]) -> tuple[list[Object], list[Object]]:
    """Gives what must be there before the rest, and the rest."""
    every = list(objects)
    return [one for one in every if one["kind"] in _FIRST], [one for one in every if one["kind"] not in _FIRST]


def change_images(objects: Iterable[Object], change: Callable[[str], str]) -> None:
    """Changes the images of objects in place: of containers, and those that controllers start later.

    Where the image has a tag, the node's own copy is good enough.
    """
    for one in objects:
        if one["kind"] != "CustomResourceDefinition":
            _change(one, change)


def images_of(objects: Iterable[Object]) -> list[str]:
    """Names the images of objects, each once; those without a tag are defaults that somebody completes."""
    found: dict[str, None] = {}

    def note(image: str) -> str:
        found[image] = None
        return image

    change_images(objects, note)
    return [image for image in found if ":" in image.rpartition("/")[2]]


def mirrored(image: str, registry: str) -> str:
    """Spells an image as a mirror has it: its registry replaced, its path kept."""
    host, slash, path = image.partition("/")
    if not slash:
        path = f"library/{image}"  # Docker's own way to write the official images
    elif "." not in host and ":" not in host and host != "localhost":
        path = image
    return f"{registry.rstrip('/')}/{path}"


def pinned(image: str, prefix: str, version: str) -> str:
    """Gives an image of a release its tag, where upstream's manifests say `latest`."""
    if image.startswith(prefix) and image.endswith(_LATEST):
        return f"{image.removesuffix(_LATEST)}:{version}"
    return image


def _change(node: Any, change: Callable[[str], str]) -> None:
    if isinstance(node, list):
        for index, value in enumerate(node):
            if isinstance(value, str) and index and node[index - 1] == _EXECUTOR:
                node[index] = change(value)
            else:
                _change(value, change)
    elif isinstance(node, dict):
        if str(node.get("name", "")).endswith("_IMAGE") and isinstance(node.get("value"), str):
            node["value"] = change(node["value"])
        for key, value in node.items():
            if isinstance(value, str):
                node[key] = change(value) if _names_image(key, value) else _in_json(value, change)
            else:
                _change(value, change)
        if node.get("imagePullPolicy") == "Always" and not str(node.get("image", _LATEST)).endswith(_LATEST):
            node["imagePullPolicy"] = "IfNotPresent"


def _names_image(key: str, value: str) -> bool:
    return key.lower().endswith("image") and bool(value) and not value.startswith("{")


def _in_json(text: str, change: Callable[[str], str]) -> str:
    """Changes the images in a setting that is JSON, as KServe's are."""
    if not text.lstrip().startswith("{") or "image" not in text.lower():
        return text
    try:
        inner = json.loads(text)
    except ValueError:
        return text
    _change(inner, change)
    return json.dumps(inner, indent=2)
