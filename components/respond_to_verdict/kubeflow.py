"""Starts a run of training on Kubeflow Pipelines: like those of a schedule that exists, on another window."""

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import InputError
from components.monitoring_responses import StartedPerhapsError
from components.pipelines_api import PipelinesApi, UnansweredError, own_namespace
from components.settings import Response

_RUNS = "/apis/v2beta1/runs"
_SCHEDULES = "/apis/v2beta1/recurringruns"
_PAGE_SIZE = "100"


@dataclass(frozen=True)
class Request:
    """What to train on, and why."""

    project: str
    schedule: str
    """Name of the recurring run."""
    window: str
    judged: str
    """The window that monitoring judged."""
    evidence: str

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the run, as those that `submit` starts have them."""
        return {
            "project": self.project,
            "pipeline": "training",
            "window": self.window,
            "judged": self.judged,
            "evidence": self.evidence,
        }


class Kubeflow:
    """The runs of one installation.

    Every method raises:
        InputError: the API refuses, or there is no such schedule.
        UnavailableError: it does not answer.
    """

    def __init__(self, api: PipelinesApi, namespace: str = "") -> None:
        """Asks nothing yet.

        Args:
            api: to ask.
            namespace: of the runs; empty: the pod's, where the installation has one for each user.
        """
        self._api = api
        self._wanted = namespace

    @classmethod
    def of(cls, response: Response) -> "Kubeflow":
        """Finds the installation that the settings name.

        Raises:
            InputError: the token cannot be read.
        """
        if not response.kfp_url:
            return cls(PipelinesApi.of_this_pod(), response.namespace)
        token = ""
        if response.token_file:
            try:
                token = Path(response.token_file).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise InputError(
                    f"monitoring.response.token_file: '{response.token_file}' cannot be read: {error.strerror}"
                ) from error
        return cls(PipelinesApi(response.kfp_url.rstrip("/"), token), response.namespace)

    def find(self, request: Request) -> tuple[str, str] | None:
        """Finds the run that was started for the evidence: its id and its window."""
        tag = f"evidence={request.evidence}"
        for run in self._all(_RUNS, "runs", _filter("IS_SUBSTRING", "description", tag)):
            lines = str(run.get("description") or "").splitlines()
            if {tag, f"project={request.project}"} <= set(lines):
                window = next((line.partition("=")[2] for line in lines if line.startswith("window=")), "")
                return str(run["run_id"]), window
        return None

    def start(self, request: Request, begin: Callable[[], None]) -> tuple[str, str]:
        """Starts a run; gives its id and its window.

        Args:
            request: what to train on.
            begin: called right before; raises when it is too late.

        Raises:
            StartedPerhapsError: nobody knows whether it was started.
        """
        body = _run_like(self._schedule(request.schedule), request)
        begin()
        try:
            made = self._api.post(_RUNS, body)
        except UnansweredError as error:
            raise StartedPerhapsError(
                f"{error}; whether training was started is not known: run monitoring again, which finds out"
            ) from error
        return str(made["run_id"]), request.window

    def _schedule(self, name: str) -> dict[str, Any]:
        found = list(self._all(_SCHEDULES, "recurringRuns", _filter("EQUALS", "display_name", name)))
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(str(one["recurring_run_id"]) for one in found)
            raise InputError(f"{len(found)} schedules are named '{name}' ({ids}); remove all but one")
        raise InputError(
            f"there is no schedule '{name}' whose run could be started; make one: python -m pipelines schedule create "
            f"PROJECT --name {name} --every 1w --paused"
        )

    def _all(self, path: str, key: str, predicate: str) -> Iterator[dict[str, Any]]:
        query = {"filter": predicate, "page_size": _PAGE_SIZE, "sort_by": "created_at desc"}
        if namespace := self._namespace():
            query["namespace"] = namespace
        while True:
            answer = self._api.get(path, **query)
            yield from answer.get(key) or []
            query["page_token"] = str(answer.get("next_page_token") or "")
            if not query["page_token"]:
                return

    def _namespace(self) -> str:
        if not self._wanted and self._api.get("/apis/v2beta1/healthz").get("multi_user"):
            self._wanted = own_namespace()
            if not self._wanted:
                raise InputError("this Kubeflow has a namespace for each user; name it: monitoring.response.namespace")
        return self._wanted


def _filter(operation: str, key: str, value: str) -> str:
    return json.dumps({"predicates": [{"operation": operation, "key": key, "string_value": value}]})


def _run_like(schedule: dict[str, Any], request: Request) -> dict[str, Any]:
    """Gives the run that a schedule would start, on another window."""
    name = schedule.get("display_name", request.schedule)
    config = copy.deepcopy(schedule.get("runtime_config") or {})
    data = config.get("parameters", {}).get("data")
    if not isinstance(data, dict) or config["parameters"].get("name") != request.project:
        raise InputError(
            f"schedule '{name}' trains no project '{request.project}'; name its own by monitoring.response.schedule"
        )
    data["window"] = request.window
    same = ("pipeline_version_reference", "pipeline_spec", "experiment_id", "service_account")
    return {
        **{key: schedule[key] for key in same if schedule.get(key)},
        "display_name": f"{request.project}-retrain-{request.evidence[:8]}",
        "description": "\n".join(f"{key}={value}" for key, value in request.tags.items()),
        "runtime_config": config,
    }
