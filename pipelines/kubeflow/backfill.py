"""`python -m pipelines backfill`: one run a span, over a range of spans.

What was done is told by the runs on the cluster alone: their tags say to which backfill and span they belong. So a
backfill that was stopped, here or by anybody else, goes on where it stood.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from components import images
from components.errors import InputError, UnavailableError
from components.spans import KAFKA, resolve
from pipelines import submission
from pipelines.kubeflow import planning
from pipelines.kubeflow.api import Api
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
from pipelines.kubeflow.outcome import outcome_of
from pipelines.kubeflow.runs import Run, list_runs, summary_of
from pipelines.kubeflow.submitting import timestamped
from pipelines.kubeflow.watching import look
from pipelines.project import LoadedProject, load_project

_PAUSE = 5.0
_PATIENCE = 15 * 60.0


class Rerun(StrEnum):
    """Which of the spans that have a run get another one."""

    NONE = "none"
    FAILED = "failed"
    ALL = "all"


@dataclass
class Work:
    """A span, and what has become of it."""

    span: str
    window: str
    run: Run | None = None
    submitted: bool = False
    """By this command."""

    def is_to_do(self, rerun: Rerun) -> bool:
        """Whether it needs a run of this command's."""
        if self.submitted:
            return False
        if self.run is None:
            return True
        return self.run.is_over and (rerun is Rerun.ALL or (rerun is Rerun.FAILED and self.run.state != "SUCCEEDED"))

    @property
    def is_running(self) -> bool:
        """Whether its run is under way."""
        return self.run is not None and not self.run.is_over


@connected
def backfill(
    api: Connect,
    project: ProjectArgument,
    first: Annotated[str, typer.Option("--from", help="First span, e.g. 2013-01.")],
    last: Annotated[str, typer.Option("--to", help="Last span, e.g. 2013-09.")],
    spans: Annotated[int, typer.Option(min=1, help="How many spans a run reads: that one and those before it.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, help="How many runs at a time.")] = 1,
    rerun: Annotated[
        Rerun, typer.Option(help="Which spans that have a run already get another: none, failed or all.")
    ] = Rerun.NONE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    pipeline: PipelineOption = "training",
    overrides: SetOption = None,
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
    """Run a pipeline for each span of a range, some at a time; goes on where it was stopped.

    In a value of --set, {span} stands for the span, e.g. --set data.split.eval_from={span}-22.
    """
    choice = planning.Choice(pipeline, registry, image_tag, compiled, cache, "", pipeline_root, service_account)
    given = planning.own_tags(tags or [])
    loaded = load_project(project, _for_span(overrides or [], first, first))
    work = _work(loaded, first, last, spans, planning.pipeline_text(loaded, choice))
    key = _key(loaded, overrides or [], choice, spans)
    _find_runs(api(), key, work)
    if dry_run:
        _print(work, rerun, as_json)
        return

    def start(one: Work) -> Run:
        planned = planning.plan(
            project,
            _for_span(overrides or [], one.span, one.window),
            choice,
            {**given, planning.BACKFILL: key, planning.SPAN: one.span},
        )
        name = timestamped(f"{loaded.settings.name}-{one.span}")
        return planned.start(api(), name, experiment, lambda line: None)

    try:
        _run(api(), key, work, rerun, concurrency, start)
    except KeyboardInterrupt:
        err.print("what runs goes on; the same command picks it up")
        raise typer.Exit(130) from None
    _print(work, Rerun.NONE, as_json)
    failed = [one.run for one in work if one.run and one.run.state != "SUCCEEDED"]
    if failed:
        codes = [outcome_of(api(), look(api(), run)).exit_code for run in failed]
        raise typer.Exit(next((code for code in codes if code), 1))


def _work(project: LoadedProject, first: str, last: str, spans: int, text: str) -> list[Work]:
    """Lists the spans of the range that the source has; of a topic, the hours, days, months or years.

    Raises:
        InputError: the source tells no spans, or the range makes no sense.
        DataRejectedError: a span in the range is missing.
    """
    source = project.resolve(project.settings.data.source)
    if planning.name_of(text) == planning.BATCH_PREDICTION:
        source = submission.rows_to_predict(project)
    if source.startswith(KAFKA):
        names = _periods(source, first, last, spans - 1)
        return [Work(span, _window(names[i : i + spans])) for i, span in enumerate(names[spans - 1 :])]
    wanted = {file.span for file in resolve(source, f"{first}..{last}")}
    everything = list(dict.fromkeys(file.span for file in resolve(source, "all")))
    work = []
    for index, span in enumerate(everything):
        if span not in wanted:
            continue
        if index + 1 < spans:
            raise InputError(f"--spans {spans}: span {span} has only {index} before it; start later, or read fewer")
        work.append(Work(span, _window(everything[index + 1 - spans : index + 1])))
    return work


def _periods(source: str, first: str, last: str, before: int) -> list[str]:
    from components.kafka_spans import periods  # the client takes 0.1 s to import

    return periods(source, first, last, before)


def _window(spans: Sequence[str]) -> str:
    return spans[0] if len(spans) == 1 else f"{spans[0]}..{spans[-1]}"


def _for_span(overrides: Sequence[str], span: str, window: str) -> list[str]:
    return [*(text.replace("{span}", span) for text in overrides), f"data.window={window}"]


def _key(project: LoadedProject, overrides: Sequence[str], choice: planning.Choice, spans: int) -> str:
    """Names a backfill by what its runs have in common: the same command finds its runs again, another does not."""
    settings = project.settings.model_dump(mode="json", exclude={"data": {"window"}}, by_alias=True)
    for override in overrides:
        if "{span}" in override:  # its value is another one in each run
            parent, _, name = override.partition("=")[0].rpartition(".")
            node = settings
            for part in parent.split(".") if parent else []:
                node = node[part]
            node[name] = override
    text = planning.pipeline_text(project, choice)
    digest = planning.digest_of([settings, project.schema_text, project.user_module, text, spans])
    return f"{project.settings.name}-{digest}"


def _find_runs(api: Api, key: str, work: Sequence[Work]) -> None:
    """Looks up the newest run of each span."""
    found: dict[str, Run] = {}
    for run in list_runs(api, description__contains=f"{planning.BACKFILL}={key}"):
        found.setdefault(run.tags.get(planning.SPAN, ""), run)
    for one in work:
        one.run = found.get(one.span, one.run)


def _run(api: Api, key: str, work: list[Work], rerun: Rerun, concurrency: int, start: Callable[[Work], Run]) -> None:
    answered = time.monotonic()
    told: set[str] = set()
    while True:
        try:
            _find_runs(api, key, work)
            _tell(work, told)
            to_do = [one for one in work if one.is_to_do(rerun)]
            for one in to_do[: max(0, concurrency - sum(one.is_running for one in work))]:
                one.run = start(one)
                one.submitted = True
                err.print(f"▶ {one.span:<10} {one.run.id}", markup=False)
            answered = time.monotonic()
        except UnavailableError as error:
            if time.monotonic() - answered > _PATIENCE:
                raise
            err.print(f"{error}; trying again", markup=False, style="yellow")
        if not any(one.is_running or one.is_to_do(rerun) for one in work):
            return
        time.sleep(_PAUSE)


def _tell(work: Sequence[Work], told: set[str]) -> None:
    for one in work:
        if one.run and one.run.is_over and one.submitted and one.run.id not in told:
            told.add(one.run.id)
            mark = "✓" if one.run.state == "SUCCEEDED" else "✗"
            err.print(f"{mark} {one.span:<10} {one.run.state.lower()} after {one.run.seconds or 0:.0f} s", markup=False)


def _print(work: Sequence[Work], rerun: Rerun, as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {
                    "span": one.span,
                    "window": one.window,
                    "run": summary_of(one.run) if one.run else None,
                    "to_do": one.is_to_do(rerun),
                }
                for one in work
            ]
        )
        return
    table = Table("span", "window", "run", "state", "", box=None)
    for one in work:
        state = one.run.state if one.run else "–"
        table.add_row(
            one.span, one.window, one.run.id if one.run else "–", state, "to be run" if one.is_to_do(rerun) else ""
        )
    out.print(table)
