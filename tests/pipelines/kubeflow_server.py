"""A server on this machine that answers as the API of Kubeflow Pipelines 2.17.0 was seen to, with a login before it."""

import contextlib
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = tuple[int, Any]
"""Status, and an object for JSON or a text."""

_BOUNDARY_FILE = re.compile(rb"\r\n\r\n(.*?)\r\n--", re.DOTALL)
_ID_FIELDS = {
    "pipelines": "pipeline_id",
    "versions": "pipeline_version_id",
    "experiments": "experiment_id",
    "runs": "run_id",
    "recurringruns": "recurring_run_id",
}
_LIST_KEYS = {"recurringruns": "recurringRuns", "versions": "pipeline_versions"}
DEX_FORM = (
    '<form method="post" action="/dex/auth/local/login?back=&amp;state=abc"><input type="hidden" name="req" '
    'value="r1"/><input name="login"/><input name="password" type="password"/></form>'
)


@dataclass
class Kubeflow:
    """What the server holds, and how it behaves."""

    url: str = ""
    objects: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: {kind: {} for kind in _ID_FIELDS})
    manifests: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Workflows by run."""
    logs: dict[str, str] = field(default_factory=dict)
    """By pod."""
    archived: dict[str, str] = field(default_factory=dict)
    """By pod, base64."""
    pages: dict[str, str] = field(default_factory=dict)
    """Artifacts by key, as the pages hand them out."""
    running: dict[str, str] = field(default_factory=dict)
    """Logs by pod that only the pages and Kubernetes have."""
    is_pages: bool = False
    """Answers as Kubeflow's pages do, which pass on a part of the API."""
    multi_user: bool = False
    below: str = ""
    """Path before /apis; elsewhere is a page for browsers."""
    token: str = ""
    cookie: str = ""
    shows_login: bool = False
    """Sends whoever has no cookie to the login, instead of refusing."""
    dex: tuple[str, str] | None = None
    """Name and password."""
    broken: list[int] = field(default_factory=list)
    """Statuses of the next answers."""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    on_get_run: Callable[[str], None] = lambda run_id: None

    def seen(self, method: str, path: str) -> int:
        """Counts the requests whose path contains this."""
        return sum(m == method and path in p for m, p, _ in self.requests)

    def run(self, name: str, state: str = "SUCCEEDED", **values: Any) -> str:
        """Puts a run there; gives its id."""
        return self._add("runs", {"display_name": name, "state": state, **values})["run_id"]

    def _add(self, kind: str, given: dict[str, Any]) -> dict[str, Any]:
        one = {
            _ID_FIELDS[kind]: str(uuid.uuid4()),
            "created_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "storage_state": "AVAILABLE",
            **given,
        }
        self.objects[kind][one[_ID_FIELDS[kind]]] = one
        return one

    def answer(self, method: str, url: str, headers: dict[str, str], content: bytes) -> Answer:
        """Answers a request."""
        parts = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.requests.append((method, url, headers))
        if self.broken:
            return self.broken.pop(0), {
                "error": "upstream connect error",
                "code": 14,
                "message": "upstream connect error",
            }
        if self.token and headers.get("authorization") != f"Bearer {self.token}":
            return 401, {"code": 16, "message": "Request header error: there is no user identity header."}
        if self.cookie and self.cookie not in headers.get("cookie", ""):
            return 403, "<html>Sign in</html>"
        path = parts.path
        if match := re.fullmatch(r"/api/v1/namespaces/kubeflow/pods/([^/]+)/log", path):
            found = self.running.get(match[1])
            return (200, found) if found else (404, {"message": f'pods "{match[1]}" not found'})
        if self.below and not path.startswith(f"{self.below}/apis/"):
            return 200, "<html>Kubeflow Central Dashboard</html>"
        path = path.removeprefix(self.below)
        if path == "/artifacts/get" and self.is_pages:
            found = self.pages.get(query["key"])
            return (200, found) if found else (404, "Not Found")
        if path == "/k8s/pod/logs" and self.is_pages:
            found = self.running.get(query["podname"])
            return (200, found) if found else (404, "pod not found")
        return self._api(method, path.removeprefix("/apis/"), query, content)

    def _api(self, method: str, path: str, query: dict[str, str], content: bytes) -> Answer:
        if path == "v2beta1/healthz":
            return 200, {"multi_user": self.multi_user, "pipeline_store": "database"}
        if path.startswith("v1alpha1/") and self.is_pages:
            return 404, "Not Found"
        if match := re.fullmatch(r"v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", path):
            missing = json.dumps({"error_message": "Failed to read logs", "error_details": "…"})
            return 200, self.logs.get(match[2], missing)
        if match := re.fullmatch(r"v2beta1/runs/([^/]+)/nodes/([^/]+)/artifacts/main-logs:read", path):
            found = self.archived.get(match[2])
            return (200, {"data": found}) if found else (404, {"error_message": "artifact not found"})
        if match := re.fullmatch(r"v1beta1/runs/([^/]+)", path):
            manifest = self.manifests.get(match[1])
            return 200, {"pipeline_runtime": {"workflow_manifest": json.dumps(manifest) if manifest else ""}}
        if path == "v2beta1/pipelines/upload_version":
            return self._upload(query, content)
        match = re.fullmatch(r"v2beta1/(?:pipelines/([^/]+)/)?([a-z]+)(?:/([^/:]+))?(?::([a-z]+))?", path)
        if match is None or match[2] not in _ID_FIELDS:
            return 404, {"code": 5, "message": f"no {path}"}
        return self._object(method, match, query, content)

    def _object(self, method: str, match: re.Match[str], query: dict[str, str], content: bytes) -> Answer:
        parent, kind, name, action = match.groups()
        if name is None:
            return self._list(kind, parent, query) if method == "GET" else self._create(kind, json.loads(content))
        if kind == "runs" and method == "GET":
            self.on_get_run(name)
        one = self.objects[kind].get(name)
        if one is None:
            return 404, {"code": 5, "message": f"{kind} {name} not found."}
        if method == "DELETE":
            del self.objects[kind][name]
            return 200, {}
        if action in ("enable", "disable"):
            one["status"] = f"{action.upper()}D"
            one["mode"] = action.upper()
        if action == "terminate":
            one["state"] = "CANCELING"
            one["state_history"] = [*one.get("state_history", []), {"state": "CANCELING"}]
        return 200, {} if action else one

    def _list(self, kind: str, parent: str | None, query: dict[str, str]) -> Answer:
        found = [one for one in reversed(self.objects[kind].values()) if parent in (None, one.get("pipeline_id"))]
        for predicate in json.loads(query.get("filter", "{}")).get("predicates", []):
            key, wanted = predicate["key"], predicate["string_value"]
            contains = predicate["operation"] == "IS_SUBSTRING"
            found = [one for one in found if (wanted in one.get(key, "") if contains else one.get(key) == wanted)]
        for key in ("experiment_id", "namespace"):
            if query.get(key) and self.multi_user | (key == "experiment_id"):
                found = [one for one in found if one.get(key) == query[key]]
        begin, size = int(query.get("page_token") or 0), 2  # pages that a test turns
        more = {"next_page_token": str(begin + size)} if begin + size < len(found) else {}
        return 200, {_LIST_KEYS.get(kind, kind): found[begin : begin + size], "total_size": len(found), **more}

    def _create(self, kind: str, given: dict[str, Any]) -> Answer:
        names = [one.get("name", one.get("display_name")) for one in self.objects[kind].values()]
        if kind in ("pipelines", "experiments") and given.get("name", given["display_name"]) in names:
            return 409, {"code": 6, "message": f"The name {given['display_name']} already exist."}
        state = {"runs": {"state": "PENDING"}, "recurringruns": {"status": f"{given.get('mode')}D"}}.get(kind, {})
        return 200, self._add(kind, given | state)

    def _upload(self, query: dict[str, str], content: bytes) -> Answer:
        import yaml

        file = _BOUNDARY_FILE.search(content)
        assert file
        documents = list(yaml.safe_load_all(file[1]))
        spec = documents[0] if len(documents) == 1 else {"pipeline_spec": documents[0], "platform_spec": documents[1]}
        given = {
            "pipeline_id": query["pipelineid"],
            "name": query["name"],
            "display_name": query["name"],
            "tags": json.loads(query.get("tags", "{}")),
            "pipeline_spec": spec,
        }
        return 200, self._add("versions", given)


@contextlib.contextmanager
def serving(kubeflow: Kubeflow | None = None) -> Iterator[Kubeflow]:
    """Runs the server on a free port."""
    kubeflow = kubeflow or Kubeflow()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            if kubeflow.dex and self._dex(content.decode("utf-8", "replace"), headers):
                return
            status, found = kubeflow.answer(self.command, self.path, headers, content)
            self._send(status, found if isinstance(found, str) else json.dumps(found))

        do_GET = do_POST = do_DELETE = _handle  # noqa: N815

        def _dex(self, content: str, headers: dict[str, str]) -> bool:
            """Answers as oauth2-proxy and Dex do, where this is theirs."""
            path = urlsplit(self.path).path
            is_known = kubeflow.cookie in headers.get("cookie", "")
            is_page = not path.startswith(("/dex", "/oauth2", "/done"))
            if path == "/oauth2/start" or (kubeflow.shows_login and is_page and not is_known):
                self._send(302, "", Location="/dex/auth?client_id=kubeflow")
            elif path == "/dex/auth":
                self._send(200, '<a href="/dex/auth/local?client_id=kubeflow">local</a>')
            elif path == "/dex/auth/local":
                self._send(200, DEX_FORM)
            elif path == "/dex/auth/local/login":
                given = {name: values[0] for name, values in parse_qs(content).items()}
                if (given.get("login"), given.get("password"), given.get("req")) == (*(kubeflow.dex or ()), "r1"):
                    self._send(303, "", Location="/dex/approval?req=r1")
                else:
                    self._send(200, DEX_FORM)
            elif path == "/dex/approval" and self.command == "GET":
                field = '<input type="hidden" name="req" value="r1"/><input type="hidden" name="approval" value="{}">'
                form = f'<form method="post">{field}</form>'
                self._send(200, form.format("approve") + form.format("rejected"))
            elif path == "/dex/approval" and "approval=approve" in content:
                self._send(303, "", Location="/oauth2/callback?code=1")
            elif path == "/oauth2/callback":
                cookie = {"Set-Cookie": f"{kubeflow.cookie}; Path=/; HttpOnly"}
                self._send(302, "", Location="/done", **cookie)
            elif path == "/done":
                self._send(200, "<html>Kubeflow</html>")
            else:
                return False
            return True

        def _send(self, status: int, text: str, **headers: str) -> None:
            body = text.encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kubeflow.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield kubeflow
    finally:
        server.shutdown()
        server.server_close()
