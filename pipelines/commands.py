"""The command line. Exit codes: 0 passed, 2 fix your input, 3 data or model rejected, 4 try again later, 1 a bug."""

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from components import images
from components.artifacts import write_whole
from components.errors import DataRejectedError, InputError, LockgateError, UnavailableError
from components.run_records import StageRecord
from components.storage import reaching
from pipelines import compiled, deployments, images_command, models
from pipelines.environments import ROOT
from pipelines.kind import command as kind_command
from pipelines.kubeflow.commands import ON_A_CLUSTER
from pipelines.kubeflow.commands import app as kubeflow
from pipelines.lineage import lineage
from pipelines.project import ProjectError, load_project
from pipelines.retention import prune
from pipelines.triggers.command import trigger

if TYPE_CHECKING:
    from pipelines.local import Outcome
    from pipelines.submission import Submission

app = typer.Typer(
    help="Lockgate: tabular data to a served TensorFlow model; nothing bad passes the gates.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models.app, name="models")
app.add_typer(deployments.app, name="deployments")
app.command()(lineage)
app.command()(prune)
app.add_typer(images_command.app, name="images")
app.add_typer(kubeflow)
app.add_typer(kind_command.app, name="kind")
app.command(rich_help_panel=ON_A_CLUSTER)(trigger)

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)

ProjectArgument = Annotated[
    Path, typer.Argument(help="A pipeline.yaml, or the folder that holds one.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. training.epochs=3. Repeatable."),
]


RegistryOption = Annotated[str, typer.Option(help="Registry and folder of the images.")]
TagOption = Annotated[str, typer.Option(help="Tag of the images; default: version and content of the code.")]


MONITORING, BATCH_PREDICTION = "monitoring", "batch_prediction"
"""The pipeline that takes a window."""

# What the verdict of a stage is about.
_LABELS = {
    "validate_data": "data",
    "evaluate_model": "metrics",
    "check_serving": "serving",
    "deploy_model": "service",
    "monitor_model": "because",
    "write_predictions": "rows",
    "respond_to_verdict": "answer",
}
_PLACES = {"publish_model": "model", "write_predictions": "written"}


class Runner(StrEnum):
    """What executes the tasks of a local run."""

    VENV = "venv"
    DOCKER = "docker"


RunsOption = Annotated[Path, typer.Option(help="Folder for what runs write.")]
CacheOption = Annotated[
    bool, typer.Option("--cache/--no-cache", help="Reuse results of stages whose input is unchanged.")
]
RunnerOption = Annotated[
    Runner, typer.Option(help="venv: each stage in the local twin of its image. docker: in the image itself.")
]
NetworkOption = Annotated[
    str, typer.Option(help="docker: network of the stages. Data in a bucket needs one, e.g. bridge.")
]
VariablesOption = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="NAME", help="docker: hand this variable on to the stages. Repeatable."),
]


@app.command()
def run(
    project: ProjectArgument,
    pipeline: Annotated[str, typer.Option(help="Which compiled pipeline.")] = "training",
    runs: RunsOption = ROOT / "runs",
    cache: CacheOption = True,
    runner: RunnerOption = Runner.VENV,
    registry: RegistryOption = images.REGISTRY,
    tag: TagOption = "",
    network: NetworkOption = "none",
    variables: VariablesOption = None,
    overrides: SetOption = None,
) -> None:
    """Run a pipeline on this machine: no cluster, and Docker only if you ask for it."""
    loaded = load_project(project, overrides or [])
    from pipelines import submission

    tag = tag or compiled.content_tag()
    root = runs.resolve()
    if pipeline == MONITORING:
        prepared = submission.prepare_monitoring(loaded, here=True)
    elif pipeline.replace("-", "_") == BATCH_PREDICTION:
        prepared = submission.prepare_batch(loaded)
    else:
        prepared = submission.prepare(loaded, str(root / ".analysis"), registry, tag)
    text = compiled.read(pipeline, registry, tag)
    here = Here(root, cache, runner, network, variables or [])
    _exit_if_failed(_run_here(loaded.settings.name, text, prepared, here))


@app.command()
def predict(
    project: ProjectArgument,
    window: Annotated[
        str, typer.Option(help="Which spans, e.g. 2013-12 or 'last 1 month'; default: data.window.")
    ] = "",
    model: Annotated[str, typer.Option(help="Version that decides; default: batch.model.")] = "",
    runs: RunsOption = ROOT / "runs",
    cache: CacheOption = True,
    runner: RunnerOption = Runner.VENV,
    registry: RegistryOption = images.REGISTRY,
    tag: TagOption = "",
    network: NetworkOption = "none",
    variables: VariablesOption = None,
    overrides: SetOption = None,
) -> None:
    """Predict the rows of spans with a published model, and put the predictions into their place."""
    chosen = {"data.window": window, "batch.model": model}
    given = [*(overrides or []), *(f"{key}={value}" for key, value in chosen.items() if value)]
    run(project, BATCH_PREDICTION, runs, cache, runner, registry, tag, network, variables, given)


@app.command()
def monitor(
    project: ProjectArgument,
    window: Annotated[
        str, typer.Option(help="What to judge, e.g. 2013-10 or 2013-10-05; default: the last whole period before now.")
    ] = "",
    runs: RunsOption = ROOT / "runs",
    runner: RunnerOption = Runner.VENV,
    registry: RegistryOption = images.REGISTRY,
    tag: TagOption = "",
    network: NetworkOption = "none",
    variables: VariablesOption = None,
    respond: Annotated[
        bool | None,
        typer.Option(
            "--respond/--no-respond",
            help="Train here when the verdict is retrain. Default: monitoring.response.retrain.",
            show_default=False,
        ),
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Judge a served model by what was logged in a window: healthy, watch, retrain or page.

    The exit code tells whether it could be judged, not the verdict; with --respond, what became of the training.
    """
    loaded = load_project(project, overrides or [])
    from pipelines import submission

    prepared = submission.prepare_monitoring(loaded, window, here=True, respond=respond)
    tag = tag or compiled.content_tag()
    text = compiled.read(MONITORING, registry, tag)
    here = Here(runs.resolve(), True, runner, network, variables or [])
    judged = _run_here(loaded.settings.name, text, prepared, here)
    _exit_if_failed(judged)
    due = judged.stage("respond-to-verdict")
    if due is None or not due.parameters.get("training_window") or due.parameters.get("run"):
        return
    found, moved = judged.stage("monitor-model"), [f"data.window={due.parameters['training_window']}"]
    again = load_project(project, [*(overrides or []), *moved])

    def train() -> "Outcome":
        root = str(here.root / ".analysis")
        training = compiled.read("training", registry, tag)
        return _run_here(loaded.settings.name, training, submission.prepare(again, root, registry, tag), here)

    from pipelines.retraining import train_once

    evidence = str(found.parameters["evidence"]) if found else ""
    outcome = train_once(again, evidence, here.root, train)
    if outcome is None:
        _err.print(f"{loaded.settings.name}: trained before on this evidence", markup=False)
    else:
        _exit_if_failed(outcome)


@dataclass(frozen=True)
class Here:
    """How pipelines run on this machine."""

    root: Path
    """Of all runs."""
    cache: bool
    runner: Runner
    network: str
    variables: list[str]


def _run_here(project: str, text: str, prepared: "Submission", here: Here) -> "Outcome":
    """Runs a compiled pipeline, and prints how it ended."""
    root = here.root
    from pipelines import submission
    from pipelines.progress import Progress

    with reaching(str(root)):
        root.mkdir(parents=True, exist_ok=True)
    arguments = submission.accepted(text, prepared)
    name = f"{project}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
    pipeline = compiled.documents(text)[0]["pipelineInfo"]["name"]
    _err.print(f"{project}: {pipeline} on {prepared.spans}", style="bold")
    with Progress() as progress:
        from pipelines.local import images_of, run_pipeline  # kfp takes 2 s to import

        executor = None
        if here.runner is Runner.DOCKER:
            from pipelines.containers import Containers

            executor = Containers(
                images_of(text),
                name,
                reads=prepared.files,
                writes=prepared.writes,
                network=here.network,
                variables=_from_environment(here.variables),
            )
        outcome = run_pipeline(text, arguments, root, name, progress, here.cache, executor)
    _print_outcome(project, outcome)
    return outcome


def _exit_if_failed(outcome: "Outcome") -> None:
    if outcome.failed:
        raise typer.Exit(_exit_code(outcome.failed))


@app.command()
def stream(
    project: ProjectArgument,
    broker: Annotated[
        str, typer.Option(help="Bootstrap servers, in place of stream.servers; local: run a broker on this machine.")
    ] = "",
    replay: Annotated[
        float, typer.Option(min=0, help="Make so many events a second, of the last run's evaluation split.")
    ] = 0.0,
    events: Annotated[
        int, typer.Option(min=0, help="Replay so many, and end when they are decided; 0: all, again and again.")
    ] = 0,
    picture: Annotated[Path | None, typer.Option(help="Draw scores and alerts into this SVG at the end.")] = None,
    port: Annotated[int, typer.Option(help="Of /live, /ready, /metrics and /status.")] = 8090,
    instance: Annotated[str, typer.Option(help="Names this process among its group; for a second one here.")] = "",
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = ROOT / "runs",
    show_job: Annotated[bool, typer.Option("--show-job", help="Print what a Deployment is told, and end.")] = False,
    overrides: SetOption = None,
) -> None:
    """Decide the events of a Kafka topic, each exactly once, with the model in production."""
    from pipelines import streaming

    loaded = load_project(project, overrides or [])
    told = streaming.job(loaded)
    if broker:
        told["stream"]["servers"] = broker
    if show_job:
        print(json.dumps(told, indent=1, ensure_ascii=False))
        return
    task = loaded.settings.task
    made = streaming.Replay(replay, streaming.split_of(told, runs), task, events) if replay else None
    shown = streaming.Shown(streaming.budget_of(loaded.settings), picture)
    raise typer.Exit(streaming.run(told, port, instance, made, shown))


def _from_environment(names: list[str]) -> dict[str, str]:
    for name in names:
        if name not in os.environ:
            raise InputError(f"--env {name}: it is not set here; export it, or leave the option out")
    return {name: os.environ[name] for name in names}


def _print_outcome(name: str, outcome: "Outcome") -> None:
    """Prints the end result: verdict, what the judging stages said, where model, report and log are."""
    failed = outcome.failed
    judged = next((one.parameters for one in outcome.records if one.stage == "monitor_model"), None)
    verdict = str(judged.get("verdict", "")) if judged and not failed else ""
    colour = {"watch": "yellow", "retrain": "red", "page": "red"}.get(verdict, "green")
    passed = f"[bold {colour}]{verdict.upper() or 'PASSED'}[/]"
    _out.print("[bold red]FAILED[/]" if failed else passed, name)
    lines = [("cause", failed.error)] if failed else []
    for record in outcome.records:
        reason = str(record.parameters.get("reason", ""))
        if reason and not (failed and reason in failed.error):
            lines.append((_LABELS.get(record.stage, record.stage), reason))
        if record.parameters.get("uri"):
            lines.append((_PLACES.get(record.stage, "uri"), str(record.parameters["uri"])))
        if record.parameters.get("registries"):
            lines.append(("registry", str(record.parameters["registries"])))
    report = outcome.folder / "report" / "index.html"
    lines += [("report", str(report))] if report.is_file() else []
    lines += [("log", failed.log)] if failed else []
    for label, text in lines:
        _out.print(f"  {label:<8} {text}", markup=False)


def _exit_code(failed: StageRecord) -> int:
    if failed.exit_code is not None and failed.exit_code < 0:  # killed from outside, most likely for its memory
        return UnavailableError.exit_code
    known = {error.exit_code for error in (InputError, DataRejectedError, UnavailableError)}
    return failed.exit_code if failed.exit_code in known else LockgateError.exit_code


@app.command()
def validate(
    project: ProjectArgument,
    overrides: SetOption = None,
    show: Annotated[bool, typer.Option("--show", help="Print the settings with all defaults.")] = False,
) -> None:
    """Check a project: settings, schema, columns, and that its data is there."""
    loaded = load_project(project, overrides or [])
    from components.spans import pinned_window, resolve

    files = resolve(loaded.resolve(loaded.settings.data.source), loaded.settings.data.window)
    if show:
        _out.print_json(json.dumps(loaded.settings.model_dump(mode="json", by_alias=True)))
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    _out.print(f"{loaded.path}: valid; {count}, {pinned_window(files)}", markup=False)


@app.command("compile")
def compile_(
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write one pipeline there, with your registry and tag, for any Kubeflow.", show_default=False
        ),
    ] = None,
    pipeline: Annotated[str, typer.Option(help="Which one.")] = "training",
    registry: RegistryOption = images.REGISTRY,
    tag: TagOption = "",
    project: Annotated[
        Path | None,
        typer.Option(help="With --output: the project whose section `cluster` goes in.", show_default=False),
    ] = None,
    vertex: Annotated[
        bool,
        typer.Option("--vertex", help="With --output: without what only Kubernetes knows, for Vertex AI Pipelines."),
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; fail when a file is not up to date.")] = False,
) -> None:
    """Write what is generated from the code: compiled pipelines, component.yaml files, the JSON Schema, tables.

    With --output: only a copy of one pipeline, to upload.
    """
    if output:
        text = compiled.read(pipeline, registry, tag or compiled.content_tag())
        if project:
            from pipelines import profiles  # it imports what few commands need

            text = profiles.configured(text, load_project(project).settings.cluster)
        with reaching(str(output)):
            write_whole(output, compiled.without_platform(text) if vertex else text)
        _out.print("wrote", output, markup=False)
        return
    from pipelines.generated import generate

    stale = generate(check)
    for path in stale:
        _out.print("stale" if check else "wrote", path.relative_to(ROOT), markup=False)
    if check and stale:
        raise InputError(
            f"{len(stale)} generated files are not up to date (allowed: 0); run `make generate` and commit"
        )


@app.command()
def show(pipeline: Annotated[str, typer.Argument(help="Which compiled pipeline.")] = "training") -> None:
    """Print a pipeline's stages, what each waits for, and its image."""
    from pipelines.graph import read_graph

    graph = read_graph(compiled.read(pipeline))
    labels = {task.name: task.label for task in graph.tasks}
    for task in graph.tasks:
        waits = "at the end, whatever happened" if task.is_exit else f"after {', '.join(labels[n] for n in task.after)}"
        image = task.image.rpartition("/")[2]
        _out.print(f"{task.label:<22}[dim]{image:<19}{waits if task.after or task.is_exit else ''}[/]")
    _out.print()
    table = Table("argument", "type", "default", title="arguments", title_justify="left", box=None)
    for argument in graph.arguments:
        table.add_row(argument.name, argument.type, argument.default)
    _out.print(table)


def main() -> int:
    """Runs the command line and gives its exit code; a user's mistake is one line a fault, no traceback."""
    try:
        result = app(standalone_mode=False, prog_name="python -m pipelines")
    except ProjectError as error:
        for fault in error.faults:
            _err.print(fault, markup=False)
        return error.exit_code
    except LockgateError as error:
        _err.print(f"{error.label}: {error}", markup=False)
        return error.exit_code
    except typer.TyperException as error:
        _err.print(f"{getattr(error, 'format_message', error.__str__)()}; see --help", markup=False)
        return InputError.exit_code
    return result if isinstance(result, int) else 0
