"""Reads from a workload's objects whether its pods serve what is wanted, and if not, why not.

KServe's own conditions cannot tell: Ready stays true for ten minutes while new pods fail beside old ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from components.deploy_model.inference_service import SOURCE, SPEC, storage_uri_of

Object = dict[str, Any]

# Waiting reasons that end only when somebody changes something. ErrImagePull is tried again, and then backs off.
_FINAL = {
    "ImagePullBackOff": "cannot be pulled",
    "InvalidImageName": "is no image name",
    "ErrImageNeverPull": "is not on the node",
    "CreateContainerConfigError": "cannot be configured",
    "CreateContainerError": "cannot be created",
    "RunContainerError": "cannot be started",
}
_CRASHES = 2
"""How often a container may crash: a download may fail once."""
_NEVER = ("not found", "didn't find available persistent volumes")
"""What a scheduler says when waiting does not help."""
_TRIED_AGAIN = "the object has been modified"
"""In an error of KServe that goes away by itself."""
_REPEATED = 5
"""How often KServe must have met an error: it tries again at once, and one that stays is there 10 times in seconds."""
_GRACE_SECONDS = 10
"""After a change, how long what KServe says may be about the state before."""


@dataclass(frozen=True)
class Observed:
    """What was read of one InferenceService at one time."""

    service: Object | None
    deployment: Object | None
    replica_sets: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    events: Sequence[Object] = ()


@dataclass(frozen=True)
class Rollout:
    """How far a rollout is."""

    state: Literal["done", "under way", "failed"]
    detail: str
    """One line: what is waited for, or the cause of the failure."""
    log_of: tuple[str, str] | None = None
    """Pod and container whose log tells more."""
    pods: Sequence[str] = field(default=())
    """Names of the pods of the newest kind."""


def read(
    observed: Observed, predictor: Mapping[str, Any], scheduling_seconds: float, since: datetime, now: datetime
) -> Rollout:
    """Tells how far the rollout of a predictor is.

    Args:
        observed: the objects.
        predictor: the wanted `spec.predictor`.
        scheduling_seconds: how long a pod may wait for room.
        since: when the InferenceService was written, with a time zone.
        now: likewise.
    """
    deployment = observed.deployment
    if deployment is None or not _is_made_from(deployment, predictor):
        refusal = _refusal(observed.service) or _controller_error(observed.events, since)
        if refusal and (now - since).total_seconds() > _GRACE_SECONDS:
            return Rollout("failed", refusal)
        return Rollout("under way", "KServe has not made the Deployment yet")
    seen = deployment.get("status", {}).get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    if seen and (failed := _failed_condition(deployment)) is not None:
        return failed
    newest = _newest(observed.replica_sets, deployment)
    if seen and newest and (failed := _refused_pods(newest)) is not None:
        return failed
    pods = [pod for pod in observed.pods if newest and _is_owned(pod, newest)]
    for pod in pods:
        if (failed := _failed_pod(pod, scheduling_seconds, now)) is not None:
            return failed
    names = [pod["metadata"]["name"] for pod in pods]
    status, wanted = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    counts = [status.get(f"{kind}eplicas", 0) for kind in ("updatedR", "r", "availableR")]
    going = len(observed.pods) - len(pods)
    if seen and counts == [wanted] * 3 and going:
        # A gateway may still have open connections to them, which end with an error when it uses one too late.
        return Rollout("under way", f"{going} old pods are going", pods=names)
    if seen and counts == [wanted] * 3:
        return Rollout("done", f"{wanted} of {wanted} pods are ready", pods=names)
    return Rollout("under way", f"{min(counts)} of {wanted} pods are ready", pods=names)


def restarts(pods: Sequence[Object]) -> int:
    """Counts how often containers of the pods were started again."""
    return sum(
        status.get("restartCount", 0) for pod in pods for status in pod.get("status", {}).get("containerStatuses") or []
    )


def is_ready(pod: Object) -> bool:
    """Tells whether a pod gets requests."""
    conditions = pod.get("status", {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def lines_of(events: Sequence[Object], last: int = 15) -> list[str]:
    """Writes the last events for people, oldest first."""
    ordered = sorted(events, key=_time_of)
    return [
        f"{_time_of(event)[11:19]} {event.get('type', '')} {event['involvedObject'].get('kind', '')}/"
        f"{event['involvedObject'].get('name', '')} {event.get('reason', '')}: {_line(event.get('message', ''))}"
        for event in ordered[-last:]
    ]


def _time_of(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")


def _is_made_from(deployment: Object, predictor: Mapping[str, Any]) -> bool:
    notes = deployment["spec"]["template"]["metadata"].get("annotations") or {}
    uri = storage_uri_of(dict(predictor))
    wanted = predictor.get("annotations", {}).get(SPEC)
    return (not uri or notes.get(SOURCE) == uri) and (not wanted or notes.get(SPEC) == wanted)


def _refusal(service: Object | None) -> str:
    status = (service or {}).get("status", {}).get("modelStatus", {})
    if status.get("transitionStatus") != "InvalidSpec":
        return ""
    failure = status.get("lastFailureInfo", {})
    return f"KServe: {failure.get('reason', 'InvalidSpec')}: {_line(failure.get('message', ''))}"


def _controller_error(events: Sequence[Object], since: datetime) -> str:
    """Finds an error that KServe tells in an event only."""
    for event in events:
        if event["involvedObject"].get("kind") != "InferenceService" or event.get("reason") != "InternalError":
            continue
        final = _TRIED_AGAIN not in event.get("message", "") and (event.get("count") or 1) >= _REPEATED
        if final and (moment := _time_of(event)) and datetime.fromisoformat(moment) >= since.replace(microsecond=0):
            return f"KServe: {_line(event.get('message', ''))}"
    return ""


def _failed_condition(deployment: Object) -> Rollout | None:
    for condition in deployment.get("status", {}).get("conditions") or []:
        if condition["type"] == "Progressing" and condition["status"] == "False":
            return Rollout("failed", f"{condition.get('reason')}: {_line(condition.get('message', ''))}")
    return None


def _refused_pods(newest: Object) -> Rollout | None:
    """Reads it from the newest ReplicaSet: the Deployment still says it of one that it has given up."""
    for condition in newest.get("status", {}).get("conditions") or []:
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return Rollout("failed", f"pods cannot be made: {_line(condition.get('message', ''))}")
    return None


def _newest(replica_sets: Sequence[Object], deployment: Object) -> Object | None:
    owned = [one for one in replica_sets if _is_owned(one, deployment)]
    return max(
        owned,
        key=lambda one: int((one["metadata"].get("annotations") or {}).get("deployment.kubernetes.io/revision", 0)),
        default=None,
    )


def _is_owned(one: Object, owner: Object) -> bool:
    return any(ref["uid"] == owner["metadata"]["uid"] for ref in one["metadata"].get("ownerReferences") or [])


def _failed_pod(pod: Object, scheduling_seconds: float, now: datetime) -> Rollout | None:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    if "deletionTimestamp" in pod["metadata"]:
        return None
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            message = _line(condition.get("message", ""))
            waited = _age(condition.get("lastTransitionTime"), now)
            if any(never in message for never in _NEVER) or waited > scheduling_seconds:
                return Rollout("failed", f"pod '{name}' finds no node: {message}")
    for container in _container_statuses(status):
        what = f"container '{container['name']}' of pod '{name}'"
        waiting = container.get("state", {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), _line(waiting.get("message", ""))
        if reason in _FINAL:
            return Rollout("failed", f"{what}: image '{container.get('image', '')}' {_FINAL[reason]}: {message}")
        if reason == "CrashLoopBackOff" and container.get("restartCount", 0) >= _CRASHES:
            ended = (container.get("lastState") or {}).get("terminated") or {}
            said = _last_line(ended.get("message", ""))
            how = f"exit code {ended.get('exitCode')}" + (f", {ended['reason']}" if ended.get("reason") else "")
            cause = f"{what} crashes ({how}, {container['restartCount']} restarts)" + (f": {said}" if said else "")
            return Rollout("failed", cause, log_of=(name, container["name"]))
    return None


def _container_statuses(status: Object) -> Iterator[Object]:
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []


def _age(moment: Any, now: datetime) -> float:
    if not moment:
        return 0.0
    return (now.astimezone(UTC) - datetime.fromisoformat(str(moment))).total_seconds()


def _line(text: str, limit: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]}…"


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return _line(lines[-1]) if lines else ""
