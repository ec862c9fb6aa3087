"""A namespace in memory, with what KServe and a gateway would do at once; no part of the Kubernetes client is used."""

import copy
import itertools
import math
from collections.abc import Mapping
from typing import Any

import httpx2

from components.deploy_model.cluster import (
    DEPLOYMENT,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    POD,
    REPLICA_SET,
    SERVICE,
    SERVING_RUNTIME,
    Cluster,
    ConflictError,
    MissingKindError,
    Object,
)
from components.deploy_model.inference_service import SOURCE, SPEC, storage_uri_of
from components.deploy_model.route import canary_percent
from components.errors import InputError, UnavailableError

NAMESPACE = "lockgate"
SERVICE_NAME = "flights"


class KilledError(BaseException):
    """Stands for the death of the process."""


class SimulatedCluster(Cluster):
    """Objects of one namespace.

    A model is what its URI says: good, wrong, broken, slow, fickle (good as canary), dying or hanging (under traffic).
    """

    def __init__(self, seconds: float = 1000.0) -> None:
        self.namespace = NAMESPACE
        self.objects: dict[tuple[Any, str], Object] = {}
        self.writes: list[str] = []
        self.die_at: int | None = None
        """At which write the process dies: before it is done."""
        self.traffic: list[int] = []
        """Shares of the canary, one after the other."""
        self.ready_for = math.inf
        """Seconds for which a Service had been ready when it got traffic, at the least."""
        self.has_gateway_api = True
        self.breaks_later: set[str] = set()
        """URIs of models whose pods do not start any more."""
        self.refuses: set[str] = set()
        """Names of InferenceServices that an admission webhook refuses to write."""
        self.latency = {"good": 0.01, "fickle": 0.01, "slow": 0.1}
        self.under_traffic: dict[str, Object] = {
            "dying": {"containerStatuses": [{"name": "kserve-container", "restartCount": 1}]},
            "hanging": {"conditions": [{"type": "Ready", "status": "False"}]},
        }
        """What pods have in their status then."""
        self.on_pause = lambda: None
        self._ids = itertools.count(1)
        self._left = seconds
        self._requests: dict[str, int] = {}
        self._ready_at: dict[str, float] = {}
        for name, protocol in {"lockgate-predictor": "v2", "lockgate-tensorflow-serving": "grpc-v1"}.items():
            self.objects[SERVING_RUNTIME, name] = {
                "metadata": {"name": name},
                "spec": {"protocolVersions": ["v1", protocol]},
            }

    # --------------------------------------------------------------------------------------------- interface

    def pause(self, seconds: float, waiting_for: str) -> None:
        self._left -= max(seconds, 0.01)
        if self._left < 0:
            raise UnavailableError(f"{waiting_for}: not done")
        self.on_pause()

    def get(self, kind: Any, name: str) -> Object | None:
        if kind is HTTP_ROUTE and not self.has_gateway_api:
            raise MissingKindError("HTTPRoute")
        found = self.objects.get((kind, name))
        return copy.deepcopy(found)

    def find(self, kind: Any, labels: Mapping[str, str] | None = None) -> list[Object]:
        wanted = (labels or {}).items()
        return [
            copy.deepcopy(one)
            for (of, _), one in self.objects.items()
            if of is kind and wanted <= one["metadata"].get("labels", {}).items()
        ]

    def write(self, kind: Any, wanted: Object) -> Object:
        name = wanted["metadata"]["name"]
        if kind is INFERENCE_SERVICE and name in self.refuses:
            raise InputError(f"InferenceService '{name}': models need a ticket")
        self._count(f"{kind.__name__} {name}")
        live = self.objects.get((kind, wanted["metadata"]["name"]))
        if (live or {}).get("metadata", {}).get("resourceVersion") != wanted["metadata"].get("resourceVersion"):
            raise ConflictError
        written = copy.deepcopy(wanted)
        written["metadata"] |= {"resourceVersion": str(next(self._ids)), "uid": written["metadata"]["name"]}
        written["metadata"]["generation"] = written["metadata"].get("generation", 0) + 1
        self.objects[kind, wanted["metadata"]["name"]] = written
        if kind is INFERENCE_SERVICE:
            self._roll_out(written)
        if kind is HTTP_ROUTE:
            self._accept(written)
        return copy.deepcopy(written)

    def delete(self, kind: Any, name: str) -> None:
        self._count(f"delete {kind.__name__} {name}")
        self.objects.pop((kind, name), None)
        if kind is INFERENCE_SERVICE:
            assert f"{name}-predictor" not in self._backends(), f"{name} is deleted while it gets traffic"
            for workload in (DEPLOYMENT, SERVICE, REPLICA_SET, POD):
                self.objects.pop((workload, f"{name}-predictor"), None)

    def log(self, pod: str, container: str, previous: bool, lines: int = 20) -> list[str]:
        return ["Traceback …", "OSError: no space left"]

    def ask_service(self, name: str, path: str, body: Any) -> httpx2.Response:
        assert path == f"/v1/models/{SERVICE_NAME}:predict"
        value = 0.9 if self._behaviour(name) == "wrong" else 0.5
        if not self._is_tensorflow_serving(name):
            return httpx2.Response(200, json={"predictions": [{"probability": value} for _ in body["instances"]]})
        if any(one is None for row in body["instances"] for one in row.values()):
            return httpx2.Response(400, json={"error": "JSON Value: null Type: Null is not of expected type: float"})
        return httpx2.Response(200, json={"predictions": [value for _ in body["instances"]]})

    def read_pod(self, pod: Object, path: str) -> str | None:
        name = pod["metadata"]["name"]
        if self._is_tensorflow_serving(name):
            return (
                '# TYPE :tensorflow:serving:request_count counter\n:tensorflow:serving:request_count{status="OK"} 7\n'
            )
        if self._behaviour(name) not in self.latency:
            return None
        requests = self._requests[name] = self._requests.get(name, 0) + 1000
        seconds = requests * self.latency[self._behaviour(name)]
        return (
            f'# TYPE lockgate_requests counter\nlockgate_requests_total{{protocol="v1",code="200"}} {requests}\n'
            "# TYPE lockgate_request_seconds histogram\n"
            f'lockgate_request_seconds_sum{{protocol="v1",phase="predict"}} {seconds}\n'
        )

    # ----------------------------------------------------------------------------------------------- inside

    def _count(self, what: str) -> None:
        if "Lease" not in what:
            self.writes.append(what)
            if self.die_at is not None and len(self.writes) == self.die_at:
                raise KilledError
        elif self.die_at is not None and len(self.writes) >= self.die_at:
            raise KilledError  # the dead release nothing

    def _is_tensorflow_serving(self, workload: str) -> bool:
        live = self.objects[INFERENCE_SERVICE, workload.removesuffix("-predictor")]
        return bool(live["spec"]["predictor"]["model"]["runtime"] == "lockgate-tensorflow-serving")

    def _behaviour(self, workload: str) -> str:
        uri = self.objects[SERVICE, workload]["uri"]
        return str(uri).split("/")[2]

    def _roll_out(self, service: Object) -> None:
        name, predictor = f"{service['metadata']['name']}-predictor", service["spec"]["predictor"]
        uri = storage_uri_of(predictor)
        behaviour = uri.split("/")[2]
        fickle = behaviour == "fickle" and not service["metadata"]["name"].endswith("-canary")
        good = behaviour != "broken" and not fickle and uri not in self.breaks_later
        notes = {SOURCE: uri, SPEC: predictor.get("annotations", {}).get(SPEC)}
        labels = {"serving.kserve.io/inferenceservice": service["metadata"]["name"]}
        owner = {"ownerReferences": [{"uid": name}], "labels": labels}
        waiting = {"name": "kserve-container", "image": "x", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
        ready = {"observedGeneration": 1, "updatedReplicas": 1, "replicas": 1, "availableReplicas": 1}
        self.objects[DEPLOYMENT, name] = {
            "metadata": {"name": name, "uid": name, "generation": 1},
            "spec": {"replicas": 1, "template": {"metadata": {"annotations": notes}}},
            "status": ready if good else {**ready, "updatedReplicas": 0},
        }
        self.objects[REPLICA_SET, name] = {"metadata": {"name": name, "uid": name, **owner}}
        self.objects[POD, name] = {
            "metadata": {"name": name, **owner},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}
            if good
            else {"containerStatuses": [waiting]},
        }
        if good or (SERVICE, name) not in self.objects:
            self.objects[SERVICE, name] = {"metadata": {"name": name}, "uri": uri}
            self._ready_at[name] = self._left

    def _backends(self) -> list[str]:
        route = self.objects.get((HTTP_ROUTE, SERVICE_NAME))
        return [backend["name"] for backend in route["spec"]["rules"][0]["backendRefs"]] if route else []

    def _accept(self, route: Object) -> None:
        for backend in self._backends():
            assert (SERVICE, backend) in self.objects, f"traffic goes to {backend}, which is not there"
            assert self._behaviour(backend) != "wrong", f"traffic goes to {backend}, which answers wrongly"
            assert self._behaviour(backend) != "broken", f"traffic goes to {backend}, which does not run"
            self.objects[POD, backend]["status"] |= self.under_traffic.get(self._behaviour(backend), {})
            self.ready_for = min(self.ready_for, self._ready_at[backend] - self._left)
        self.traffic.append(canary_percent(route, SERVICE_NAME))
        conditions = [
            {"type": name, "status": "True", "observedGeneration": route["metadata"]["generation"]}
            for name in ("Accepted", "ResolvedRefs")
        ]
        route["status"] = {"parents": [{"parentRef": route["spec"]["parentRefs"][0], "conditions": conditions}]}
