"""KServe's model server around one predictor: its ports, its gRPC service, its registry, with an orderly end."""

import asyncio
import contextlib
import gc
import logging
import signal
from typing import Any

import kserve.model_server
import uvloop
from kserve import ModelServer
from kserve.errors import ModelNotFound
from kserve.model_repository import ModelRepository
from kserve.protocol.dataplane import DataPlane
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from components.predictor import responses
from components.predictor.front import Front
from components.predictor.grpc_front import GrpcFront
from components.predictor.predictor import Predictor
from components.predictor.settings import Settings

_logger = logging.getLogger("lockgate")

_GC_THRESHOLDS = (20_000, 20, 100)
"""Far apart: an answered request leaves no cycles, and rows that wait for the log would be walked through again and
again."""


class _Repository(ModelRepository):  # type: ignore[misc]
    """Holds one model for as long as the server runs."""

    def unload(self, name: str) -> None:
        """Unloads nothing: anybody who reaches the gRPC port could ask for it."""
        raise ModelNotFound(name)


class _DataPlane(DataPlane):  # type: ignore[misc]
    """Answers for health and metadata."""

    def __init__(self, registry: ModelRepository, predictor: Predictor) -> None:
        super().__init__(model_registry=registry)
        self._predictor = predictor

    async def ready(self) -> bool:
        """Tells whether requests should come here: after the warm-up, until the server is asked to stop."""
        return bool(self._predictor.ready)

    def metadata(self) -> dict[str, Any]:
        """Describes the server."""
        return {**super().metadata(), "name": "lockgate-predictor", "extensions": ["binary_tensor_data"]}

    async def model_metadata(self, model_name: str) -> dict[str, Any]:
        """Describes the model, for gRPC."""
        self.get_model_from_registry(model_name)
        described = responses.tensor_metadata(self._predictor.facts)
        return {"name": model_name, "platform": "tensorflow_savedmodel", **described}


class _OneWrite:
    """A transport that sends what is written in one turn of the event loop by one call of the kernel.

    Uvicorn writes the head of an answer, then its body; two calls take a tenth of the time of a request.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._send)
        self._parts.append(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Protocol(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = _OneWrite(transport, self.loop)  # type: ignore[assignment]


class Server(ModelServer):  # type: ignore[misc]
    """Serves until SIGTERM or SIGINT."""

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        """Args: predictor: warmed up."""
        # KServe reads these from its own command line only.
        options = kserve.model_server.args
        options.configure_logging = False
        repository = _Repository()
        super().__init__(
            http_port=settings.http_port,
            enable_grpc=False,
            registered_models=repository,
            enable_latency_logging=False,
            grace_period=int(settings.grace_seconds + 0.999),
        )
        self.dataplane = _DataPlane(repository, predictor)
        self._predictor = predictor
        self._settings = settings
        self._draining: asyncio.Task[None] | None = None

    def run(self) -> None:
        """Serves until a signal comes, and what is in flight is answered."""
        # KServe makes its loop with asyncio.run, which follows the policy.
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        # What lives now lives on; without it, each full collection walks through all of TensorFlow's modules.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        if self._settings.grpc_port:
            self._grpc_server = GrpcFront(self.dataplane, self._predictor.facts.version, self._settings)
            self.servers.append(self._grpc_server.start())
        self.start([self._predictor])

    def setup_event_loop(self) -> None:
        """Does nothing: KServe would set up a loop that is not the one it then runs."""

    def register_signal_handler(self) -> None:
        """Does nothing: see _serve."""

    async def _serve(self) -> None:
        rest = self._rest_server
        rest.config.http = _Protocol
        rest.config.proxy_headers = False  # nothing here asks who called
        rest.config.app = Front(kserve.model_server.app, self._predictor, self._settings)
        rest.config.access_log = False
        # Uvicorn would stop at once at a signal, before the cluster has stopped sending.
        rest._server.capture_signals = contextlib.nullcontext
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._drain, self._settings.drain_seconds)
        loop.add_signal_handler(signal.SIGINT, self._drain, 0.0)
        await super()._serve()
        if self._draining:
            await self._draining

    def _drain(self, seconds: float) -> None:
        if self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._stop(seconds))

    async def _stop(self, seconds: float) -> None:
        _logger.info("stopping: not ready, still answering for %g s", seconds)
        self._predictor.ready = False
        await asyncio.sleep(seconds)
        self._rest_server._server.should_exit = True
        if self._grpc_server:
            await self._grpc_server.stop()
