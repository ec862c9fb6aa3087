"""The API of Kubeflow Pipelines, as a stage reaches it: from a pod of the same cluster."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from components.errors import InputError, UnavailableError

NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
SERVICE = "ml-pipeline"
SHARED_NAMESPACE = "kubeflow"
"""Of the API where each team has a namespace of its own."""
TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
TOKEN_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"
_PORT = 8888
_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 10.0
_ALL_SECONDS = 60.0
"""For all requests together: a page without the stages is better than a stage that hangs."""
_LARGEST = 64 * 2**20
_SHOWN = 300


class UnansweredError(UnavailableError):
    """A request was sent, and nobody knows whether it was carried out."""


class PipelinesApi:
    """Speaks to the API; gives up after a minute in all.

    Every method raises:
        InputError: the API refuses.
        UnavailableError: no answer, or not the API's.
    """

    def __init__(self, host: str, token: str = "") -> None:
        """Asks nothing yet.

        Args:
            host: URL before /apis.
            token: of a service account; empty: none.
        """
        import httpx2

        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = httpx2.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS)
        self.host = host
        self._end = time.monotonic() + _ALL_SECONDS
        # Without any proxy: it is in the same cluster.
        self._client = httpx2.Client(base_url=host, headers=headers, timeout=timeout, trust_env=False)

    @classmethod
    def of_this_pod(cls) -> "PipelinesApi":
        """Finds the API, in the pod's namespace or Kubeflow's, and a token where the pod has one for it.

        Raises:
            UnavailableError: this is no pod of Kubernetes.
        """
        namespace = own_namespace()
        if not namespace:
            raise UnavailableError("this is no pod with a service account")
        path = Path(os.environ.get(TOKEN_VARIABLE, TOKEN))
        try:
            token = path.read_text(encoding="utf-8").strip()
        except OSError:
            token = ""
        host = f"{SERVICE}.{namespace if _is_known(f'{SERVICE}.{namespace}') else SHARED_NAMESPACE}"
        return cls(f"http://{host}:{_PORT}", token)

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Reads an object."""
        return self._object(self._call("GET", path, query))

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Creates an object.

        Raises:
            UnansweredError: it may be there now.
        """
        return self._object(self._call("POST", path, {}, body))

    def text(self, path: str) -> str:
        """Reads what is not JSON."""
        return self._call("GET", path, {}).decode("utf-8", "replace")

    def _object(self, content: bytes) -> dict[str, Any]:
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise UnavailableError(f"what answers at {self.host} is not the API of Kubeflow Pipelines")
        return found

    def _call(self, method: str, path: str, query: dict[str, str], body: dict[str, Any] | None = None) -> bytes:
        import httpx2

        lost = UnansweredError if method == "POST" else UnavailableError
        content = bytearray()
        if time.monotonic() > self._end:
            raise UnavailableError(f"{self.host} takes too long to answer")
        try:
            with self._client.stream(method, path, params=query or None, json=body) as answer:
                for chunk in answer.iter_bytes():
                    content += chunk
                    if time.monotonic() > self._end or len(content) > _LARGEST:
                        raise lost(f"{self.host} takes too long to answer")
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise UnavailableError(f"{self.host} does not answer: {error or type(error).__name__}") from error
        except httpx2.HTTPError as error:
            raise lost(f"{self.host} does not answer: {error or type(error).__name__}") from error
        if answer.is_success:
            return bytes(content)
        said = f"{self.host} answers {answer.status_code} {answer.reason_phrase}"
        if method == "POST":
            said += f": {' '.join(content.decode('utf-8', 'replace').split())[:_SHOWN]}"
        if answer.is_server_error:
            raise lost(said)
        raise (InputError if answer.status_code in (400, 401, 403, 404, 409) else UnavailableError)(said)


def own_namespace() -> str:
    """Gives the namespace of this pod; empty: this is none."""
    try:
        return NAMESPACE.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _is_known(host: str) -> bool:
    try:
        socket.getaddrinfo(host, _PORT)
    except OSError:
        return False
    return True
