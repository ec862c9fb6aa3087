"""What is in the images: an SBOM (CycloneDX) beside each Dockerfile, and the licences that may be in one."""

import json
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.environments import ROOT

_LICENCES = ROOT / "containers" / "licences.toml"
# What identifies a package and says what may be done with it. The rest (links, descriptions) changes without
# a change of the package.
_KEPT = ("type", "bom-ref", "name", "version", "purl", "licenses")


def bill_path(image: str) -> Path:
    """Gives the file that holds an image's SBOM."""
    return ROOT / "containers" / image / "sbom.cdx.json"


def write_bill(image: str, made: str) -> None:
    """Keeps the SBOM that an image's build made, reduced to packages, licences and dependencies.

    Args:
        image: name of the image.
        made: CycloneDX JSON.
    """
    bill = json.loads(made)
    kept = {name: bill[name] for name in ("bomFormat", "specVersion", "version")}
    kept["components"] = [
        {name: component[name] for name in _KEPT if name in component} for component in bill["components"]
    ]
    kept["dependencies"] = bill["dependencies"]
    bill_path(image).write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def packages(image: str) -> dict[str, str]:
    """Gives the version of every package of an image, by its normalised name."""
    return {normalised(name): version for name, version, _ in _components(image)}


def normalised(name: str) -> str:
    """Gives a package's name as locks spell it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licences(image: str) -> dict[str, list[str]]:
    """Gives the packages of an image by licence; what a package does not declare is taken from licences.toml."""
    found: dict[str, list[str]] = {}
    for name, _, declared in _components(image):
        for licence in declared or [_rules()["undeclared"].get(normalised(name), "none")]:
            found.setdefault(licence, []).append(name)
    return dict(sorted(found.items()))


def refused(image: str) -> list[str]:
    """Lists what may not be in an image: packages under a licence that the allow-list does not name."""
    allowed = set(_rules()["allowed"])
    return [
        f"package '{name}' is under the licence '{licence}', which is not allowed"
        for licence, names in licences(image).items()
        if licence not in allowed
        for name in names
    ]


@cache
def _rules() -> dict[str, Any]:
    return tomllib.loads(_LICENCES.read_text(encoding="utf-8"))


def _components(image: str) -> Iterator[tuple[str, str, list[str]]]:
    for component in json.loads(bill_path(image).read_text(encoding="utf-8"))["components"]:
        entries = component.get("licenses", [])
        # Many packages declare an SPDX expression and, from earlier days, a classifier beside it.
        precise = [entry for entry in entries if "expression" in entry or "id" in entry["license"]]
        yield component["name"], component["version"], [_licence(entry) for entry in precise or entries]


def _licence(entry: dict[str, Any]) -> str:
    licence = entry.get("license", {})
    name: str = entry.get("expression") or licence.get("id") or licence["name"]
    return name.removeprefix("License :: OSI Approved :: ")
