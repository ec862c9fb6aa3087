"""The HTTP side: storages post events to it.

| answer | when |
|---|---|
| 200 | nothing to do: not our data, not all spans there yet, or started before |
| 202 | retraining was started |
| 400, 404, 405, 411, 413 | no event of a kind that we know; the cause is in the body |
| 401 | no or a wrong token |
| 500 | the project or what it should start needs mending; the log has the cause |
| 503 | storage or CI do not answer: the sender should try again |
"""

import json
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from components.errors import InputError, UnavailableError
from pipelines.triggers.authentication import Authenticate
from pipelines.triggers.decision import Action
from pipelines.triggers.events import written_objects
from pipelines.triggers.trigger import Trigger

PATH = "/events"
HEALTH = "/healthz"

_MAX_BYTES = 1 << 20
"""S3 sends at most 256 KiB."""
_MAX_CONNECTIONS = 32
_SECONDS = 10.0
"""How long a client may be silent."""

Log = Callable[[str], None]


class Receiver(ThreadingHTTPServer):
    """A server for one project's events."""

    daemon_threads = True
    request_queue_size = _MAX_CONNECTIONS

    def __init__(self, host: str, port: int, trigger: Trigger, authenticate: Authenticate, log: Log) -> None:
        """Listens; `serve_forever` answers.

        Raises:
            InputError: the address is taken, or not ours.
        """
        self.trigger = trigger
        self.authenticate = authenticate
        self.log = log
        self._places = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise InputError(f"{host}:{port}: {error.strerror or error}; choose another --listen or --serve") from error

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a thread for a connection, unless there are too many."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answers a connection's request."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says that a client went away; a bug keeps its traceback."""
        if isinstance(sys.exception(), OSError):
            self.log(f"{client_address[0]}: the connection broke off")
        else:
            super().handle_error(request, client_address)


class _RefusedError(Exception):
    """The request is not one that we answer."""

    def __init__(self, status: HTTPStatus, cause: str, **headers: str) -> None:
        super().__init__(cause)
        self.status = status
        self.headers = headers


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    timeout = _SECONDS
    server_version, sys_version = "lockgate", ""

    def do_GET(self) -> None:
        """Tells that the server is there."""
        if self.path == HEALTH:
            self._answer(HTTPStatus.OK, {"status": "ok"})
        elif self.path == PATH:
            self._answer(HTTPStatus.METHOD_NOT_ALLOWED, {"error": f"events are sent by POST to {PATH}"}, Allow="POST")
        else:
            self._answer(HTTPStatus.NOT_FOUND, {"error": f"events go to {PATH}"})

    def do_POST(self) -> None:
        """Takes an event."""
        try:
            body = self._body()
            decision = self.server.trigger.pull(self._written(body))
        except _RefusedError as refused:
            self._answer(refused.status, {"error": str(refused)}, **refused.headers)
        except UnavailableError as error:
            self.server.log(f"{error.label}: {error}")
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)}, **{"Retry-After": "60"})
        except InputError as error:
            # The sender can do nothing about it: who runs the receiver must.
            self.server.log(f"{error.label}: {error}")
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "see the receiver's log"})
        else:
            self.server.log(f"{decision.action}: {decision.reason}")
            status = HTTPStatus.ACCEPTED if decision.action is Action.START else HTTPStatus.OK
            self._answer(status, {name: str(value) for name, value in vars(decision).items() if value})

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answers what is no request, or one of a method that nobody wrote; the default is a page of HTML."""
        self.request_version = "HTTP/1.0"  # what could not be parsed would be answered without headers
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self._answer(HTTPStatus.METHOD_NOT_ALLOWED, {"error": f"events are sent by POST to {PATH}"}, Allow="POST")
        else:
            self._answer(HTTPStatus(code), {"error": message or HTTPStatus(code).phrase})

    def _body(self) -> bytes:
        """Reads the request's body.

        Raises:
            _RefusedError: it is not asked as it should be.
        """
        if self.path != PATH:
            raise _RefusedError(HTTPStatus.NOT_FOUND, f"events go to {PATH}")
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not self.server.authenticate(token.strip()):
            raise _RefusedError(HTTPStatus.UNAUTHORIZED, "no token that counts here", **{"WWW-Authenticate": "Bearer"})
        length = self.headers.get("Content-Length")
        if length is None:
            raise _RefusedError(HTTPStatus.LENGTH_REQUIRED, "send Content-Length")
        if not (length.isascii() and length.isdecimal()):
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "Content-Length is no number")
        if int(length) > _MAX_BYTES:
            raise _RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{length} bytes (limit: {_MAX_BYTES}); an event is smaller"
            )
        try:
            body = self.rfile.read(int(length))
        except TimeoutError:
            raise _RefusedError(HTTPStatus.REQUEST_TIMEOUT, f"no more bytes for {_SECONDS:g} s") from None
        if len(body) < int(length):
            raise _RefusedError(HTTPStatus.BAD_REQUEST, f"{len(body)} of {length} bytes arrived")
        return body

    def _written(self, body: bytes) -> list[str]:
        try:
            return written_objects(body, dict(self.headers))
        except InputError as error:
            self.server.log(f"refused: {error}")
            raise _RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error

    def _answer(self, status: HTTPStatus, content: dict[str, str], **headers: str) -> None:
        body = json.dumps(content).encode()
        # What is left unread of a refused request must not be taken for the next one.
        self.close_connection = True
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the decisions are logged instead."""
