"""`python -m pipelines submit`, `status`, `wait`, `logs`, `report`, `cancel`, `runs`, `pipelines`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from components import images
from components.artifacts import write_whole
from components.errors import InputError
from components.storage import reaching
from pipelines.kubeflow import backfill as backfills
from pipelines.kubeflow import schedules
from pipelines.kubeflow.logs import StageLog
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
    RunArgument,
    ServiceAccountOption,
    SetOption,
    TagsOption,
    connected,
    err,
    out,
    print_json,
)
from pipelines.kubeflow.outcome import Outcome, outcome_of, to_json, to_markdown
from pipelines.kubeflow.runs import find_run, list_runs, parse_tags, summary_of
from pipelines.kubeflow.watching import follow, look

app = typer.Typer()

ON_A_CLUSTER = "On a cluster (Kubeflow Pipelines)"
_STATES = ("pending", "running", "succeeded", "failed", "canceled", "canceling", "paused", "skipped")

TimeoutOption = Annotated[
    float | None, typer.Option(min=1, help="Seconds to wait at most; the run goes on.", show_default=False)
]
SummaryOption = Annotated[
    Path | None, typer.Option(help="Write the outcome as Markdown, for a pull request.", show_default=False)
]


@app.command(rich_help_panel=ON_A_CLUSTER)
@connected
def submit(
    api: Connect,
    project: ProjectArgument,
    pipeline: PipelineOption = "training",
    overrides: SetOption = None,
    window: Annotated[
        str, typer.Option(help="Of pipeline monitoring: what to judge; default: the last whole period before now.")
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end; the exit code is the run's.")] = False,
    timeout: TimeoutOption = None,
    once: Annotated[
        bool, typer.Option("--once", help="Start nothing when a run on the same inputs is under way or has passed.")
    ] = False,
    expect: Annotated[
        str,
        typer.Option(
            metavar="INPUTS",
            help="Start nothing when the inputs are not these: the tag `inputs` of a run that somebody approved.",
            show_default=False,
        ),
    ] = "",
    run_name: Annotated[str, typer.Option(help="Default: the project's name and the time.")] = "",
    experiment: ExperimentOption = "",
    tags: TagsOption = None,
    cache: CacheOption = True,
    registry: RegistryOption = images.REGISTRY,
    image_tag: ImageTagOption = "",
    compiled: CompiledOption = None,
    pipeline_root: RootOption = "",
    service_account: ServiceAccountOption = "",
    analysis_cache: Annotated[
        str, typer.Option(help="Where transform_data keeps analysis results: s3:// or gs://; default: nowhere.")
    ] = "",
    summary: SummaryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a pipeline on Kubeflow Pipelines."""
    if (timeout or summary) and not wait:
        raise InputError("--timeout and --summary are for --wait; add it, or leave them out")
    from pipelines.kubeflow.planning import INPUTS, Choice, own_tags, plan

    planned = plan(
        project,
        overrides or [],
        Choice(pipeline, registry, image_tag, compiled, cache, analysis_cache, pipeline_root, service_account, window),
        own_tags(tags or []),
    )
    if expect and planned.tags[INPUTS] != expect:
        raise InputError(
            f"--expect {expect}: the inputs are {planned.tags[INPUTS]} now: data, settings or code have changed since; "
            "train again, and approve that"
        )
    found = planned.find(api()) if once else None
    run = found or planned.start(api(), run_name, experiment, lambda line: err.print(line, markup=False))
    if found:
        err.print(f"{found.name}: run {found.id} on the same inputs is {found.state.lower()}", markup=False)
    if not wait:
        if as_json:
            print_json({**summary_of(run), "submitted": not found})
            return
        out.print("[bold]THERE ALREADY[/]" if found else "[bold]SUBMITTED[/]", run.name)
        out.print(f"  run      {run.id}", markup=False)
        out.print(f"  next     python -m pipelines wait {run.id}", markup=False)
        return
    _wait_for(api, run.id, timeout, summary, as_json)


@app.command(rich_help_panel=ON_A_CLUSTER)
@connected
def wait(
    api: Connect,
    run: RunArgument,
    timeout: TimeoutOption = None,
    summary: SummaryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow a run to its end; the exit code is the run's, as if it had run here."""
    _wait_for(api, run, timeout, summary, as_json)


@app.command(rich_help_panel=ON_A_CLUSTER)
@connected
def status(api: Connect, run: RunArgument, as_json: JsonOption = False) -> None:
    """Print how a run stands: its stages, why one waits, why one failed."""
    outcome = outcome_of(api(), look(api(), find_run(api(), run)))
    if as_json:
        print_json(to_json(outcome))
        return
    _print_outcome(outcome)
    table = Table("stage", "state", "time", "", box=None)
    for record in outcome.records:
        note = record.error or outcome.waiting.get(record.task) or str(record.parameters.get("reason", ""))
        seconds = f"{record.wall_seconds:.0f} s" if record.wall_seconds else ""
        label = outcome.labels.get(record.task, record.task)
        table.add_row(label, record.state, seconds, note.replace("[", r"\["))
    out.print(table)


@app.command(rich_help_panel=ON_A_CLUSTER)
@connected
def logs(
    api: Connect,
    run: RunArgument,
    stage: Annotated[str, typer.Argument(help="Name or label of a stage; default: the one that failed, or runs.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="With the lines of KFP, and from the first.")] = False,
    follow_: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the stage ends.")] = False,
    tail: Annotated[int, typer.Option(min=1, help="How many lines, without --all.")] = 50,
) -> None:
    """Print what a stage printed, from its pod or from the archive."""
    log = StageLog(api(), find_run(api(), run), stage, everything)
    if follow_:
        for line in log.follow():
            typer.echo(line)
        return
    log.require_begun()
    lines = log.lines()
    for line in lines if everything else lines[-tail:]:
        typer.echo(line)
    if not lines:
        err.print(f"stage '{log.label}' has printed nothing of its own; --all shows the rest", markup=False)


@app.command(rich_help_panel=ON_A_CLUSTER)
@connected
def cancel(api: Connect, run: RunArgument) -> None:
    """Stop a run."""
    found = find_run(api(), run)
    if found.is_over:
        raise InputError(f"run '{found.name}' is over: {found.state}")
    api().post(f"/apis/v2beta1/runs/{found.id}:terminate")
    out.print(f"stopping {found.name} ({found.id})", markup=False)


@app.command(rich_help_panel=ON_A_CLUSTER)
@connected
def runs(
    api: Connect,
    pipeline: Annotated[str, typer.Option(help="Only of this pipeline.")] = "",
    experiment: Annotated[str, typer.Option(help="Only of this experiment.")] = "",
    state: Annotated[str, typer.Option(help=f"Only in this state: {', '.join(_STATES)}.")] = "",
    tags: Annotated[
        list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="Only with this tag. Repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first."""
    from pipelines.kubeflow.submitting import experiment_id, find_pipeline

    wanted_tags = parse_tags(tags or [])
    if state and state.lower() not in _STATES:
        raise InputError(f"--state '{state}' is not one of {', '.join(_STATES)}")
    filters = {}
    if state and state.lower() not in ("failed", "canceled"):  # what was stopped, KFP lists among what failed
        filters["state"] = state.upper()
    if experiment:
        filters["experiment_id"] = experiment_id(api(), experiment, make=False)
    pipeline_id = find_pipeline(api(), pipeline)["pipeline_id"] if pipeline else ""
    for name, value in list(wanted_tags.items())[:1]:
        filters["description__contains"] = f"{name}={value}"
    found = []
    for one in list_runs(api(), **filters):
        if (
            (not pipeline_id or one.pipeline_id == pipeline_id)
            and (not state or one.state == state.upper())
            and wanted_tags.items() <= one.tags.items()
        ):
            found.append(one)
            if len(found) == limit:
                break
    if as_json:
        print_json([summary_of(one) for one in found])
        return
    if not found:
        out.print("no run", markup=False)
        return
    table = Table("name", "state", "started", "time", "window", "id", box=None)
    for one in found:
        seconds = f"{one.seconds:.0f} s" if one.seconds is not None else ""
        cells = (one.name, one.state, f"{one.created:%Y-%m-%d %H:%M}", seconds, one.tags.get("window", ""), one.id)
        table.add_row(*(cell.replace("[", r"\[") for cell in cells))
    out.print(table)


@app.command(rich_help_panel=ON_A_CLUSTER)
@connected
def pipelines(
    api: Connect,
    name: Annotated[str, typer.Argument(help="List the versions of this one.", show_default=False)] = "",
    as_json: JsonOption = False,
) -> None:
    """List the pipelines on the cluster, or the versions of one."""
    from pipelines.kubeflow.submitting import find_pipeline, list_pipelines, list_versions

    found = list(list_versions(api(), find_pipeline(api(), name)["pipeline_id"]) if name else list_pipelines(api()))
    rows = [
        {
            "name": one.get("display_name", ""),
            "id": one.get("pipeline_version_id") or one["pipeline_id"],
            "created": one.get("created_at", ""),
            "tags": one.get("tags") or {},
            "description": one.get("description", ""),
        }
        for one in found
    ]
    if as_json:
        print_json(rows)
        return
    table = Table("version" if name else "pipeline", "uploaded", "id", "tags" if name else "", box=None)
    for row in rows:
        tags = " ".join(f"{key}={value}" for key, value in row["tags"].items())
        table.add_row(
            row["name"], row["created"][:16].replace("T", " "), row["id"], tags if name else row["description"]
        )
    out.print(table)


@app.command(rich_help_panel=ON_A_CLUSTER)
@connected
def report(
    api: Connect,
    run: RunArgument,
    output: Annotated[Path | None, typer.Option(help="Folder for the pages; default: runs/<run>/report.")] = None,
) -> None:
    """Download a run's reports (HTML)."""
    from pipelines.environments import ROOT
    from pipelines.kubeflow.reports import download

    found = find_run(api(), run)
    folder = output or ROOT / "runs" / found.name / "report"
    for path in download(api(), found, look(api(), found), folder):
        out.print(path, markup=False)


app.add_typer(schedules.app, name="schedule", rich_help_panel=ON_A_CLUSTER)
app.command(rich_help_panel=ON_A_CLUSTER)(backfills.backfill)


def _wait_for(api: Connect, run: str, timeout: float | None, summary: Path | None, as_json: bool) -> None:
    from pipelines.progress import Progress  # imports kfp, which takes 2 s

    found = find_run(api(), run)
    # One console for both: a line printed by another would break the live picture.
    console = Console(stderr=True, highlight=False)

    def note(line: str) -> None:
        console.print(line, markup=False, style="yellow", soft_wrap=True)

    with Progress(console) as progress:
        try:
            seen = follow(api(), found, progress, note, timeout)
        except KeyboardInterrupt:
            seen = None  # said below: what Progress says of a local run is not so here
    if seen is None:
        err.print(
            f"the run goes on; `python -m pipelines wait {found.id}` follows it, `cancel {found.id}` stops it",
            markup=False,
        )
        raise typer.Exit(130)
    outcome = outcome_of(api(), seen)
    if summary:
        with reaching(str(summary)):
            write_whole(summary, to_markdown(outcome))
    if as_json:
        print_json(to_json(outcome))
    else:
        _print_outcome(outcome)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _print_outcome(outcome: Outcome) -> None:
    style = {"PASSED": "bold green", "FAILED": "bold red", "CANCELED": "bold red"}.get(outcome.verdict, "bold")
    out.print(f"[{style}]{outcome.verdict}[/]", outcome.run.name)
    lines = [("cause", outcome.text)] if outcome.text else []
    lines += list(outcome.reasons.items())
    lines += [("model", outcome.model)] if outcome.model else []
    lines += [("registry", outcome.registries)] if outcome.registries else []
    lines += [("written", outcome.predictions)] if outcome.predictions else []
    lines.append(("run", outcome.run.id))
    if outcome.cause:
        lines.append(("log", f"python -m pipelines logs {outcome.run.id} {outcome.cause.task}"))
    width = max(8, *(len(label) for label, _ in lines))
    for label, text in lines:
        out.print(f"  {label:<{width}} {text}", markup=False)
