"""The HTTP side: what is asked of a model, answered here; the rest (health, metrics, lists) goes on to KServe's app.

KServe's own endpoints would parse a request three times, answer 422 or 500 to some bad ones, and unload the model for
anybody who asks.
"""

import logging
import random
import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from components.predictor import metrics, openapi, responses
from components.predictor.faults import NOTHING_IS_LOADED, RequestError, no_version, overloaded
from components.predictor.predictor import Predictor
from components.predictor.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PAGE = Path(__file__).with_name("page.html")

_MODEL_PATH = re.compile(
    r"/v1/models/(?P<v1>[^/]+):(?P<verb>predict|explain)"
    r"|/v2/models/(?P<v2>[^/]+)(/versions/(?P<version>[^/]+))?(/(?P<part>infer|ready))?"
)
_LEFT_TO_KSERVE = ("/", "/metrics", "/v1/models", "/v2", "/v2/models", "/v2/health/live", "/v2/health/ready")
_JSON = b"application/json"
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")

_logger = logging.getLogger("lockgate")


class Front:
    """An ASGI application before KServe's."""

    def __init__(self, app: App, predictor: Predictor, settings: Settings) -> None:
        """Args: app: KServe's."""
        self._app = app
        self._predictor = predictor
        self._settings = settings
        self._page = PAGE.read_bytes()
        self._metadata = responses.model_metadata(predictor.facts)
        self._document = openapi.document(predictor.facts, settings)
        self._left_to_kserve = {*_LEFT_TO_KSERVE, f"/v1/models/{predictor.facts.name}"}
        self._in_flight = 0
        metrics.IN_FLIGHT.set(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        match = _MODEL_PATH.fullmatch(path)
        if match is None:
            await self._other(path, method, scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given if _REQUEST_ID.fullmatch(given) else b"%016x" % random.getrandbits(64)
        protocol = "v1" if match["v1"] else "v2"
        calls_model = method == "POST" and (match["verb"] or match["part"] == "infer")
        if calls_model:
            self._in_flight += 1
            metrics.IN_FLIGHT.inc()
        extra: list[tuple[bytes, bytes]] = [(b"x-request-id", request_id)]
        status = 200
        try:
            body, more = await self._model_request(match, method, headers, receive, request_id.decode())
            extra += more
        except RequestError as error:
            status, body = error.status, responses.as_json({"error": str(error)})
            if error.retry_after:
                extra.append((b"retry-after", b"%d" % error.retry_after))
            if status == 413:
                extra.append((b"connection", b"close"))  # the rest of the body is not read
            if status == 405:
                extra.append((b"allow", b"POST" if match["verb"] or match["part"] == "infer" else b"GET"))
        except _GoneError:
            status = 499
        except Exception:
            _logger.exception("request %s failed", request_id.decode())
            status = 500
            body = responses.as_json({"error": f"internal error; the server's log has it under {request_id.decode()}"})
        finally:
            if calls_model:
                self._in_flight -= 1
                metrics.IN_FLIGHT.dec()
                if match["verb"] == "explain":  # not among those of predictions, which judge a canary
                    metrics.EXPLANATIONS.labels(str(status)).inc()
                else:
                    metrics.REQUESTS.labels(protocol, str(status)).inc()
        if status != 499:
            await _send(send, status, body, extra)

    async def _model_request(
        self, match: re.Match[str], method: str, headers: dict[bytes, bytes], receive: Receive, request_id: str
    ) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        facts = self._predictor.facts
        name, version = match["v1"] or match["v2"], match["version"]
        if name != facts.name:
            raise RequestError(f"there is no model '{name[:60]}'; this server has '{facts.name}'", 404)
        if version not in (None, facts.version):
            raise RequestError(no_version(name, version, facts.version), 404)
        if not match["verb"] and match["part"] != "infer":
            if method != "GET":
                raise RequestError(f"{method} is not allowed here; use GET", 405)
            if match["part"] == "ready":
                if not self._predictor.ready:
                    raise RequestError("the server stops", 503, retry_after=1)
                return responses.as_json({"name": name, "ready": True}), []
            return self._metadata, []
        if method != "POST":
            raise RequestError(f"{method} is not allowed here; use POST", 405)
        if self._in_flight > self._settings.max_in_flight:
            raise overloaded(f"{self._settings.max_in_flight:,} requests are in flight, as many as allowed")
        body = await self._body(headers, receive)
        if match["verb"] == "explain":
            return await self._predictor.explain_rows(body), []
        if match["v1"]:
            return await self._predictor.answer_rows(body, request_id), []
        length = headers.get(b"inference-header-content-length")
        answer, json_length = await self._predictor.answer_columns(
            body, length.decode("latin-1") if length is not None else None, request_id
        )
        if json_length is None:
            return answer, []
        return answer, [
            (b"inference-header-content-length", b"%d" % json_length),
            (b"content-type", b"application/octet-stream"),
        ]

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        limit = self._settings.max_body_bytes
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise RequestError("compressed bodies are not taken; send the body as it is", 415)
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > limit:
            raise RequestError(f"the body has {int(length):,} bytes (allowed: {limit:,}); send fewer rows", 413)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _GoneError
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise RequestError(f"the body has more than {limit:,} bytes; send fewer rows", 413)
            parts.append(part)
            if not message.get("more_body"):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _other(self, path: str, method: str, scope: Scope, receive: Receive, send: Send) -> None:
        if path == "/" and method == "GET" and b"text/html" in dict(scope["headers"]).get(b"accept", b""):
            await _send(send, 200, self._page, [(b"content-type", b"text/html; charset=utf-8")])
        elif path.startswith("/v2/repository"):
            await _send(send, 404, responses.as_json({"error": NOTHING_IS_LOADED}), [])
        elif path != "/openapi.json" and path not in self._left_to_kserve:
            error = f"there is nothing at {path[:100]!r}; /openapi.json describes what there is, the page at / tries it"
            await _send(send, 404, responses.as_json({"error": error}), [])
        elif method != "GET":
            error = f"{method} is not allowed here; use GET"
            await _send(send, 405, responses.as_json({"error": error}), [(b"allow", b"GET")])
        elif path == "/openapi.json":
            await _send(send, 200, self._document, [])
        else:
            await self._app(scope, receive, send)


class _GoneError(Exception):
    """The client went away before it had sent all."""


async def _send(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    if not any(name == b"content-type" for name, _ in headers):
        headers = [(b"content-type", _JSON), *headers]
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
