"""Logs that the API server does not hand out: of a pod that still runs, or of a workflow that Argo has packed."""

import base64
import json
import re
from typing import Any

from components.errors import InputError, LockgateError
from pipelines.kubeflow.api import Api, NotFoundError

_ARCHIVED = re.compile(r"/apis/v2beta1/runs/([^/]+)/nodes/([^/]+)/artifacts/main-logs:read")


class WithPods:
    """An API that asks elsewhere for what it does not find.

    For the log of a pod the API server of a single-user installation looks in no namespace, and is refused. So as long
    as a log is not archived, only Kubeflow's pages have it, and Kubernetes.
    """

    def __init__(self, api: Api) -> None:
        self._api = api

    def get(self, path: str) -> dict[str, Any]:
        """Reads an object."""
        try:
            return self._api.get(path)
        except NotFoundError as error:
            match = _ARCHIVED.fullmatch(path)
            if match is None:
                raise
            return {"data": base64.b64encode(self._elsewhere(match[1], match[2], error)).decode()}

    def text(self, path: str) -> str:
        """Reads what is not JSON."""
        try:
            return self._api.text(path)
        except NotFoundError as error:
            # Kubeflow's pages pass on only a part of the API. Said as the API says that there is no log.
            return json.dumps({"error_message": str(error)})

    def _elsewhere(self, run_id: str, pod: str, why: LockgateError) -> bytes:
        namespace = self._api.namespace or self._api.system_namespace
        try:
            log = self._api.page("/k8s/pod/logs", podname=pod, runid=run_id, podnamespace=namespace)
            if not log.lstrip().lower().startswith((b"<!doctype html", b"<html")):
                return log
            pages: LockgateError = NotFoundError("a page for browsers answers")
        except LockgateError as error:
            pages = error
        try:
            return self._api.kubernetes(f"/api/v1/namespaces/{namespace}/pods/{pod}/log", container="main")
        except LockgateError as error:
            raise InputError(
                f"no log of pod '{pod}': the API: {why}; Kubeflow's pages: {pages}; Kubernetes: {error}; give the "
                "address of the pages (svc/ml-pipeline-ui) as --host, or connect by the kubeconfig"
            ) from error
