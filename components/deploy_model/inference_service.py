"""The InferenceService: what it must be, and whether it is."""

import hashlib
import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from components.settings import Deployment

Object = dict[str, Any]

MANAGED_BY = "app.kubernetes.io/managed-by"
SERVICE_LABEL = "lockgate.dev/service"
VERSION = "lockgate.dev/model-version"
RUN = "lockgate.dev/run"
SPEC = "lockgate.dev/spec"
"""On the pods: which spec they were made from."""
SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"
"""On the pods, by KServe: which model they load."""
CONTAINER = "kserve-container"
_MODE = "serving.kserve.io/deploymentMode"
_AUTOSCALER = "serving.kserve.io/autoscalerClass"
_SECRET = "serving.kserve.io/storageSecretName"
_CANARY = "-canary"


def canary_name(service: str) -> str:
    """Gives the name of the InferenceService in which a new model proves itself."""
    return service + _CANARY


def workload_name(name: str) -> str:
    """Gives the name of an InferenceService's Deployment and Service."""
    return f"{name}-predictor"


def predictor(settings: Deployment, service: str, storage_uri: str) -> Object:
    """Builds `spec.predictor`.

    Args:
        settings: section `deployment`.
        service: name of the model in URLs: the same for stable and canary.
        storage_uri: of the model.
    """
    resources = settings.resources
    limits = {"memory": resources.memory_limit, **({"cpu": resources.cpu_limit} if resources.cpu_limit else {})}
    spec: Object = {
        "minReplicas": settings.min_replicas,
        "maxReplicas": settings.max_replicas or settings.min_replicas,
        # An old pod goes when a new one is ready.
        "deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "model": {
            "modelFormat": {"name": settings.model_format},
            "runtime": settings.runtime,
            "storageUri": storage_uri,
            "env": [{"name": "LOCKGATE_MODEL_NAME", "value": service}, *_request_log(settings)],
            "resources": {"requests": {"cpu": resources.cpu, "memory": resources.memory}, "limits": limits},
        },
    }
    if settings.request_log.uri and settings.request_log.credentials:
        name = settings.request_log.credentials
        kinds = ("secretRef", "configMapRef")
        spec["model"]["envFrom"] = [{kind: {"name": name, "optional": True}} for kind in kinds]
    if settings.service_account:
        spec["serviceAccountName"] = settings.service_account
    if settings.node_selector:
        spec["nodeSelector"] = dict(settings.node_selector)
    spec["annotations"] = {SPEC: digest(spec)}
    return spec


def _request_log(settings: Deployment) -> list[dict[str, str]]:
    log = settings.request_log
    if not log.uri:
        return []
    given = {"LOCKGATE_LOG_URI": log.uri, "LOCKGATE_LOG_SAMPLE": str(log.sample)}
    if log.redact:
        given["LOCKGATE_REDACT"] = ",".join(log.redact)
    return [{"name": name, "value": value} for name, value in given.items()]


def digest(spec: Object) -> str:
    """Names a predictor's spec."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


def storage_uri_of(spec: Object) -> str:
    """Tells which model a predictor's spec names; empty: none."""
    return str(spec.get("model", {}).get("storageUri", ""))


def annotations(settings: Deployment) -> dict[str, str]:
    """Gives the annotations that change what KServe does."""
    ours = {
        # KServe's own default would be another, and it cannot be changed afterwards.
        _MODE: "Standard",
        _AUTOSCALER: settings.autoscaler,
    }
    return {**ours, _SECRET: settings.storage_secret} if settings.storage_secret else ours


def own_annotations(live: Object) -> dict[str, str]:
    """Gives those annotations of an InferenceService that we write."""
    notes = live["metadata"].get("annotations") or {}
    return {name: value for name, value in notes.items() if name in (VERSION, RUN, _MODE, _AUTOSCALER, _SECRET)}


def labels(service: str) -> dict[str, str]:
    """Gives our labels; KServe puts them on the pods, too."""
    return {
        MANAGED_BY: "lockgate",
        "app.kubernetes.io/part-of": "lockgate",
        "app.kubernetes.io/component": "predictor",
        SERVICE_LABEL: service,
        # The traffic's way in is a route of ours.
        "networking.kserve.io/visibility": "cluster-local",
    }


def changed(
    live: Object | None, name: str, namespace: str, service: str, spec: Object, notes: Mapping[str, str]
) -> Object | None:
    """Makes of the live InferenceService the wanted one; what others wrote beside it stays.

    Args:
        live: None: there is none.
        name: of the InferenceService.
        namespace: where it is.
        service: whose stable or canary it is.
        spec: `spec.predictor`.
        notes: annotations.

    Returns:
        The whole object; None: nothing has to change.
    """
    if live is not None and is_current(live, spec, service, notes):
        return None
    wanted: Object = deepcopy(live) if live else {"metadata": {"name": name, "namespace": namespace}, "spec": {}}
    wanted |= {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
    wanted.pop("status", None)
    metadata = wanted["metadata"]
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels(service)}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **notes}
    wanted["spec"]["predictor"] = spec
    return wanted


def is_current(live: Object, spec: Object, service: str, notes: Mapping[str, str]) -> bool:
    """Tells whether an InferenceService is the wanted one; who started the run does not matter."""
    metadata = live["metadata"]
    return (
        "deletionTimestamp" not in metadata
        and _contains(metadata.get("labels") or {}, labels(service))
        and _contains(metadata.get("annotations") or {}, {k: v for k, v in notes.items() if k != RUN})
        and serves(live, spec)
    )


def serves(live: Object, spec: Object) -> bool:
    """Tells whether an InferenceService has a predictor's spec; KServe's webhook adds defaults to it."""
    return _contains(live["spec"].get("predictor", {}), spec)


def _contains(live: Any, wanted: Any) -> bool:
    """Tells whether everything wanted is there."""
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(key in live and _contains(live[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return isinstance(live, list) and len(live) == len(wanted) and all(map(_contains, live, wanted))
    return bool(live == wanted)
