"""`python -m pipelines kind`: a cluster on this machine, made, looked at and removed."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from components import images
from components.errors import UnavailableError
from pipelines import compiled
from pipelines.kind import sources
from pipelines.kind.installation import SERVING, Installation, Settings, fetch
from pipelines.kind.steps import Steps
from pipelines.kind.store import MODELS
from pipelines.kind.vendor import GIT_SOURCE
from pipelines.project import load_project

app = typer.Typer(
    help="A kind cluster with Kubeflow Pipelines, KServe and the suite: docs/kind.md.", no_args_is_help=True
)

_out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 1000)

NameOption = Annotated[str, typer.Option(envvar="KIND_CLUSTER", help="Name of the cluster.")]
GatewayPortOption = Annotated[int, typer.Option(envvar="GATEWAY_PORT", min=1, max=65535, help="Of served models.")]
UiPortOption = Annotated[int, typer.Option(envvar="UI_PORT", min=1, max=65535, help="Of Kubeflow Pipelines' pages.")]
ApiPortOption = Annotated[int, typer.Option(envvar="API_PORT", min=1, max=65535, help="Of Kubeflow Pipelines' API.")]
StorePortOption = Annotated[int, typer.Option(envvar="STORE_PORT", min=1, max=65535, help="Of the object store.")]
NodeImageOption = Annotated[
    str, typer.Option(envvar="NODE_IMAGE", help="Image of the node; default: the pinned one.", show_default=False)
]
ManifestsOption = Annotated[
    Path | None,
    typer.Option(envvar="MANIFESTS", help="Folder in place of what `vendor` fetches.", show_default=False),
]
GitSourceOption = Annotated[str, typer.Option(envvar="GIT_SOURCE", help="URL, or folder, that has the repositories.")]
ImageRegistryOption = Annotated[
    str, typer.Option(envvar="IMAGE_REGISTRY", help="Mirror that has the platform's images.", show_default=False)
]
GatewayOption = Annotated[bool, typer.Option("--gateway/--no-gateway", envvar="GATEWAY", help="Gateway API, Traefik.")]
TimeoutOption = Annotated[float, typer.Option(min=1, help="Seconds that a part may take to get ready.")]


@app.command()
def up(
    name: NameOption = "lockgate",
    gateway_port: GatewayPortOption = 8081,
    ui_port: UiPortOption = 8082,
    api_port: ApiPortOption = 8888,
    store_port: StorePortOption = 9000,
    node_image: NodeImageOption = "",
    manifests: ManifestsOption = None,
    git_source: GitSourceOption = GIT_SOURCE,
    image_registry: ImageRegistryOption = "",
    gateway: GatewayOption = True,
    timeout: TimeoutOption = 600,
    checks: Annotated[bool, typer.Option("--checks/--no-checks", help="Look at the machine first.")] = True,
) -> None:
    """Make the cluster, or go on where it stopped; what is there stays."""
    ports = {"GATEWAY_PORT": gateway_port, "UI_PORT": ui_port, "API_PORT": api_port, "STORE_PORT": store_port}
    platform = sources.load()
    settings = Settings(
        name=name,
        ports=ports if gateway else {key: port for key, port in ports.items() if key != "GATEWAY_PORT"},
        node_image=node_image or platform.node.image,
        manifests=manifests,
        git_source=git_source,
        image_registry=image_registry,
        gateway=gateway,
        seconds=timeout,
    )
    Installation(settings, platform).up(Steps(_out), checks)
    table = Table.grid(padding=(0, 2))
    table.add_row("Kubeflow Pipelines", f"http://127.0.0.1:{ui_port}", f"API: http://127.0.0.1:{api_port}")
    if gateway:
        table.add_row("served models", f"http://NAME.localhost:{gateway_port}")
    table.add_row("model store", f"s3://{MODELS}", f"AWS_ENDPOINT_URL=http://127.0.0.1:{store_port}")
    _out.print()
    _out.print(table)
    _out.print("\nnext:  make images kind-load      # ends with how to train on the cluster", markup=False)
    _out.print("       make kind-status", markup=False)


@app.command()
def load(
    project: Annotated[
        Path | None, typer.Argument(help="Copy its data too, and print how to run it.", show_default=False)
    ] = None,
    name: NameOption = "lockgate",
    registry: Annotated[str, typer.Option(help="Registry and folder of the images.")] = images.REGISTRY,
    tag: Annotated[str, typer.Option(help="Default: version and content of the code.", show_default=False)] = "",
) -> None:
    """Copy the suite's images, which `make images` built, into the node, and a project's data into the object store."""
    loaded = load_project(project) if project else None
    installation, steps = _existing(name), Steps(_out)
    installation.load(steps, registry, tag or compiled.content_tag())
    if loaded is None:
        return
    settings = {
        "data.source": installation.put(steps, loaded),
        "publication.store": f"s3://{MODELS}",
        "deployment.target": "kserve",
        "deployment.namespace": SERVING,
    }
    if "GATEWAY_PORT" in installation.node.ports():
        settings["deployment.gateway"] = "kserve/kserve-ingress-gateway"
        settings["deployment.hostname"] = f"{loaded.settings.name}.localhost"
    lines = [f"--set {key}={shlex.quote(value)}" for key, value in settings.items()]
    _out.print("\nnext:", markup=False)
    _out.print('eval "$(.venvs/dev/bin/python -m pipelines kind env)"', markup=False)
    _out.print(" \\\n  ".join([f".venvs/dev/bin/python -m pipelines submit {project} --wait", *lines]), markup=False)


@app.command()
def env(name: NameOption = "lockgate") -> None:
    """Print the variables, credentials among them, with which this machine's commands reach the cluster."""
    installation = _existing(name)
    installation.require_running()
    for variable, value in installation.variables.items():
        typer.echo(f"export {variable}={shlex.quote(value)}")


@app.command()
def status(
    name: NameOption = "lockgate", as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Show the parts of the cluster: whether they are ready, their versions, and where to reach them."""
    from pipelines.kind.overview import overview

    parts = overview(_existing(name))
    if as_json:
        typer.echo(json.dumps([part.__dict__ for part in parts], indent=1))
    else:
        table = Table("part", "state", "version", "URL", box=None)
        for part in parts:
            table.add_row(part.name, part.state, part.version, part.url)
        _out.print(table)
    if lacking := [part.name for part in parts if part.required and not part.ready]:
        raise UnavailableError(f"not ready: {', '.join(lacking)}; `make kind-up` goes on where it stopped")


@app.command()
def down(name: NameOption = "lockgate") -> None:
    """Remove the cluster, with all that is stored in it."""
    _out.print(_existing(name).down(), markup=False)


@app.command()
def vendor(
    git_source: GitSourceOption = GIT_SOURCE,
    output: Annotated[Path, typer.Option(help="Where they go.")] = sources.VENDORED,
    with_images: Annotated[
        bool, typer.Option("--images/--no-images", envvar="IMAGES", help="Pull the images into Docker, too.")
    ] = False,
    node_image: NodeImageOption = "",
    image_registry: ImageRegistryOption = "",
) -> None:
    """Fetch the manifests of the platform at their pinned commits, so that `up` needs no network for them."""
    steps, platform = Steps(_out), sources.load()
    with steps.step("sources") as step:
        fetch(platform, git_source, output, step.say)
        step.note = ", ".join(f"{source.name} {source.version}" for source in platform.sources)
    if with_images:
        settings = Settings(
            "vendor", node_image or platform.node.image, manifests=output, image_registry=image_registry
        )
        Installation(settings, platform).pull(steps)


def _existing(name: str) -> Installation:
    """Gives a cluster whose settings are its own."""
    platform = sources.load()
    return Installation(Settings(name, platform.node.image), platform)
