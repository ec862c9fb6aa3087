"""The gRPC side: KServe's service, where it would answer UNKNOWN, or about another version than was asked for."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from grpc import aio
from grpc_interceptor.exceptions import NotFound
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor
from kserve.protocol.grpc.server import GRPCServer
from kserve.protocol.grpc.servicer import InferenceServicer

from components.predictor.faults import NOTHING_IS_LOADED, no_version
from components.predictor.settings import Settings


class GrpcFront(GRPCServer):  # type: ignore[misc]
    """A gRPC server before KServe's data plane."""

    def __init__(self, data_plane: DataPlane, version: str, settings: Settings) -> None:
        """Args: version: of the served model."""
        super().__init__(settings.grpc_port, data_plane, None, {}, grace_period=int(settings.grace_seconds + 0.999))
        self._version = version
        self._options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", settings.max_body_bytes),
        ]

    async def start(self, max_workers: int | None = None) -> None:
        """Serves until it is stopped. KServe's own start takes no other service or interceptors than KServe's."""
        self._server = aio.server(
            interceptors=(_UnreadableToStatus(), ExceptionToStatusInterceptor()), options=self._options
        )
        add_GRPCInferenceServiceServicer_to_server(_Service(self._data_plane, self._version), self._server)
        self._server.add_insecure_port(f"[::]:{self._port}")
        await self._server.start()
        await self._server.wait_for_termination()


class _Service(InferenceServicer):  # type: ignore[misc]
    """One model, in one version."""

    def __init__(self, data_plane: DataPlane, version: str) -> None:
        super().__init__(data_plane, None)
        self._data_plane = data_plane
        self._version = version

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._check(request.model_name, request.model_version)
        return await super().ModelInfer(request, context)

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._check(request.name, request.version)
        return await super().ModelReady(request, context)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._check(request.name, request.version)
        return await super().ModelMetadata(request, context)

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotFound(NOTHING_IS_LOADED)

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotFound(NOTHING_IS_LOADED)

    def _check(self, name: str, version: str) -> None:
        self._data_plane.get_model_from_registry(name)
        if version not in ("", self._version):
            raise NotFound(no_version(name, version, self._version))


class _UnreadableToStatus(aio.ServerInterceptor):  # type: ignore[misc]
    """Answers bytes that are no message with INVALID_ARGUMENT; the library says UNKNOWN and logs a traceback."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Takes the reading of requests into the method."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None

        async def answer(serialized: bytes, context: Any) -> Message:
            try:
                request = handler.request_deserializer(serialized)
            except DecodeError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the request cannot be read: {error}")
            return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(answer, None, handler.response_serializer)
