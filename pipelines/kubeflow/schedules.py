"""`python -m pipelines schedule`: runs that Kubeflow starts by itself."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.table import Table

from components import images
from components.errors import InputError
from pipelines.kubeflow import planning
from pipelines.kubeflow.api import Api, Object, matching, quoted
from pipelines.kubeflow.options import (
    CacheOption,
    CompiledOption,
    Connect,
    ExperimentOption,
    ImageTagOption,
    JsonOption,
    PipelineOption,
    ProjectArgument,
    RegistryOption,
    RootOption,
    ServiceAccountOption,
    SetOption,
    TagsOption,
    connected,
    err,
    out,
    print_json,
)
from pipelines.kubeflow.runs import list_runs, read_tags, summary_of
from pipelines.kubeflow.timing import described, parse_timing

app = typer.Typer(help="Runs that Kubeflow starts by itself: make, list, pause, remove.", no_args_is_help=True)

_SCHEDULES = "/apis/v2beta1/recurringruns"
_DIGEST = "lockgate"
"""The tag that tells whether a schedule is as it would be made again."""
_MAX_CONCURRENCY = 10

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name or id of a schedule.", show_default=False)]


@app.command()
@connected
def create(
    api: Connect,
    project: ProjectArgument,
    cron: Annotated[str, typer.Option(help="E.g. '0 3 * * 1': Mondays at 3, in the time zone of the cluster.")] = "",
    every: Annotated[str, typer.Option(help="Instead: 30m, 6h, 1d, 2w.")] = "",
    name: Annotated[str, typer.Option(help="Default: the project's and the pipeline's.")] = "",
    pipeline: PipelineOption = "training",
    overrides: SetOption = None,
    start: Annotated[str, typer.Option(help="Not before this time (UTC unless it says otherwise).")] = "",
    end: Annotated[str, typer.Option(help="Not after this time.")] = "",
    catch_up: Annotated[
        bool, typer.Option("--catch-up/--no-catch-up", help="After a pause, start a run for each time that was missed.")
    ] = False,
    max_concurrency: Annotated[
        int, typer.Option(min=1, max=_MAX_CONCURRENCY, help="Start none while so many are running.")
    ] = 1,
    paused: Annotated[bool, typer.Option("--paused", help="Make it, but start nothing yet.")] = False,
    experiment: ExperimentOption = "",
    tags: TagsOption = None,
    cache: CacheOption = True,
    registry: RegistryOption = images.REGISTRY,
    image_tag: ImageTagOption = "",
    compiled: CompiledOption = None,
    pipeline_root: RootOption = "",
    service_account: ServiceAccountOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make a schedule, or change the one of that name.

    Each run reads the spans that are there when it starts, so data.window must be one that moves, such as
    "last 12 months"; it is measured against the model that is in production then.
    """
    timing = parse_timing(cron, every, start, end)
    choice = planning.Choice(pipeline, registry, image_tag, compiled, cache, "", pipeline_root, service_account)
    planned = planning.plan_schedule(project, overrides or [], choice, planning.own_tags(tags or []))
    settings = planned.project.settings
    name = name or f"{settings.name}-{pipeline}"
    wanted: Object = {
        "display_name": name,
        "trigger": timing.trigger,
        "max_concurrency": str(max_concurrency),
        "no_catchup": not catch_up,
        "mode": "DISABLE" if paused else "ENABLE",
        "service_account": planned.request.service_account,
    }
    digest = planning.digest_of([wanted, planned.arguments, planned.text, planned.tags, experiment, pipeline_root])
    before = list(_named(api(), name))
    same = [one for one in before if read_tags(one.get("description", "")).get(_DIGEST) == digest]
    if len(before) == 1 and same:
        made, did = same[0], "unchanged"
        if _summary(made)["enabled"] == paused:  # somebody has paused or resumed it since
            api().post(f"{_path(made)}:{'disable' if paused else 'enable'}")
            made, did = made | {"mode": wanted["mode"], "status": f"{wanted['mode']}D"}, "changed"
    else:
        made = planned.schedule(api(), wanted, experiment, {_DIGEST: digest})
        did = "changed" if before else "created"
        for one in before:
            # ORPHAN: else Kubernetes would remove the workflows of runs that are under way.
            api().delete(_path(one), propagation_policy="ORPHAN")
    if as_json:
        print_json({**_summary(made), "action": did})
        return
    out.print(f"[bold]{did.upper()}[/]", name)
    out.print(f"  when     {described(made.get('trigger') or {})}{', paused' if paused else ''}", markup=False)
    out.print(f"  window   {planned.tags['window']}", markup=False)
    out.print(f"  id       {made['recurring_run_id']}", markup=False)


@app.command("list")
@connected
def list_(api: Connect, as_json: JsonOption = False) -> None:
    """List the schedules."""
    found = list(api().everything(_SCHEDULES, "recurringRuns"))
    if as_json:
        print_json([_summary(one) for one in found])
        return
    if not found:
        out.print("no schedule")
        return
    table = Table("name", "state", "when", "window", "id", box=None)
    for one in found:
        summary = _summary(one)
        state = "on" if summary["enabled"] else "paused"
        table.add_row(summary["name"], state, summary["when"], summary["window"], summary["id"])
    out.print(table)


@app.command()
@connected
def show(api: Connect, name: NameArgument, as_json: JsonOption = False) -> None:
    """Print a schedule, and its latest runs."""
    one = _find(api(), name)
    runs = [run for run, _ in zip(list_runs(api(), recurring_run_id=one["recurring_run_id"]), range(10), strict=False)]
    summary: dict[str, Any] = {**_summary(one), "runs": [summary_of(run) for run in runs]}
    if as_json:
        print_json(summary)
        return
    for key in ("name", "id", "when", "window", "catch_up", "max_concurrency", "enabled"):
        out.print(f"{key.replace('_', ' '):<16} {summary[key]}", markup=False)
    for run in runs:
        out.print(f"{run.state:<16} {run.created:%Y-%m-%d %H:%M} {run.name} {run.id}", markup=False)


@app.command()
@connected
def pause(api: Connect, name: NameArgument) -> None:
    """Start no runs any more; those under way go on."""
    _switch(api(), name, "disable", "paused")


@app.command()
@connected
def resume(api: Connect, name: NameArgument) -> None:
    """Start runs again."""
    _switch(api(), name, "enable", "on")


@app.command()
@connected
def delete(api: Connect, name: NameArgument) -> None:
    """Remove a schedule; its runs stay."""
    one = _find(api(), name)
    api().delete(_path(one), propagation_policy="ORPHAN")
    err.print(f"removed {one['display_name']}", markup=False)


def _switch(api: Api, name: str, action: str, state: str) -> None:
    one = _find(api, name)
    api.post(f"{_path(one)}:{action}")
    out.print(f"{one['display_name']}: {state}", markup=False)


def _find(api: Api, name: str) -> Object:
    """Finds a schedule.

    Raises:
        InputError: there is none, or several have the name.
    """
    everything = list(api.everything(_SCHEDULES, "recurringRuns"))
    found = [one for one in everything if name in (one["recurring_run_id"], one.get("display_name"))]
    if len(found) > 1:
        ids = ", ".join(one["recurring_run_id"] for one in found)
        raise InputError(f"{len(found)} schedules are named '{name}': {ids}; give the id")
    if not found:
        names = ", ".join(one.get("display_name", "") for one in everything) or "none"
        raise InputError(f"there is no schedule '{name}' (there are: {names})")
    return found[0]


def _named(api: Api, name: str) -> Iterator[Object]:
    return api.everything(_SCHEDULES, "recurringRuns", filter=matching(display_name=name))


def _path(one: Object) -> str:
    return f"{_SCHEDULES}/{quoted(one['recurring_run_id'])}"


def _summary(one: Object) -> dict[str, Any]:
    tags = read_tags(one.get("description") or "")
    return {
        "name": one.get("display_name", ""),
        "id": one["recurring_run_id"],
        "enabled": one.get("status") == "ENABLED" or one.get("mode") == "ENABLE",
        "when": described(one.get("trigger") or {}),
        "window": tags.get("window", ""),
        "catch_up": not one.get("no_catchup", False),
        "max_concurrency": int(one.get("max_concurrency") or 1),
        "tags": {key: value for key, value in tags.items() if key != _DIGEST},
    }
