"""`python -m pipelines images`: build the images, push them, list what is in them."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from components import images
from components.errors import InputError, UnavailableError
from pipelines import compiled
from pipelines.bill_of_materials import refused, write_bill
from pipelines.environments import ROOT

app = typer.Typer(help="The images in which stages run: build, push, list their licences.", no_args_is_help=True)

LOGS = ROOT / "build" / "images"
_PYTHON_IMAGE = re.compile(r"^ARG PYTHON_IMAGE=(\S+)$", re.MULTILINE)

_out = Console(highlight=False, soft_wrap=True)

NamesArgument = Annotated[
    list[str] | None, typer.Argument(help=f"Of {', '.join(images.NAMES)}; default: all.", show_default=False)
]
RegistryOption = Annotated[str, typer.Option(help="Registry and folder, e.g. registry.example.com/ml.")]
TagOption = Annotated[str, typer.Option(help="Default: version and content of the code.", show_default=False)]


@app.command()
def build(
    names: NamesArgument = None,
    registry: RegistryOption = images.REGISTRY,
    tag: TagOption = "",
    python_image: Annotated[
        str, typer.Option(envvar="PYTHON_IMAGE", help="Base in place of the official Python image.", show_default=False)
    ] = "",
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Reuse layers that did not change.")] = True,
) -> None:
    """Build images from their locks, print their sizes, and write what is in them (SBOM) beside each Dockerfile."""
    _require_docker()
    tag = tag or compiled.content_tag()
    for name in _checked(names):
        reference = images.reference(name, registry, tag)
        started = time.monotonic()
        _build(name, reference, python_image, cache)
        seconds = time.monotonic() - started
        size = int(_docker("image", "inspect", "--format", "{{.Size}}", reference))
        write_bill(name, _docker("run", "--rm", "--network=none", reference, "cat", "/opt/lockgate/sbom.cdx.json"))
        faults = refused(name)
        if faults:
            raise InputError(f"image '{name}': {faults[0]} ({len(faults)} in all); see containers/licences.toml")
        _out.print(f"{reference}  {size / 1e6:,.0f} MB  ({seconds:.0f} s)", markup=False)


@app.command()
def push(
    names: NamesArgument = None,
    registry: RegistryOption = images.REGISTRY,
    tag: TagOption = "",
) -> None:
    """Push images that were built here; log in before with `docker login`."""
    _require_docker()
    tag = tag or compiled.content_tag()
    for name in _checked(names):
        source, target = images.reference(name, images.REGISTRY, tag), images.reference(name, registry, tag)
        here = next((reference for reference in (target, source) if _exists(reference)), None)
        if here is None:
            raise InputError(f"image '{target}' is not on this machine; run `make images`")
        if here != target:
            _docker("tag", source, target)
        if subprocess.run(["docker", "push", "--quiet", target], check=False).returncode:
            raise UnavailableError(f"'{target}' could not be pushed; see above, `docker login` first?")


@app.command("list")
def list_(registry: RegistryOption = images.REGISTRY, tag: TagOption = "") -> None:
    """List the names of the images for the code as it is, and the sizes of those that are here."""
    has_docker = shutil.which("docker") is not None
    for name in images.NAMES:
        reference = images.reference(name, registry, tag or compiled.content_tag())
        size = (
            f"{int(_docker('image', 'inspect', '--format', '{{.Size}}', reference)) / 1e6:,.0f} MB"
            if has_docker and _exists(reference)
            else "not here"
        )
        _out.print(f"{reference}  {size}", markup=False)


def _build(name: str, reference: str, python_image: str, cache: bool) -> None:
    dockerfile = ROOT / "containers" / name / "Dockerfile"
    base = python_image or _default_base(dockerfile)
    arguments = {"PYTHON_IMAGE": base}
    if "PIP_INDEX_URL" in os.environ:
        arguments["PIP_INDEX_URL"] = os.environ["PIP_INDEX_URL"]
    labels = {
        "org.opencontainers.image.version": reference.rpartition(":")[2],
        "org.opencontainers.image.base.name": base,
    }
    command = ["docker", "build", "--file", str(dockerfile), "--tag", reference]
    command += [] if cache else ["--no-cache"]
    command += [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
    command += [part for key, value in labels.items() for part in ("--label", f"{key}={value}")]
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{name}.log"
    with _out.status(f"{name}: building, log in {log}"), log.open("w", encoding="utf-8") as file:
        code = subprocess.run([*command, str(ROOT)], stdout=file, stderr=file, check=False).returncode
    if code:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        raise InputError(
            f"image '{name}' was not built: {lines[-1] if lines else f'docker ended with {code}'}; see {log}"
            + ("" if python_image else f"; where '{base}' cannot be pulled: `make python-image`, then set PYTHON_IMAGE")
        )


def _default_base(dockerfile: Path) -> str:
    found = _PYTHON_IMAGE.search(dockerfile.read_text(encoding="utf-8"))
    assert found, dockerfile
    return found[1]


def _checked(names: list[str] | None) -> list[str]:
    for name in names or ():
        if name not in images.NAMES:
            raise InputError(f"no image '{name}' (there are: {', '.join(images.NAMES)})")
    return names or list(images.NAMES)


def _require_docker() -> None:
    if not shutil.which("docker"):
        raise InputError("there is no `docker` on PATH; install Docker Engine, or run without containers")
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        raise UnavailableError("the Docker daemon does not answer; start it, and see `docker info`")


def _exists(reference: str) -> bool:
    return subprocess.run(["docker", "image", "inspect", reference], capture_output=True, check=False).returncode == 0


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout
