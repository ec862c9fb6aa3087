"""kubectl, against one context."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from components.errors import InputError, UnavailableError
from pipelines.kind.manifests import Object, bundle, parse

_MANAGER = "lockgate-kind"
_PAUSE_SECONDS = 2.0
# How the API server says that what it calls, or itself, is not up yet.
_STARTING = (
    "failed calling webhook",
    "connection refused",
    "no endpoints available",
    "the server could not find the requested resource",
    "no matches for kind",
    "etcdserver",
    "i/o timeout",
    "EOF",
)
_PULL_FAULTS = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull")
_CRASH = "CrashLoopBackOff"
_BACK_OFF = ("ImagePullBackOff", _CRASH)
_PULL_SECONDS = 90.0
# In the log of a Go program: glog's fatal line, a panic, an error of a structured log.
_FATAL = re.compile(r"^F\d{4} |^panic: |\"level\":\"(error|fatal)\"|level=(error|fatal)")
_LINE = 300


class Kubectl:
    """Runs kubectl against one cluster."""

    def __init__(self, path: str, context: str) -> None:
        self._path = path
        self._context = context

    def __call__(self, *arguments: str, given: str = "") -> str:
        """Runs a command and gives what it prints.

        Raises:
            UnavailableError: it failed; the line has its words.
        """
        done = self._run(*arguments, given=given)
        if done.returncode:
            raise UnavailableError(f"kubectl {' '.join(arguments[:3])}: {_said(done)}")
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """Gives what `kubectl get` finds, None where there is nothing of that kind or name."""
        done = self._run("get", *arguments, "-o", "json", "--request-timeout=10s")
        if done.returncode == 0:
            return json.loads(done.stdout)
        if "NotFound" in done.stderr or "doesn't have a resource type" in done.stderr:
            return None
        raise UnavailableError(f"kubectl get {' '.join(arguments)}: {_said(done)}")

    def render(self, folder: Path) -> list[Object]:
        """Renders a kustomization.

        Raises:
            InputError: it is not whole.
        """
        done = subprocess.run([self._path, "kustomize", str(folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(f"the manifests of '{folder.name}' cannot be rendered: {_said(done)}; `make vendor`?")
        return parse(done.stdout)

    def apply(self, objects: Iterable[Object], seconds: float) -> None:
        """Applies objects; again, while the API server is not ready for them.

        Raises:
            InputError: they are refused.
            UnavailableError: the API server did not take them in time.
        """
        given = bundle(objects)
        end = time.monotonic() + seconds
        options = ("--server-side", "--force-conflicts", f"--field-manager={_MANAGER}", "-f", "-")
        while (done := self._run("apply", *options, given=given)).returncode:
            starting = any(sign in done.stderr for sign in _STARTING)
            if not starting:
                raise InputError(f"the cluster refuses an object: {_said(done)}")
            if time.monotonic() > end:
                raise UnavailableError(f"the cluster takes no objects: {_said(done)}; see `make kind-status`")
            time.sleep(_PAUSE_SECONDS)

    def wait_for_deployments(
        self, wanted: Collection[tuple[str, str]], seconds: float, say: Callable[[str], None]
    ) -> None:
        """Waits until Deployments serve with the pods that they should have.

        Args:
            wanted: namespaces and names.
            seconds: how long.
            say: gets what is waited for.

        Raises:
            InputError: an image cannot be had.
            UnavailableError: not in time; the line says why.
        """
        started = time.monotonic()
        self._end_back_off({namespace for namespace, _ in self._not_ready(wanted)})
        while True:
            waiting = self._not_ready(wanted)
            if not waiting:
                return
            elapsed = time.monotonic() - started
            say(f"waiting for {', '.join(name for _, name in sorted(waiting))}")
            if elapsed > _PULL_SECONDS and (lacking := self._lacking_images({namespace for namespace, _ in waiting})):
                raise InputError(
                    f"the node cannot pull {', '.join(lacking)}; `docker pull` them where that works and "
                    "`make kind-up` again, or set IMAGE_REGISTRY to a mirror"
                )
            if elapsed > seconds:
                raise UnavailableError(f"not ready after {seconds:.0f} s: {self._why(waiting)}; start again to go on")
            time.sleep(_PAUSE_SECONDS)

    def _not_ready(self, wanted: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        found = {_key(one): one for one in self.get("deployments", "-A")["items"]}
        return {key for key in wanted if key not in found or not is_ready(found[key])}

    def _end_back_off(self, namespaces: Collection[str]) -> None:
        """Deletes the pods that failed until now: what they failed at may be there, and the next try minutes away."""
        for namespace in namespaces:
            for pod in self.get("pods", "-n", namespace)["items"]:
                if any(status["state"].get("waiting", {}).get("reason") in _BACK_OFF for status in _statuses(pod)):
                    self("delete", "pod", pod["metadata"]["name"], f"--namespace={namespace}", "--wait=false")

    def _lacking_images(self, namespaces: Collection[str]) -> list[str]:
        lacking = {
            status["image"]
            for namespace in namespaces
            for pod in self.get("pods", "-n", namespace)["items"]
            for status in _statuses(pod)
            if status["state"].get("waiting", {}).get("reason") in _PULL_FAULTS
        }
        return sorted(lacking)

    def _why(self, waiting: Collection[tuple[str, str]]) -> str:
        """Says what the pods of each Deployment are at."""
        lines = []
        for namespace, name in sorted(waiting):
            pods = [pod for pod in self.get("pods", "-n", namespace)["items"] if _belongs(pod, name)]
            states = {state for pod in pods for state in (*_states(pod), *self._last_words(pod))}
            lines.append(f"{name} ({', '.join(sorted(states)) or 'no pod'})")
        return ", ".join(lines)

    def _last_words(self, pod: Object) -> list[str]:
        """Gives why each container ended that is started again and again, as far as its log tells."""
        lines = []
        for status in _statuses(pod):
            if status["state"].get("waiting", {}).get("reason") == _CRASH:
                namespace, name = _key(pod)
                options = ("--previous", "--tail=50", f"--namespace={namespace}", f"--container={status['name']}")
                lines.append(cause_in(self._run("logs", name, *options).stdout))
        return [line for line in lines if line]

    def _run(self, *arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
        command = [self._path, "--context", self._context, *arguments]
        return subprocess.run(command, input=given, capture_output=True, text=True, check=False)


def cause_in(log: str) -> str:
    """Gives the line of a log that says why a program ended: the last fatal one, else the last."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    fatal = [line for line in lines if _FATAL.search(line)]
    return (fatal or lines or [""])[-1][:_LINE]


def is_ready(deployment: Object) -> bool:
    """Tells whether a Deployment has all its pods, of its newest template."""
    wanted = deployment["spec"].get("replicas", 1)
    status = deployment.get("status", {})
    return (
        status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
        and status.get("updatedReplicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted == status.get("replicas", 0)
    )


def _key(one: Object) -> tuple[str, str]:
    return one["metadata"]["namespace"], one["metadata"]["name"]


def _belongs(pod: Object, deployment: str) -> bool:
    return any(
        owner["kind"] == "ReplicaSet" and owner["name"].rpartition("-")[0] == deployment
        for owner in pod["metadata"].get("ownerReferences", ())
    )


def _statuses(pod: Object) -> list[Object]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def _states(pod: Object) -> list[str]:
    reasons = [one["state"]["waiting"].get("reason", "") for one in _statuses(pod) if "waiting" in one["state"]]
    unscheduled = [
        condition.get("message", "")
        for condition in pod.get("status", {}).get("conditions", ())
        if condition["type"] == "PodScheduled" and condition["status"] == "False"
    ]
    return [reason for reason in (*reasons, *unscheduled) if reason] or [pod.get("status", {}).get("phase", "Pending")]


def _said(done: "subprocess.CompletedProcess[str]") -> str:
    lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("Warning:")]
    return lines[-1] if lines else f"ended with {done.returncode}"
