"""The HTTPRoute: which share of the traffic goes to the canary."""

from copy import deepcopy
from typing import Any

from components.deploy_model.inference_service import MANAGED_BY, SERVICE_LABEL, canary_name, workload_name
from components.settings import Deployment

Object = dict[str, Any]


def changed(live: Object | None, settings: Deployment, service: str, percent: int) -> Object | None:
    """Makes of the live HTTPRoute one that sends `percent` of the traffic to the canary.

    Returns:
        The whole object; None: nothing has to change.
    """
    gateway_namespace, _, gateway = settings.gateway.partition("/")
    spec: Object = {
        "parentRefs": [
            {
                "group": "gateway.networking.k8s.io",
                "kind": "Gateway",
                "name": gateway,
                "namespace": gateway_namespace,
            }
        ],
        "hostnames": [settings.hostname],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "backendRefs": _backends(service, percent),
            }
        ],
    }
    if live is not None and _same(live["spec"], spec):
        return None
    metadata = {"name": service, "namespace": settings.namespace}
    wanted: Object = deepcopy(live) if live else {"metadata": metadata}
    wanted.pop("status", None)
    ours = {MANAGED_BY: "lockgate", SERVICE_LABEL: service}
    wanted["metadata"]["labels"] = {**(wanted["metadata"].get("labels") or {}), **ours}
    return {**wanted, "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "spec": spec}


def canary_percent(live: Object | None, service: str) -> int:
    """Tells which share of the traffic goes to the canary."""
    backends = [backend for rule in (live or {}).get("spec", {}).get("rules", []) for backend in rule["backendRefs"]]
    total = sum(backend.get("weight", 1) for backend in backends)
    to_canary = sum(b.get("weight", 1) for b in backends if b["name"] == workload_name(canary_name(service)))
    return round(100 * to_canary / total) if total else 0


def refusal(live: Object, settings: Deployment) -> str | None:
    """Tells why the gateway does not take a route.

    Returns:
        Empty: it took it. None: not known yet.
    """
    gateway_namespace, _, gateway = settings.gateway.partition("/")
    for parent in live.get("status", {}).get("parents", []):
        ref = parent["parentRef"]
        if (ref.get("namespace", settings.namespace), ref["name"]) != (gateway_namespace, gateway):
            continue
        conditions = {one["type"]: one for one in parent.get("conditions", [])}
        found = [conditions.get(name) for name in ("Accepted", "ResolvedRefs")]
        if any(one is None or one.get("observedGeneration", 0) < live["metadata"]["generation"] for one in found):
            return None
        bad = next((one for one in found if one and one["status"] != "True"), None)
        return f"gateway '{settings.gateway}': {bad['reason']}: {bad.get('message', '')}" if bad else ""
    return None


def _backends(service: str, percent: int) -> list[Object]:
    shares = {service: 100 - percent, canary_name(service): percent}
    # A backend that is not there answers its share with an error, weight 0 or not, on some gateways.
    return [
        {"group": "", "kind": "Service", "name": workload_name(name), "port": 80, "weight": share}
        for name, share in shares.items()
        if share
    ]


def _same(live: Object, wanted: Object) -> bool:
    """Compares what we write; the API server adds defaults."""
    kept = {name: live.get(name) for name in wanted}
    rules = [{name: rule.get(name) for name in ("matches", "backendRefs")} for rule in live.get("rules", [])]
    return {**kept, "rules": rules} == wanted
