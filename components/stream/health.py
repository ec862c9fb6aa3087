"""The stream's own little server: /live, /ready, /metrics, and /status for people."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from components.errors import InputError


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: a client that goes away while it is answered is no fault of ours."""


class Health:
    """What is known of the stream's state, served on a port."""

    def __init__(self, port: int, silence_seconds: float, summary: Callable[[], dict[str, Any]]) -> None:
        """Serves until the process ends.

        Args:
            port: 0: a free one.
            silence_seconds: without a sign of life, after which the stream counts as stuck.
            summary: for /status.

        Raises:
            InputError: the port is taken.
        """
        self.ready = False
        self._silence = silence_seconds
        self._seen = time.monotonic()
        self._summary = summary
        try:
            self._server = _Server(("", port), self._handler())
        except OSError as error:
            raise InputError(f"port {port} cannot be had: {error.strerror}; give another with --port") from error
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def alive(self) -> None:
        """Notes a sign of life."""
        self._seen = time.monotonic()

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        silent = time.monotonic() - self._seen
        match path.partition("?")[0]:
            case "/live":
                live = silent < self._silence
                return (
                    200 if live else 503,
                    "text/plain",
                    b"live\n" if live else f"silent for {silent:.0f} s\n".encode(),
                )
            case "/ready":
                return 200 if self.ready else 503, "text/plain", b"ready\n" if self.ready else b"not ready\n"
            case "/metrics":
                return 200, CONTENT_TYPE_LATEST, generate_latest()
            case "/status":
                return 200, "application/json", json.dumps(self._summary() | {"ready": self.ready}).encode()
        return 404, "text/plain", b"there are: /live /ready /metrics /status\n"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                code, kind, body = answer(self.path)
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        return Handler
