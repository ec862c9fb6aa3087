"""The cluster: objects as plain dicts, faults as ours, one deadline over all."""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2
from lightkube import Client, KubeConfig
from lightkube.config import client_adapter
from lightkube.config.kubeconfig import SERVICE_ACCOUNT
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.apps_v1 import Deployment, ReplicaSet
from lightkube.resources.coordination_v1 import Lease
from lightkube.resources.core_v1 import Event, Pod, Service
from lightkube.types import CascadeType

from components.errors import InputError, UnavailableError

Object = dict[str, Any]
"""A Kubernetes object."""

INFERENCE_SERVICE = create_namespaced_resource("serving.kserve.io", "v1beta1", "InferenceService", "inferenceservices")
SERVING_RUNTIME = create_namespaced_resource("serving.kserve.io", "v1alpha1", "ServingRuntime", "servingruntimes")
HTTP_ROUTE = create_namespaced_resource("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")
DEPLOYMENT, REPLICA_SET, POD, SERVICE, EVENT, LEASE = Deployment, ReplicaSet, Pod, Service, Event, Lease

_WEBHOOK = "denied the request: "
_TRANSIENT = (429, 500, 502, 503, 504)
_ANSWER_SECONDS = 10.0
_STARTING = (401, 403)
_STARTING_SECONDS = 60.0
"""An API server that has just started may not know anybody's permissions yet."""


class ConflictError(Exception):
    """Somebody else was faster: the object exists, or is not the one that was read."""


class MissingKindError(InputError):
    """The API server does not know a kind: what brings it is not installed."""


class Cluster:
    """One namespace of the cluster that the environment leads to.

    In a pod that is its own cluster, else what KUBECONFIG names.

    Every method raises:
        InputError: no cluster is configured, not allowed, or refused; the line has the API server's words.
        UnavailableError: no answer before the deadline.
    """

    def __init__(self, namespace: str, seconds: float) -> None:
        """Finds the cluster.

        Args:
            namespace: of all objects.
            seconds: until the deadline.
        """
        self.namespace = namespace
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._away_at = -math.inf
        """When the API server did not answer for the last time."""
        self.on_pause: Callable[[], None] = lambda: None
        """Called now and then while something is waited for."""
        # The same choice as lightkube's: the pod's service account first.
        self._inside = Path(SERVICE_ACCOUNT, "token").is_file()
        timeout = httpx2.Timeout(_ANSWER_SECONDS)
        try:
            config = KubeConfig.from_env().get()
            assert config is not None
            self._client = Client(config=config, namespace=namespace, timeout=timeout, field_manager="lockgate")
            # From outside the way to pods is through the API server; from inside it is direct, without any proxy.
            self._api = client_adapter.Client(config, client_adapter.ConnectionParams(timeout=timeout))
            self._http = httpx2.Client(timeout=timeout, trust_env=False) if self._inside else self._api
        except (ConfigError, KeyError, OSError) as error:
            raise InputError(f"no cluster: {error}; set KUBECONFIG, or run in a pod with a service account") from error

    # ------------------------------------------------------------------------------------------------- time

    def pause(self, seconds: float, waiting_for: str) -> None:
        """Sleeps.

        Raises:
            UnavailableError: the deadline is over.
        """
        end = time.monotonic() + seconds
        while True:
            if time.monotonic() >= self._end:
                raise UnavailableError(
                    f"{waiting_for}: not done after {self._seconds:g} s (deployment.timeout_seconds); the same run "
                    "goes on where it stood"
                )
            self.on_pause()
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 2.0))

    # ---------------------------------------------------------------------------------------------- objects

    def get(self, kind: Any, name: str) -> Object | None:
        """Reads an object; None: there is none."""
        return self._call(f"{kind.__name__} '{name}'", lambda: self._client.get(kind, name).to_dict(), absent=None)

    def find(self, kind: Any, labels: Mapping[str, str] | None = None) -> list[Object]:
        """Reads the objects of a kind that have the labels."""
        found: list[Object] = self._call(
            f"{kind.__name__}s", lambda: [one.to_dict() for one in self._client.list(kind, labels=dict(labels or {}))]
        )
        return found

    def apply(self, kind: Any, name: str, change: Callable[[Object | None], Object | None]) -> Object:
        """Makes an object what `change` makes of the live one, deciding again whenever somebody else was faster.

        Args:
            kind: of the object.
            name: of the object.
            change: takes the live object, or None, and gives the whole wanted one; None: leave it.
        """
        while True:
            live = self.get(kind, name)
            wanted = change(live)
            if wanted is None:
                assert live is not None
                return live
            try:
                return self.write(kind, wanted)
            except ConflictError:
                self.pause(0.2, f"{kind.__name__} '{name}' is changed by others all the time")

    def write(self, kind: Any, wanted: Object) -> Object:
        """Replaces the object that was read, by its resourceVersion, or creates one when it has none.

        Raises:
            ConflictError: somebody else was faster.
        """
        name = wanted["metadata"]["name"]
        new = "resourceVersion" not in wanted["metadata"]
        body = kind.from_dict(wanted)
        written: Object = self._call(
            f"{kind.__name__} '{name}'",
            lambda: (self._client.create(body) if new else self._client.replace(body)).to_dict(),
        )
        return written

    def delete(self, kind: Any, name: str) -> None:
        """Deletes an object, and waits until it is gone."""
        # In the foreground: what it owns goes first.
        self._call(
            f"{kind.__name__} '{name}'",
            lambda: self._client.delete(kind, name, cascade=CascadeType.FOREGROUND),
            absent=None,
        )
        while self.get(kind, name) is not None:
            self.pause(0.5, f"{kind.__name__} '{name}' is being deleted")

    def log(self, pod: str, container: str, previous: bool, lines: int = 20) -> list[str]:
        """Reads the end of a container's log; nothing when there is none."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        try:
            wanted: dict[str, str | int | bool] = {"container": container, "previous": previous, "tailLines": lines}
            response = self._api.get(path, params=wanted)
        except httpx2.TransportError:
            return []
        return response.text.splitlines() if response.status_code == 200 else []

    def _call(self, what: str, request: Callable[[], Any], **absent: None) -> Any:
        """Sends a request, again and again while the API server is out of reach.

        Args:
            what: for messages.
            request: sends it.
            **absent: `absent=None`: a missing object is None; else it is an error.
        """
        while True:
            try:
                return request()
            except ApiError as error:
                code, message = error.status.code, error.status.message or ""
                if code == 404 and "could not find the requested resource" in message:
                    raise MissingKindError(f"{what}: the cluster has no such kind of object") from error
                if code == 404 and absent:
                    return None
                if code == 409:
                    raise ConflictError(message) from error
                starting = code in _STARTING and time.monotonic() < self._away_at + _STARTING_SECONDS
                if not (code in _TRANSIENT or starting) or _WEBHOOK in message:
                    raise InputError(
                        f"{what} in namespace '{self.namespace}': {message.rpartition(_WEBHOOK)[2]}"
                    ) from error
                reason = message
                if not starting:
                    self._away_at = time.monotonic()
            except httpx2.HTTPStatusError as error:
                code = error.response.status_code
                if code == 404:
                    raise MissingKindError(f"{what}: the cluster has no such kind of object") from error
                reason = f"HTTP {code}"
            except httpx2.TransportError as error:
                reason = f"{type(error).__name__}: {error}"
                self._away_at = time.monotonic()
            self.pause(1.0, f"{what}: the API server does not answer ({reason})")

    # ------------------------------------------------------------------------------------------------- HTTP

    def ask_service(self, name: str, path: str, body: Any) -> httpx2.Response:
        """Posts JSON, which may have NaN in it, to the first port of a Service.

        Raises:
            httpx2.TransportError: no answer.
        """
        service = self.get(SERVICE, name)
        if service is None:
            raise UnavailableError(
                f"Service '{name}' in namespace '{self.namespace}' is gone; start the same run again"
            )
        port = service["spec"]["ports"][0]
        request: dict[str, Any] = {"content": json.dumps(body), "headers": {"content-type": "application/json"}}
        if not self._inside:
            response = self._http.post(f"{self._proxy('services', name, port['port'])}{path}", **request)
            _require_permission(response)
            return response
        # A Service without an address of its own leads to the pods' ports.
        number = port["targetPort"] if service["spec"].get("clusterIP") == "None" else port["port"]
        return self._http.post(f"http://{name}.{self.namespace}.svc:{number}{path}", **request)

    def read_pod(self, pod: Object, path: str) -> str | None:
        """Gets a text from the first port of a pod's first container; None: it does not answer."""
        name = pod["metadata"]["name"]
        ports = pod["spec"]["containers"][0].get("ports") or [{"containerPort": 8080}]
        number = ports[0]["containerPort"]
        address = pod.get("status", {}).get("podIP", "")
        base = f"http://{address}:{number}" if self._inside else self._proxy("pods", name, number)
        try:
            response = self._http.get(f"{base}{path}")
        except httpx2.TransportError:
            return None
        if not self._inside:
            _require_permission(response)
        return response.text if response.status_code == 200 else None

    def _proxy(self, kind: str, name: str, port: int) -> str:
        return f"/api/v1/namespaces/{self.namespace}/{kind}/{name}:{port}/proxy"


def _require_permission(response: httpx2.Response) -> None:
    """Makes sure that it was not the API server that refused, on the way to a pod."""
    if response.status_code == 403 and '"kind":"Status"' in response.text:
        raise InputError(f"{response.json()['message']}; from outside of the cluster the way to pods needs this")
