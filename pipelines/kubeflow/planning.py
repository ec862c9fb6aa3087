"""What a run will be, before anything is asked of the cluster."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.errors import InputError
from pipelines import compiled, profiles, submission
from pipelines.kubeflow.api import Api, Object
from pipelines.kubeflow.runs import STOPPED, Run, list_runs, parse_tags, write_tags
from pipelines.kubeflow.submitting import (
    Request,
    experiment_id,
    images_in,
    read_compiled,
    require_reachable,
    require_small,
    runtime_config,
    start,
    text_of,
    timestamped,
    uncached,
    upload,
)
from pipelines.project import LoadedProject, load_project

MONITORING, BATCH_PREDICTION = "monitoring", "batch-prediction"
"""The pipeline that takes a window."""
INPUTS = "inputs"
"""The tag that names everything that decides a run's result."""
BACKFILL, SPAN = "backfill", "span"
RESERVED = frozenset({"project", "pipeline", "window", INPUTS, BACKFILL, SPAN})
"""Tags that are not the user's."""


@dataclass(frozen=True)
class Choice:
    """What the user chose beside the project."""

    pipeline: str
    registry: str
    image_tag: str
    compiled: Path | None
    cache: bool
    analysis_cache: str
    pipeline_root: str
    service_account: str
    window: str = ""
    """What the monitoring pipeline judges."""


@dataclass(frozen=True)
class Plan:
    """A run that can be started."""

    project: LoadedProject
    text: str
    """The compiled pipeline."""
    arguments: dict[str, Any]
    tags: dict[str, str]
    request: Request

    def find(self, api: Api) -> Run | None:
        """Finds the run on the same inputs that is under way or has passed."""
        same = list_runs(api, description__contains=f"{INPUTS}={self.tags[INPUTS]}")
        return next((run for run in same if self.tags.items() <= run.tags.items() and run.state not in STOPPED), None)

    def schedule(self, api: Api, wanted: Object, experiment: str, tags: Mapping[str, str]) -> Object:
        """Uploads the pipeline, unless it is there already, and makes a schedule of it.

        Args:
            api: to ask.
            wanted: name, trigger and the like, as KFP takes them.
            experiment: of the runs; empty: the project's name.
            tags: of the schedule, beside the plan's.
        """
        settings = self.project.settings
        version = upload(api, self.text, {"project": settings.name})
        return api.post(
            "/apis/v2beta1/recurringruns",
            {
                **wanted,
                "description": write_tags({**self.tags, **tags}),
                "experiment_id": experiment_id(api, experiment or settings.name),
                "pipeline_version_reference": version.reference,
                "runtime_config": runtime_config(self.arguments, self.request),
            },
        )

    def start(self, api: Api, name: str, experiment: str, note: Callable[[str], None]) -> Run:
        """Uploads the pipeline, unless it is there already, and starts the run."""
        settings = self.project.settings
        version = upload(api, self.text, {"project": settings.name})
        note(f"{version.pipeline}: version {version.name}{' uploaded' if version.new else ', as uploaded before'}")
        run = start(
            api,
            version,
            self.arguments,
            name or timestamped(settings.name),
            experiment or settings.name,
            self.tags,
            self.request,
        )
        note(f"{run.name}: run {run.id} on {self.tags['window']}")
        return run


def own_tags(given: Sequence[str]) -> dict[str, str]:
    """Reads the tags that a user gives.

    Raises:
        InputError: one is not like team=ml, or has a name of ours.
    """
    tags = parse_tags(list(given))
    if taken := sorted(tags.keys() & RESERVED):
        raise InputError(f"--tag {taken[0]}=…: the name is taken by what every run gets; use another")
    return tags


def plan(project: Path, overrides: Sequence[str], choice: Choice, tags: Mapping[str, str]) -> Plan:
    """Reads and checks a project, and pins what the run will read.

    Raises:
        InputError: the project, or an option, is wrong.
        DataRejectedError: a span is missing.
        UnavailableError: a storage does not answer.
    """
    loaded = load_project(project, overrides)
    text = pipeline_text(loaded, choice)
    name = name_of(text)
    require_reachable(loaded, to_predict=name == BATCH_PREDICTION)
    if name == MONITORING:
        prepared = submission.prepare_monitoring(loaded, choice.window)
    elif choice.window:
        raise InputError(f"--window {choice.window}: pipeline '{name}' judges none; set data.window")
    elif name == BATCH_PREDICTION:
        prepared = submission.prepare_batch(loaded)
    else:
        prepared = submission.prepare(loaded, choice.analysis_cache, *images_in(text))
    arguments = submission.accepted(text, prepared)
    require_small(arguments)
    own = {
        "project": loaded.settings.name,
        "pipeline": name,
        "window": prepared.spans,
        INPUTS: prepared.inputs[:12],
    }
    return Plan(
        loaded,
        text,
        arguments,
        own | dict(tags),
        Request(choice.pipeline_root, choice.service_account or loaded.settings.cluster.service_account),
    )


def name_of(text: str) -> str:
    """Gives the name of a compiled pipeline."""
    return str(compiled.documents(text)[0]["pipelineInfo"]["name"])


def plan_schedule(project: Path, overrides: Sequence[str], choice: Choice, tags: Mapping[str, str]) -> Plan:
    """Reads and checks a project whose runs Kubeflow will start; what `plan` pins, they pin themselves.

    Raises:
        InputError: the project, or an option, is wrong, or every run would read the same.
        DataRejectedError: a span is missing now.
        UnavailableError: a storage does not answer.
    """
    from pipelines.kubeflow.pinning import DIGEST, PINNED, pinning  # imports kfp, which takes 2 s

    planned = plan(project, overrides, choice, tags)
    settings = planned.project.settings
    if planned.tags["pipeline"] == MONITORING:
        # Each run judges the last whole period before the time it was scheduled for, however late it starts.
        prepared = submission.prepare_monitoring(planned.project, pin=False)
        own = {name: value for name, value in planned.tags.items() if name != INPUTS} | {"window": prepared.spans}
        return replace(planned, arguments=submission.accepted(planned.text, prepared), tags=own)
    window = settings.data.window
    if window != "all" and "last" not in window:
        raise InputError(
            f"data.window is '{window}': each run of the schedule would read the same; let it move, e.g. --set "
            "data.window='last 12 months'"
        )
    pinned = set(PINNED)
    if planned.tags["pipeline"] == BATCH_PREDICTION and settings.batch.model != submission.PRODUCTION:
        pinned.remove("production_model")  # it is the same version every time
    arguments = {name: value for name, value in planned.arguments.items() if name not in pinned}
    arguments.setdefault("publication", {"store": planned.project.resolve(settings.publication.store)})
    moving = {"window": window, "split": settings.data.split.model_dump(mode="json", exclude_none=True)}
    arguments["data"] = planned.arguments["data"] | moving
    # As the digest of the inputs has them: neither the model card's copy nor where the model is served.
    decisive = {
        name: value
        for name, value in arguments.items()
        if name not in ("config", "deployment", "deployment_target", "analysis_cache")
    }
    arguments[DIGEST] = digest_of([decisive, compiled.code_digest()])
    require_small(arguments)
    return replace(
        planned,
        text=pinning(planned.text, pinned),
        arguments=arguments,
        tags={name: value for name, value in planned.tags.items() if name != INPUTS} | {"window": window},
    )


def pipeline_text(project: LoadedProject, choice: Choice) -> str:
    """Gives the compiled pipeline as this project runs it."""
    if choice.compiled:
        text = read_compiled(choice.compiled)
    else:
        text = text_of(choice.pipeline, choice.registry, choice.image_tag)
    text = profiles.configured(text, project.settings.cluster)
    return text if choice.cache else uncached(text)


def digest_of(value: Any) -> str:
    """Names a value by its content."""
    return submission.digest_of(value)[:12]
