"""From a request in any protocol to its answer: decode, wait, predict, encode, each phase measured."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from grpc_interceptor.exceptions import GrpcException, InvalidArgument, Unavailable
from kserve.model import InferenceModel
from kserve.protocol.grpc.grpc_predict_v2_pb2 import InferParameter, ModelInferResponse
from kserve.protocol.infer_type import InferRequest

from components.model_spec import DATATYPES
from components.predictor import metrics, requests, responses
from components.predictor.batching import Batcher, Job
from components.predictor.explanation import Explainer
from components.predictor.faults import RequestError, overloaded
from components.predictor.request_log import RequestLog
from components.predictor.requests import ColumnRequest, Tensor
from components.predictor.served_model import ServedModel
from components.predictor.settings import Settings
from components.rows import Arrays
from components.typical_row import arrays_of

Answer = TypeVar("Answer")

_LARGE = 64 * 1024  # bytes of a request from which its decoding would hold up others, so another thread does it
_MANY = 500  # rows, the same for encoding
_MOST_EXPLAINING = 32  # requests at one time: explaining takes so much of the model that more would not end in time


class Predictor(InferenceModel):  # type: ignore[misc]
    """The model, as KServe's server knows it."""

    def __init__(self, model: ServedModel, settings: Settings, log: RequestLog | None) -> None:
        """Starts the thread that calls the model.

        Args:
            model: loaded.
            settings: limits.
            log: of requests; None: none is kept.
        """
        super().__init__(model.facts.name)
        self.facts = model.facts
        self._model = model
        self._settings = settings
        self._log = log
        self._row_metrics = metrics.RowMetrics(model.facts)
        self._batcher = Batcher(model.predict, settings.max_batch_rows, settings.max_queue_rows, self._count_batches)
        self._explainer = Explainer(
            self.facts.spec,
            arrays_of([self.facts.example], self.facts.spec.inputs),
            self._predict_mixed,
            settings.explanation_permutations,
            settings.max_batch_rows,
        )
        self._explaining = 0
        self._turn = asyncio.Lock()
        metrics.QUEUE.set_function(lambda: self._batcher.queued)
        self._seconds = {
            protocol: [metrics.SECONDS.labels(protocol, phase) for phase in metrics.PHASES]
            for protocol in ("v1", "v2", "grpc")
        }
        self._rows = {protocol: metrics.ROWS.labels(protocol) for protocol in self._seconds}
        self.ready = True

    def load(self) -> bool:
        """Tells whether it is ready: it was loaded before the server started, and no request loads it again."""
        return bool(self.ready)

    def close(self) -> None:
        """Answers what waits, then stops."""
        self._batcher.close()

    # ---------------------------------------------------------------------------------------------- protocols

    async def answer_rows(self, body: bytes, request_id: str) -> bytes:
        """Protocol v1.

        Raises:
            RequestError: the request is at fault, or there is no room.
        """

        def decode() -> Arrays:
            return requests.from_rows(
                requests.parse_json(body), self.facts.spec, self._settings.max_rows, self.facts.keys
            )

        return await self._answer(
            "v1", request_id, len(body), decode, lambda outputs: responses.rows_of(outputs, self.facts.outputs)
        )

    async def explain_rows(self, body: bytes) -> bytes:
        """Explanations, in the manner of protocol v1. They are not logged, and counted apart from predictions.

        Raises:
            RequestError: the request is at fault, there is no room, or explanation is switched off.
        """
        if not self._settings.max_explained_rows:
            raise RequestError("explanation is switched off; start the server with max_explained_rows above 0", 404)

        def decode() -> Arrays:
            arrays = requests.from_rows(
                requests.parse_json(body), self.facts.spec, self._settings.max_explained_rows, self.facts.keys
            )
            self._without_keys(arrays)
            return arrays

        if self._explaining >= _MOST_EXPLAINING:
            raise overloaded(f"{_MOST_EXPLAINING} requests for explanations are in flight, as many as allowed")
        self._explaining += 1
        try:
            with metrics.EXPLANATION_SECONDS.time():
                arrays = await _decoded(decode, len(body))
                explanations = []
                for index in range(len(next(iter(arrays.values())))):
                    # One row at a time: a prediction waits for one call of the model at most, however many explain.
                    async with self._turn:
                        explanations.append(await self._explainer.explain(arrays, index))
                answer = responses.explanations_of(explanations, self.facts)
        finally:
            self._explaining -= 1
        metrics.EXPLAINED_ROWS.inc(len(explanations))
        return answer

    async def answer_columns(self, body: bytes, json_length: str | None, request_id: str) -> tuple[bytes, int | None]:
        """Open Inference Protocol over REST.

        Args:
            body: of the request.
            json_length: the header of the binary extension.
            request_id: where the request gives none.

        Returns:
            The body of the answer; the length of its JSON, where binary tensors follow.

        Raises:
            RequestError: the request is at fault, or there is no room.
        """
        request = ColumnRequest("", [], [], null_markers=False)
        specs = self.facts.outputs

        def decode() -> Arrays:
            nonlocal request, specs
            request = requests.parse_columns(body, json_length)
            specs = responses.chosen(request.outputs, self.facts)
            return requests.from_columns(request, self.facts.spec, self._settings.max_rows, self.facts.keys)

        def encode(outputs: Arrays) -> tuple[bytes, int | None]:
            chosen_id = request.id or request_id
            if request.binary_outputs:
                return responses.binary_columns_of(outputs, specs, self.facts, chosen_id)
            return responses.columns_of(outputs, specs, self.facts, chosen_id), None

        return await self._answer("v2", request_id, len(body), decode, encode)

    async def __call__(self, body: Any, headers: dict[str, str] | None = None, verb: Any = None) -> Any:
        """Open Inference Protocol over gRPC: KServe's servicer calls this; REST comes by the methods above."""
        code = "OK"
        metrics.IN_FLIGHT.inc()
        try:
            return await self._answer_grpc(body), {}
        except RequestError as error:
            fault: type[GrpcException] = InvalidArgument if error.status < 500 else Unavailable
            code = fault.status_code.name
            raise fault(str(error)) from error
        except Exception:
            code = "INTERNAL"
            raise
        finally:
            metrics.IN_FLIGHT.dec()
            metrics.REQUESTS.labels("grpc", code).inc()

    async def _answer_grpc(self, body: InferRequest) -> ModelInferResponse:
        parameters = {name: _chosen(parameter) for name, parameter in (body.parameters or {}).items()}
        request = ColumnRequest(
            id=body.id or "",
            tensors=[Tensor(i.name, i.datatype, list(i.shape), _content(i)) for i in body.inputs],
            outputs=[output.name for output in body.request_outputs or []],
            null_markers=requests.flag(parameters, requests.NULL_MARKERS),
            binary_outputs=bool(body.use_binary_outputs),
        )
        specs = responses.chosen(request.outputs, self.facts)

        def encode(outputs: Arrays) -> ModelInferResponse:
            response = ModelInferResponse(model_name=self.facts.name, model_version=self.facts.version, id=request.id)
            for output in specs:
                values = outputs[output.name]
                tensor = response.outputs.add(name=output.name, datatype=DATATYPES[output.dtype], shape=values.shape)
                if request.binary_outputs:
                    response.raw_output_contents.append(responses.raw(values, output))
                elif output.dtype == "string":
                    tensor.contents.bytes_contents.extend(values.tolist())
                else:
                    tensor.contents.fp32_contents.extend(values.reshape(-1).tolist())
            return response

        def decode() -> Arrays:
            return requests.from_columns(request, self.facts.spec, self._settings.max_rows, self.facts.keys)

        size = sum(len(tensor.data) for tensor in request.tensors)
        return await self._answer("grpc", request.id, size, decode, encode)

    # --------------------------------------------------------------------------------------------------- all

    async def _answer(
        self,
        protocol: str,
        request_id: str,
        size: int,
        decode: Callable[[], Arrays],
        encode: Callable[[Arrays], Answer],
    ) -> Answer:
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        arrays = await _decoded(decode, size)
        keys = self._without_keys(arrays)
        decoded = time.perf_counter()
        rows = len(next(iter(arrays.values())))
        outputs, job = await self._predict(arrays, rows)
        predicted = time.perf_counter()
        responses.refuse_unspeakable(outputs, self.facts.outputs)
        answer = await loop.run_in_executor(None, encode, outputs) if rows > _MANY else encode(outputs)
        times = (started, decoded, job, predicted, time.perf_counter())
        # The answer goes out first.
        loop.call_soon(self._count, protocol, rows, times)
        if self._log:
            self._log.add(request_id, rows, *job.batch, keys, job.start)
        return answer

    def _without_keys(self, arrays: Arrays) -> Arrays:
        """Takes out what is no input of the model, and gives it."""
        return {name: arrays.pop(name) for name in self.facts.keys if name in arrays}

    async def _predict(self, arrays: Arrays, rows: int, observed: bool = True) -> tuple[Arrays, Job]:
        try:
            return await self._batcher.predict(arrays, rows, observed)
        except RequestError:
            raise
        except Exception as error:
            if self._model.is_input_error(error):
                raise RequestError(f"the model refuses the rows: {str(error).splitlines()[0][:300]}") from error
            raise

    async def _predict_mixed(self, arrays: Arrays, rows: int) -> Arrays:
        """Predicts rows that an explanation made up."""
        outputs, _ = await self._predict(arrays, rows, observed=False)
        return outputs

    def _count(self, protocol: str, rows: int, times: tuple[float, float, Job, float, float]) -> None:
        started, decoded, job, predicted, encoded = times
        decode, queue, predict, encode = self._seconds[protocol]
        decode.observe(decoded - started)
        queue.observe(job.taken_at - job.queued_at)
        predict.observe(job.done_at - job.taken_at)
        encode.observe(encoded - predicted)
        self._rows[protocol].inc(rows)

    def _count_batches(self, arrays: Arrays, outputs: Arrays, batches: Sequence[int]) -> None:
        for rows in batches:
            metrics.BATCH_ROWS.observe(rows)
        self._row_metrics.count(arrays, outputs)


async def _decoded(decode: Callable[[], Arrays], size: int) -> Arrays:
    return await asyncio.get_running_loop().run_in_executor(None, decode) if size > _LARGE else decode()


def _content(tensor: Any) -> Any:
    """Gives the raw bytes of a gRPC tensor where it has some, else its list; KServe keeps both."""
    raw = getattr(tensor, "_raw_data", None)
    return raw if raw is not None else list(tensor.data or [])


def _chosen(parameter: InferParameter) -> bool | int | str | None:
    """Gives the value of a gRPC parameter, which has a field for each type."""
    kind = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, kind) if kind else None
