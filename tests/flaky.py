"""A proxy before a server of the tests, which fails as networks and overloaded servers do."""

import contextlib
import http.client
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("503", "reset", "answer lost", "cut off", "silent")
_CODES = {"403": "AccessDenied", "503": "ServiceUnavailable"}
_HOP = ("transfer-encoding", "connection", "content-length", "date", "server")


@dataclass
class Flaky:
    """How the proxy behaves."""

    url: str = ""
    fault: str = ""
    """One of FAULTS, or 403; empty: none."""
    every: int = 1
    """Which requests meet the fault: 3 is each third."""
    requests: int = 0
    faults: int = 0


@contextlib.contextmanager
def before(server: str) -> Iterator[Flaky]:
    """Runs the proxy on a free port."""
    flaky = Flaky()
    target = urlsplit(server).netloc
    lock, over = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            with lock:
                flaky.requests += 1
                fault = flaky.fault if flaky.requests % flaky.every == 0 else ""
                flaky.faults += bool(fault)
            if fault in _CODES:
                self._send(int(fault), [], f"<Error><Code>{_CODES[fault]}</Code></Error>".encode())
            elif fault == "reset":
                self._reset()
            elif fault == "silent":
                over.wait()
                self._reset()
            else:
                self._pass_on(body, fault)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _handle  # noqa: N815

        def _pass_on(self, body: bytes, fault: str) -> None:
            connection = http.client.HTTPConnection(target, timeout=60)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            if fault == "answer lost":
                self._reset()
                return
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
            length = answer.getheader("content-length") if self.command == "HEAD" else str(len(content))
            self._send(answer.status, [*headers, ("Content-Length", length or "0")], content, cut=fault == "cut off")

        def _send(self, status: int, headers: list[tuple[str, str]], content: bytes, cut: bool = False) -> None:
            self.send_response(status)
            for name, value in headers or [("Content-Length", str(len(content)))]:
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut:
                self._reset()

        def _reset(self) -> None:
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
            self.close_request(request)  # as it is: an orderly end would come before the reset

        def handle_error(self, *arguments: object) -> None:
            """The client may be gone."""

    proxy = Server(("127.0.0.1", 0), Handler)
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    flaky.url = f"http://127.0.0.1:{proxy.server_port}"
    try:
        yield flaky
    finally:
        over.set()
        proxy.shutdown()
        proxy.server_close()
