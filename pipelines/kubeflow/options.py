"""What the commands have in common: the options of a connection, and how things are printed."""

import functools
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from pipelines.kubeflow.api import Api
from pipelines.kubeflow.connection import (
    COOKIE,
    DEX_PASSWORD,
    IAP_DESKTOP_ID,
    IAP_DESKTOP_SECRET,
    PREFIX,
    TOKEN,
    Connection,
    connect,
)

PANEL = "Connection"

# A pipe has no width: nothing is cut off for a program that reads a table.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 1000)
err = Console(stderr=True, highlight=False, soft_wrap=True)

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Id or name of a run, or latest.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

ProjectArgument = Annotated[
    Path, typer.Argument(help="A pipeline.yaml, or the folder that holds one.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. training.epochs=3. Repeatable."),
]
TagsOption = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="KEY=VALUE", help="Tag of the run, e.g. team=ml; `runs` finds it. Repeatable."),
]
RegistryOption = Annotated[str, typer.Option(help="Registry and folder of the images.")]
ImageTagOption = Annotated[str, typer.Option(help="Tag of the images; default: version and content of the code.")]
ExperimentOption = Annotated[str, typer.Option(help="Experiment of the run; default: the project's name.")]
ServiceAccountOption = Annotated[str, typer.Option(help="Service account of the run's pods; default: Kubeflow's.")]
RootOption = Annotated[str, typer.Option(help="Where artifacts go: s3:// or gs://; default: Kubeflow's.")]
CompiledOption = Annotated[
    Path | None,
    typer.Option(help="Submit this compiled pipeline, with the images that it names.", show_default=False),
]
PipelineOption = Annotated[str, typer.Option(help="Which compiled pipeline.")]
CacheOption = Annotated[
    bool, typer.Option("--cache/--no-cache", help="Reuse results of stages whose input is unchanged.")
]


def _option(help_text: str, variable: str, *names: str) -> Any:
    return typer.Option(*names, help=help_text, envvar=PREFIX + variable, rich_help_panel=PANEL, show_default=False)


_OPTIONS: dict[str, tuple[Any, Any]] = {
    "host": (
        Annotated[
            str,
            _option(
                "The API or Kubeflow's pages: a port-forward or an ingress. Without: in a pod its cluster, elsewhere "
                "what the kubeconfig names.",
                "HOST",
            ),
        ],
        "",
    ),
    "namespace": (
        Annotated[str, _option("Namespace of the runs: the profile, where each user has one.", "NAMESPACE")],
        "",
    ),
    "system_namespace": (
        Annotated[str, _option("Where Kubeflow Pipelines is installed; default: kubeflow.", "SYSTEM_NAMESPACE")],
        "kubeflow",
    ),
    "kube_context": (Annotated[str, _option("Context of the kubeconfig.", "KUBE_CONTEXT")], ""),
    "token_file": (
        Annotated[Path | None, _option(f"File with a token, or the token itself in {TOKEN}.", "TOKEN_FILE")],
        None,
    ),
    "cookie_file": (
        Annotated[Path | None, _option(f"File with a cookie, or the cookie itself in {COOKIE}.", "COOKIE_FILE")],
        None,
    ),
    "dex_user": (
        Annotated[str, _option(f"Log in at Dex by this name; the password is in {DEX_PASSWORD}.", "DEX_USER")],
        "",
    ),
    "iap_client_id": (
        Annotated[
            str,
            _option(
                "Client id of Google's Identity-Aware Proxy; the service account's key is in "
                f"GOOGLE_APPLICATION_CREDENTIALS, or a desktop client in {IAP_DESKTOP_ID} and {IAP_DESKTOP_SECRET}.",
                "IAP_CLIENT_ID",
            ),
        ],
        "",
    ),
    "ca_cert": (Annotated[Path | None, _option("File with the authority of the host's certificate.", "CA_CERT")], None),
}
assert set(_OPTIONS) == {field.name for field in fields(Connection)}


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of a connection, and in their place the connected API as its first argument.

    It is connected when the command asks for it (`api()`), so that bad arguments are told of first.
    """
    signature = inspect.signature(command)
    own = list(signature.parameters.values())[1:]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _OPTIONS.items()
    ]

    @functools.wraps(command)
    def wrapper(**arguments: Any) -> None:
        connection = Connection(**{name: arguments.pop(name) for name in _OPTIONS})
        return command(functools.cache(lambda: connect(connection)), **arguments)

    wrapper.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in (*own, *added)} | {"return": None}
    return wrapper


Connect = Callable[[], Api]


def print_json(value: Any) -> None:
    """Prints for a script."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))
