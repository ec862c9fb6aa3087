"""Keeps a model server busy for an hour: `.venvs/predictor/bin/python benchmarks/soak.py [MODEL]`, after `make run`.

Good and bad requests of every protocol at random times, with the request log on. Fails when the server answers anything
with 5xx or otherwise than it should, when its memory, files or threads grow, or when the log lacks a row.
MODEL: a version's folder in a model store; default: the newest of examples/flights.
"""

import argparse
import asyncio
import base64
import json
import os
import random
import signal
import socket
import statistics
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import numpy as np
import psutil
import pyarrow.dataset as ds

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "examples" / "flights" / "models" / "flights" / "versions"
NAME = "soak"
SECONDS_BETWEEN_SAMPLES = 5.0
WARM_UP_SHARE = 1 / 6  # of the time: allocators and caches fill
MOST_MORE_FILES = 8  # connections come and go
MOST_MORE_THREADS = 2

Row = dict[str, Any]


@dataclass
class Sample:
    """The server at one time."""

    minutes: float
    rss_mib: float
    files: int
    threads: int
    in_flight: int


@dataclass
class Outcome:
    """What a soak showed."""

    seconds: float
    warm_up_minutes: float
    samples: list[Sample] = field(default_factory=list)
    codes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Requests by kind and code."""
    unexpected: list[str] = field(default_factory=list)
    rows_answered: int = 0
    rows_logged: int = 0
    exit_code: int | None = None

    def measured(self) -> list[Sample]:
        """The samples after the warm-up."""
        return [sample for sample in self.samples if sample.minutes >= self.warm_up_minutes]


def main() -> int:
    """Runs the soak, prints a table, and tells by the exit code whether the server held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    newest = max((path for path in MODELS.glob("v*") if path.is_dir()), default=None)
    parser.add_argument("model", nargs="?", type=Path, default=newest)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=75.0, help="requests a second")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--max-growth", type=float, default=10.0, help="of memory after the warm-up by its slope, MiB")
    parser.add_argument("--json", type=Path, help="file for the figures and all samples")
    given = parser.parse_args()
    if given.model is None:
        parser.error("no model: `make run` publishes one")
    with tempfile.TemporaryDirectory(prefix="lockgate-soak-") as folder:
        log = Path(folder) / "requests"
        with _running(given.model, log) as (process, http_port, grpc_port):
            outcome = asyncio.run(
                _soak(process, http_port, grpc_port, given.model, given.minutes * 60, given.rate, given.seed)
            )
            process.send_signal(signal.SIGTERM)
            outcome.exit_code = process.wait(timeout=60)
        outcome.rows_logged = ds.dataset(log, format="parquet").count_rows() if log.is_dir() else 0
    faults = _report(outcome, given.rate, given.max_growth)
    if given.json:
        given.json.write_text(json.dumps(_figures(outcome, given.rate, faults), indent=1))
    return 1 if faults else 0


# ------------------------------------------------------------------------------------------------------ load


class Requests:
    """Requests that a server should answer alike for hours, each with the code that is right for it."""

    def __init__(self, model: Path, seed: int) -> None:
        """Args: model: whose facts and example row the requests are made from."""
        from tensorflow.core.example import example_pb2

        from components.predictor.served_model import read_facts

        self._example_type = example_pb2.Example
        self._facts = read_facts(str(model))
        self._draw = random.Random(seed)

    def rows(self) -> list[Row]:
        """Rows near the example: mostly one, sometimes hundreds."""
        count = self._draw.choices((1, 2, 5, 20, 700), (70, 10, 10, 9, 1))[0]
        return [self._row() for _ in range(count)]

    def _row(self) -> Row:
        row: Row = {}
        for i in self._facts.spec.inputs:
            value = self._facts.example.get(i.name)
            if value is None or (not i.required and self._draw.random() < 0.1):
                row[i.name] = None
            elif i.dtype == "string":
                known = sorted(self._facts.vocabularies.get(i.name, ())) or [value]
                row[i.name] = self._draw.choice([*known, f"new{self._draw.randrange(10**6)}"])
            elif i.dtype == "int64":
                row[i.name] = value + self._draw.randrange(-10, 11)
            else:
                row[i.name] = value * self._draw.uniform(0.8, 1.2)
        return row

    def instances(self, rows: list[Row]) -> bytes:
        """The rows in protocol v1."""
        return json.dumps({"instances": rows}).encode()

    def examples(self, rows: list[Row]) -> list[bytes]:
        """The rows as serialized tf.Examples."""
        return [self._serialized(row) for row in rows]

    def _serialized(self, row: Row) -> bytes:
        example = self._example_type()
        for i in self._facts.spec.inputs:
            value = row[i.name]
            if value is not None:
                feature = example.features.feature[i.name]
                if i.dtype == "string":
                    feature.bytes_list.value.append(value.encode())
                elif i.dtype == "int64":
                    feature.int64_list.value.append(value)
                else:
                    feature.float_list.value.append(value)
        return bytes(example.SerializeToString())

    def columns(self, rows: list[Row]) -> list[tuple[str, str, list[Any]]]:
        """The rows by column: name, datatype, values."""
        datatypes = {"string": "BYTES", "int64": "INT64", "float32": "FP32"}
        return [(i.name, datatypes[i.dtype], [row[i.name] for row in rows]) for i in self._facts.spec.inputs]

    def broken_rows(self) -> bytes:
        """A body of protocol v1 that is at fault in one of many ways."""
        rows = self.rows()
        last = rows[-1]
        i = self._draw.choice(self._facts.spec.inputs)
        fault = self._draw.randrange(8)
        if fault == 0:
            last[f"unknown {self._draw.randrange(10**6)}"] = 1
        elif fault == 1:
            last[i.name] = 1 if i.dtype == "string" else "text"
        elif fault == 2:
            last[i.name] = [1, 2]
        elif fault == 3:
            last[i.name] = float("nan")
        elif fault == 4:
            return self.instances(rows)[:-3]
        elif fault == 5:
            return self.instances([])
        elif fault == 6:
            return b'{"instances": [{"b64": "AAAA"}]}'
        else:
            return self._draw.randbytes(self._draw.randrange(5000))
        return self.instances(rows)


def raw(datatype: str, values: list[Any]) -> bytes:
    """A column in the binary form, with the markers of missing values."""
    if datatype == "BYTES":
        texts = [value if isinstance(value, bytes) else (value or "").encode() for value in values]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    missing, kind = (float("nan"), "<f4") if datatype == "FP32" else (np.iinfo(np.int64).min, "<i8")
    return np.array([missing if value is None else value for value in values], kind).tobytes()


class Client:
    """Sends one request of a kind, and gives the answer's code and how many rows were predicted."""

    def __init__(self, session: aiohttp.ClientSession, stub: Any, pb2: Any, requests: Requests, port: int) -> None:
        """Args: session and stub: of the server. pb2: messages of the Open Inference Protocol."""
        self._session = session
        self._stub = stub
        self._pb2 = pb2
        self._requests = requests
        self._port = port
        self._rows_url = f"/v1/models/{NAME}:predict"
        self._columns_url = f"/v2/models/{NAME}/infer"

    def kinds(self) -> Mapping[str, tuple[int, str, Callable[[], Awaitable[tuple[str, int]]]]]:
        """By kind: its weight, the code that is right, and what sends it."""
        return {
            "v1": (24, "200", self._v1),
            "v1, tf.Example": (8, "200", self._v1_examples),
            "v1, new connection": (4, "200", self._v1_anew),
            "v2": (12, "200", self._v2),
            "v2, binary": (10, "200", self._v2_binary),
            "v2, tf.Example": (4, "200", self._v2_examples),
            "gRPC": (10, "OK", self._grpc),
            "gRPC, raw": (10, "OK", self._grpc_raw),
            "gRPC, tf.Example": (4, "OK", self._grpc_examples),
            "v1, at fault": (8, "400", self._v1_broken),
            "v2, at fault": (4, "400", self._v2_broken),
            "gRPC, at fault": (4, "INVALID_ARGUMENT", self._grpc_broken),
            "gRPC, another model": (1, "NOT_FOUND", self._grpc_unknown),
            "another model": (1, "404", lambda: self._post("/v1/models/other:predict", b"{}")),
            "another method": (1, "405", self._get),
            "compressed": (1, "415", lambda: self._post(self._rows_url, b"x", {"Content-Encoding": "gzip"})),
            "too large": (1, "413", lambda: self._post(self._rows_url, b" " * (8 * 2**20 + 1))),
            "cut off": (1, "no answer", self._cut),
            "metadata": (1, "200", self._metadata),
            "explain": (1, "200", self._explain),
        }

    async def _post(
        self, path: str, body: bytes, headers: Mapping[str, str] | None = None, rows: int = 0
    ) -> tuple[str, int]:
        async with self._session.post(path, data=body, headers=headers) as response:
            await response.read()
            return str(response.status), rows if response.status == 200 else 0

    async def _v1(self) -> tuple[str, int]:
        rows = self._requests.rows()
        return await self._post(self._rows_url, self._requests.instances(rows), rows=len(rows))

    async def _explain(self) -> tuple[str, int]:
        """Explains one row; the request log has predictions only."""
        code, _ = await self._post(
            self._rows_url.replace(":predict", ":explain"), self._requests.instances(self._requests.rows()[:1])
        )
        return code, 0

    async def _v1_anew(self) -> tuple[str, int]:
        rows = self._requests.rows()
        return await self._post(self._rows_url, self._requests.instances(rows), {"Connection": "close"}, len(rows))

    async def _v1_examples(self) -> tuple[str, int]:
        rows = [{"b64": base64.b64encode(one).decode()} for one in self._requests.examples(self._requests.rows())]
        return await self._post(self._rows_url, self._requests.instances(rows), rows=len(rows))

    async def _v2(self) -> tuple[str, int]:
        rows = self._requests.rows()
        inputs = [
            {"name": name, "datatype": datatype, "shape": [len(rows)], "data": values}
            for name, datatype, values in self._requests.columns(rows)
        ]
        return await self._post(self._columns_url, json.dumps({"inputs": inputs}).encode(), rows=len(rows))

    async def _v2_binary(self) -> tuple[str, int]:
        rows = self._requests.rows()
        return await self._binary(
            [(name, datatype, raw(datatype, values)) for name, datatype, values in self._requests.columns(rows)],
            len(rows),
        )

    async def _v2_examples(self) -> tuple[str, int]:
        examples = self._requests.examples(self._requests.rows())
        return await self._binary([("examples", "BYTES", raw("BYTES", list(examples)))], len(examples))

    async def _binary(self, tensors: list[tuple[str, str, bytes]], rows: int) -> tuple[str, int]:
        inputs = [
            {"name": name, "datatype": datatype, "shape": [rows], "parameters": {"binary_data_size": len(data)}}
            for name, datatype, data in tensors
        ]
        parameters = {"null_markers": True, "binary_data_output": True}
        head = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
        body = b"".join([head, *(data for _, _, data in tensors)])
        return await self._post(self._columns_url, body, {"Inference-Header-Content-Length": str(len(head))}, rows)

    async def _grpc(self) -> tuple[str, int]:
        rows = self._requests.rows()
        request = self._grpc_request()
        for name, datatype, values in self._requests.columns(rows):
            tensor = request.inputs.add(name=name, datatype=datatype, shape=[len(rows)])
            if datatype == "BYTES":
                tensor.contents.bytes_contents.extend((value or "").encode() for value in values)
            elif datatype == "INT64":
                missing = np.iinfo(np.int64).min
                tensor.contents.int64_contents.extend(missing if value is None else value for value in values)
            else:
                tensor.contents.fp32_contents.extend(float("nan") if value is None else value for value in values)
        return await self._infer(request, len(rows))

    async def _grpc_raw(self) -> tuple[str, int]:
        rows = self._requests.rows()
        request = self._grpc_request()
        for name, datatype, values in self._requests.columns(rows):
            request.inputs.add(name=name, datatype=datatype, shape=[len(rows)])
            request.raw_input_contents.append(raw(datatype, values))
        return await self._infer(request, len(rows))

    async def _grpc_examples(self) -> tuple[str, int]:
        examples = self._requests.examples(self._requests.rows())
        request = self._grpc_request()
        tensor = request.inputs.add(name="examples", datatype="BYTES", shape=[len(examples)])
        tensor.contents.bytes_contents.extend(examples)
        return await self._infer(request, len(examples))

    async def _grpc_broken(self) -> tuple[str, int]:
        request = self._grpc_request()
        for name, datatype, values in self._requests.columns(self._requests.rows()):
            request.inputs.add(name=name, datatype=datatype, shape=[len(values)])
            request.raw_input_contents.append(raw(datatype, values)[:-1])
        return await self._infer(request, 0)

    async def _grpc_unknown(self) -> tuple[str, int]:
        return await self._infer(self._pb2.ModelInferRequest(model_name="other"), 0)

    def _grpc_request(self) -> Any:
        request = self._pb2.ModelInferRequest(model_name=NAME)
        request.parameters["null_markers"].bool_param = True
        return request

    async def _infer(self, request: Any, rows: int) -> tuple[str, int]:
        try:
            await self._stub.ModelInfer(request, timeout=60)
        except grpc.aio.AioRpcError as error:
            return error.code().name, 0
        return "OK", rows

    async def _v1_broken(self) -> tuple[str, int]:
        return await self._post(self._rows_url, self._requests.broken_rows())

    async def _v2_broken(self) -> tuple[str, int]:
        body = {"inputs": [{"name": "carrier", "datatype": "BYTES", "shape": [3], "data": ["UA"]}]}
        return await self._post(self._columns_url, json.dumps(body).encode())

    async def _get(self) -> tuple[str, int]:
        async with self._session.get(self._rows_url) as response:
            await response.read()
            return str(response.status), 0

    async def _metadata(self) -> tuple[str, int]:
        async with self._session.get(f"/v2/models/{NAME}") as response:
            await response.read()
            return str(response.status), 0

    async def _cut(self) -> tuple[str, int]:
        """Says that a body comes, sends its start, and goes away."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = f"POST {self._rows_url} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
        writer.write(head.encode() + b'{"instances": [')
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        return "no answer" if not await reader.read() else "an answer", 0


async def _soak(
    process: psutil.Process, http_port: int, grpc_port: int, model: Path, seconds: float, rate: float, seed: int
) -> Outcome:
    """Sends requests at random times, whether or not earlier ones are answered, and watches the server."""
    sys.path.insert(0, str(ROOT))
    sys.argv[1:] = []  # KServe reads the command line when it is imported
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb2
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    outcome = Outcome(seconds, seconds * WARM_UP_SHARE / 60)
    draw = random.Random(seed + 1)
    options = [("grpc.enable_http_proxy", 0)]
    async with (
        aiohttp.ClientSession(
            f"http://127.0.0.1:{http_port}",
            connector=aiohttp.TCPConnector(limit=16),
            timeout=aiohttp.ClientTimeout(total=60),
            headers={"Content-Type": "application/json"},
        ) as session,
        grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}", options=options) as channel,
    ):
        client = Client(session, GRPCInferenceServiceStub(channel), pb2, Requests(model, seed), http_port)
        kinds = client.kinds()
        names, weights = list(kinds), [weight for weight, _, _ in kinds.values()]

        async def request(kind: str) -> None:
            _, wanted, send = kinds[kind]
            try:
                code, rows = await send()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                # A client that still sends a body that is too large may see only that the connection is closed.
                code, rows = "413" if wanted == "413" and isinstance(error, OSError) else type(error).__name__, 0
            outcome.codes[kind, code] += 1
            outcome.rows_answered += rows
            if code != wanted and len(outcome.unexpected) < 100:
                outcome.unexpected.append(f"{time.strftime('%H:%M:%S')} {kind}: {code}, not {wanted}")

        started = time.monotonic()
        watching = asyncio.create_task(_watch(session, process, started, outcome.samples))
        async with asyncio.TaskGroup() as group:
            due = started
            while due < started + seconds and process.is_running():
                due += draw.expovariate(rate)
                if (pause := due - time.monotonic()) > 0:
                    await asyncio.sleep(pause)
                group.create_task(request(draw.choices(names, weights)[0]))
        watching.cancel()
        await asyncio.sleep(1)
        outcome.samples.append(await _sample(session, process, started))
    return outcome


async def _watch(
    session: aiohttp.ClientSession, process: psutil.Process, started: float, samples: list[Sample]
) -> None:
    while True:
        samples.append(await _sample(session, process, started))
        if len(samples) % 60 == 0:
            print(samples[-1], flush=True)
        await asyncio.sleep(SECONDS_BETWEEN_SAMPLES)


async def _sample(session: aiohttp.ClientSession, process: psutil.Process, started: float) -> Sample:
    async with session.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    in_flight = next(line.split()[1] for line in lines if line.startswith("lockgate_in_flight_requests "))
    return Sample(
        (time.monotonic() - started) / 60,
        process.memory_info().rss / 2**20,
        process.num_fds(),
        process.num_threads(),
        int(float(in_flight)),
    )


# -------------------------------------------------------------------------------------------------- judgement


def _slope(samples: list[Sample]) -> float:
    """MiB an hour, by least squares."""
    return statistics.linear_regression([s.minutes / 60 for s in samples], [s.rss_mib for s in samples]).slope


def _ends(samples: list[Sample], what: Callable[[Sample], float]) -> tuple[float, float]:
    """The medians of the first and the last tenth."""
    part = max(1, len(samples) // 10)
    return statistics.median(map(what, samples[:part])), statistics.median(map(what, samples[-part:]))


def _faults(outcome: Outcome, max_growth: float) -> list[str]:
    measured = outcome.measured()
    slope = _slope(measured)
    growth = slope * (measured[-1].minutes - measured[0].minutes) / 60
    files, threads = _ends(measured, lambda s: s.files), _ends(measured, lambda s: s.threads)
    in_flight = outcome.samples[-1].in_flight
    found = [
        (growth > max_growth, f"memory grows by {growth:.1f} MiB (allowed: {max_growth:g}), {slope:.1f} an hour"),
        (files[1] > files[0] + MOST_MORE_FILES, f"open files grow from {files[0]:g} to {files[1]:g}"),
        (threads[1] > threads[0] + MOST_MORE_THREADS, f"threads grow from {threads[0]:g} to {threads[1]:g}"),
        (in_flight > 0, f"{in_flight} requests are in flight after all were answered"),
        (bool(outcome.unexpected), f"answers that are not as they should be, e.g. {outcome.unexpected[:3]}"),
        (
            outcome.rows_logged != outcome.rows_answered,
            f"the request log has {outcome.rows_logged:,} rows of {outcome.rows_answered:,}",
        ),
        (outcome.exit_code != 0, f"the server ended with {outcome.exit_code}"),
    ]
    return [says for is_fault, says in found if is_fault]


def _report(outcome: Outcome, rate: float, max_growth: float) -> list[str]:
    """Prints what was seen; gives what is wrong with it."""
    measured = outcome.measured()
    sent = sum(outcome.codes.values())
    print(f"\n{outcome.seconds / 60:g} minutes, {rate:g} requests/s wanted, {sent / outcome.seconds:.1f} sent\n")
    print("| requests | code | number |\n|---|---|---|")
    for (kind, code), number in sorted(outcome.codes.items()):
        print(f"| {kind} | {code} | {number:,} |")
    before, after = _ends(measured, lambda s: s.rss_mib)
    files, threads = _ends(measured, lambda s: s.files), _ends(measured, lambda s: s.threads)
    print("\n| | |\n|---|---|")
    for what, value in (
        ("requests", f"{sent:,}"),
        ("5xx", f"{_server_faults(outcome):,}"),
        (
            f"RSS after a warm-up of {outcome.warm_up_minutes:.0f} minutes / at the end",
            f"{before:.1f} / {after:.1f} MiB",
        ),
        ("largest RSS", f"{max(s.rss_mib for s in outcome.samples):.1f} MiB"),
        ("slope of RSS after the warm-up", f"{_slope(measured):+.2f} MiB/hour"),
        ("open files after the warm-up / at the end", f"{files[0]:g} / {files[1]:g}"),
        ("threads after the warm-up / at the end", f"{threads[0]:g} / {threads[1]:g}"),
        ("most requests in flight at a sample", f"{max(s.in_flight for s in outcome.samples)}"),
        ("rows answered / in the request log", f"{outcome.rows_answered:,} / {outcome.rows_logged:,}"),
    ):
        print(f"| {what} | {value} |")
    faults = _faults(outcome, max_growth)
    print("\nthe server holds" if not faults else "\n".join(["", *faults]), flush=True)
    return faults


def _server_faults(outcome: Outcome) -> int:
    wrong = {"INTERNAL", "UNAVAILABLE", "UNKNOWN", "DATA_LOSS"}
    return sum(n for (_, code), n in outcome.codes.items() if code in wrong or (code[0] == "5" and code.isdigit()))


def _figures(outcome: Outcome, rate: float, faults: list[str]) -> dict[str, Any]:
    return {
        "held": not faults,
        "faults": faults,
        "minutes": outcome.seconds / 60,
        "rate": rate,
        "requests": {f"{kind}: {code}": number for (kind, code), number in sorted(outcome.codes.items())},
        "5xx": _server_faults(outcome),
        "unexpected": outcome.unexpected,
        "rss_slope_mib_an_hour": _slope(outcome.measured()),
        "rows_answered": outcome.rows_answered,
        "rows_logged": outcome.rows_logged,
        "exit_code": outcome.exit_code,
        "samples": [asdict(sample) for sample in outcome.samples],
    }


# ----------------------------------------------------------------------------------------------------- server


@contextmanager
def _running(model: Path, log: Path) -> Iterator[tuple[psutil.Popen, int, int]]:
    """Runs the server; gives its process and ports."""
    http_port, grpc_port = _free_port(), _free_port()
    command = [sys.executable, "-m", "components.predictor", "--model-dir", str(model), "--model-name", NAME]
    command += ["--http-port", str(http_port), "--grpc-port", str(grpc_port), "--log-uri", str(log)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    process = psutil.Popen(command, env=environment, cwd=ROOT)
    try:
        deadline = time.monotonic() + 120
        while not _is_ready(http_port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the server is not ready; see its lines above")
            time.sleep(0.1)
        yield process, http_port, grpc_port
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _is_ready(port: int) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/v2/health/ready", timeout=1) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
