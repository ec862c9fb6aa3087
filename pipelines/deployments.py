"""`python -m pipelines deployments`: what is served on a cluster, and changing it by hand."""

import json
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from components.deploy_model import inference_service, rollout, route
from components.deploy_model.cluster import HTTP_ROUTE, INFERENCE_SERVICE, Cluster, MissingKindError, Object
from components.errors import DataRejectedError, InputError
from components.settings import Deployment
from pipelines.project import load_project

if TYPE_CHECKING:
    from components.deploy_model.deployment import ServiceDeployment

app = typer.Typer(help="Served models: list, look at, promote, roll back, delete.", no_args_is_help=True)

_out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 1000)

_ANSWER_SECONDS = 30.0

ServiceArgument = Annotated[str, typer.Argument(help="Name of the service; with --project: the project's.")]
ProjectOption = Annotated[
    Path | None, typer.Option(help="A pipeline.yaml, or its folder; its section deployment counts.", show_default=False)
]
NamespaceOption = Annotated[str | None, typer.Option(help="Namespace of the services.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TakeOverOption = Annotated[
    bool, typer.Option("--take-over", help="Stop a deployment that is under way, instead of waiting for its end.")
]


@app.command("list")
def list_(project: ProjectOption = None, namespace: NamespaceOption = None, as_json: JsonOption = False) -> None:
    """List the services, what they serve, and what is on its way."""
    settings, _ = _settings(project, namespace, "")
    cluster = Cluster(settings.namespace, _ANSWER_SECONDS)
    found = _services(cluster)
    states = [_state(cluster, settings, name) for name in sorted({_service_of(one) for one in found})]
    if as_json:
        _print_json(states)
        return
    if not states:
        _out.print(f"no service of ours in namespace '{settings.namespace}'", markup=False)
        return
    table = Table("service", "in service", "ready", "canary", "traffic", "before", box=None)
    for state in states:
        canary = state["canary"]
        share = f"{state['canary_percent']} %" if canary else ""
        table.add_row(
            *(state["service"], state["stable"]["version"], state["stable"]["rollout"]),
            *(canary["version"] if canary else "–", share, state["previous"] or "–"),
        )
    _out.print(table)


@app.command()
def status(
    service: ServiceArgument = "",
    project: ProjectOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print how a service is: its model, its pods, its canary and the last events."""
    settings, name = _settings(project, namespace, service)
    state = _state(Cluster(settings.namespace, _ANSWER_SECONDS), settings, name)
    if as_json:
        _print_json(state)
        return
    for role in ("stable", "canary"):
        if one := state[role]:
            share = state["canary_percent"] if role == "canary" else 100 - state["canary_percent"]
            _out.print(
                f"{role}: {one['version']} {one['storage_uri']}, {share} % of the traffic: {one['rollout']}",
                markup=False,
            )
    _out.print(f"before: {state['previous'] or 'nothing'}", markup=False)
    for line in state["events"]:
        _out.print(line, markup=False)


@app.command()
def promote(
    service: ServiceArgument = "",
    project: ProjectOption = None,
    namespace: NamespaceOption = None,
    take_over: TakeOverOption = False,
) -> None:
    """Put the canary's model into service, without the steps that are left."""
    _, deployment = _deployment(project, namespace, service)
    _out.print(deployment.promote(take_over), markup=False)


@app.command()
def rollback(
    service: ServiceArgument = "",
    project: ProjectOption = None,
    namespace: NamespaceOption = None,
    take_over: TakeOverOption = False,
) -> None:
    """Drop the canary; without one, put the model before back into service."""
    cluster, deployment = _deployment(project, namespace, service)
    if cluster.get(INFERENCE_SERVICE, inference_service.canary_name(deployment.service)) is not None:
        _out.print(deployment.abandon(take_over), markup=False)
        return
    before = deployment.lease.previous()
    if before is None:
        raise DataRejectedError(f"service '{deployment.service}' had no other model before; deploy one")
    _out.print(deployment.restore(before, take_over), markup=False)


@app.command()
def delete(
    service: ServiceArgument = "",
    project: ProjectOption = None,
    namespace: NamespaceOption = None,
    take_over: TakeOverOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a service, its canary, its route and what is remembered of it."""
    _, deployment = _deployment(project, namespace, service)
    if not yes:
        typer.confirm(f"Remove service '{deployment.service}'? Nobody can call it then", abort=True)
    _out.print(deployment.delete(take_over), markup=False)


def served(settings: Deployment, service: str) -> Iterator[tuple[str, str, int]]:
    """Yields what a service serves: where, which version, and its share of the traffic in percent.

    Raises:
        InputError: there is no such service, or no KServe.
        UnavailableError: the cluster does not answer.
    """
    state = _state(Cluster(settings.namespace, _ANSWER_SECONDS), settings, service)
    canary = state["canary_percent"]
    where = f"service {service} in namespace {settings.namespace}"
    if state["stable"]:
        yield where, state["stable"]["version"], 100 - (canary if state["canary"] else 0)
    if state["canary"]:
        yield f"canary of {where}", state["canary"]["version"], canary


def _deployment(project: Path | None, namespace: str | None, service: str) -> "tuple[Cluster, ServiceDeployment]":
    settings, name = _settings(project, namespace, service)
    cluster = Cluster(settings.namespace, settings.timeout_seconds)
    if settings.gateway == "":
        settings = _with_gateway(cluster, settings, name)
    return cluster, _service(cluster, settings, name, f"pipelines/{uuid.uuid4().hex[:8]}")


def _service(cluster: Cluster, settings: Deployment, name: str, holder: str) -> "ServiceDeployment":
    from components.deploy_model.deployment import ServiceDeployment  # NumPy and Arrow, which other commands do without

    return ServiceDeployment(cluster, settings, name, holder)


def _settings(project: Path | None, namespace: str | None, service: str) -> tuple[Deployment, str]:
    """Finds settings and service that the options name.

    Raises:
        InputError: they name none.
    """
    if project is None and namespace is None:
        raise InputError("which services? give --project PATH, or --namespace NAME")
    settings = Deployment()
    if project is not None:
        loaded = load_project(project).settings
        settings, service = loaded.deployment, service or loaded.deployment.service or loaded.name
    return (settings.model_copy(update={"namespace": namespace}) if namespace else settings), service


def _with_gateway(cluster: Cluster, settings: Deployment, service: str) -> Deployment:
    """Takes gateway and host name from the service's route, where nobody gave them."""
    live = _optional(cluster, service)
    if live is None:
        return settings
    parent = live["spec"]["parentRefs"][0]
    gateway = f"{parent.get('namespace', cluster.namespace)}/{parent['name']}"
    return settings.model_copy(update={"gateway": gateway, "hostname": live["spec"]["hostnames"][0]})


def _optional(cluster: Cluster, service: str) -> Object | None:
    try:
        return cluster.get(HTTP_ROUTE, service)
    except MissingKindError:
        return None


def _services(cluster: Cluster) -> list[Object]:
    try:
        return cluster.find(INFERENCE_SERVICE, {inference_service.MANAGED_BY: "lockgate"})
    except MissingKindError as error:
        raise InputError("the cluster has no KServe (serving.kserve.io); install it first") from error


def _service_of(one: Object) -> str:
    labels: dict[str, str] = one["metadata"]["labels"]
    return labels[inference_service.SERVICE_LABEL]


def _state(cluster: Cluster, settings: Deployment, service: str) -> dict[str, Any]:
    """Reads how a service is.

    Raises:
        InputError: there is no such service.
    """
    deployment = _service(cluster, settings, service, "reader")
    names = {"stable": service, "canary": inference_service.canary_name(service)}
    found = {role: cluster.get(INFERENCE_SERVICE, name) for role, name in names.items()}
    if not any(found.values()):
        raise InputError(f"namespace '{cluster.namespace}' has no service '{service}'; see `deployments list`")
    before = deployment.lease.previous()
    return {
        "service": service,
        "namespace": cluster.namespace,
        **{role: _described(deployment, live) if live else None for role, live in found.items()},
        "canary_percent": route.canary_percent(_optional(cluster, service), service),
        "previous": (before.version or before.storage_uri) if before else "",
        "events": rollout.lines_of([e for name in names.values() for e in deployment.events(name)]),
    }


def _described(deployment: "ServiceDeployment", live: Object) -> dict[str, Any]:
    spec, now = live["spec"]["predictor"], datetime.now(UTC)
    created = datetime.fromisoformat(str(live["metadata"]["creationTimestamp"]))
    observed = deployment.observe(live["metadata"]["name"])
    found = rollout.read(observed, spec, deployment.settings.scheduling_seconds, created, now)
    return {
        "version": (live["metadata"].get("annotations") or {}).get(inference_service.VERSION, ""),
        "storage_uri": inference_service.storage_uri_of(spec),
        "rollout": found.detail if found.state != "failed" else f"failed: {found.detail}",
    }


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))
