"""Times the model server: `.venvs/predictor/bin/python benchmarks/serving.py [MODEL]`, after `make run`.

One run measures, with one client and one model: the signature's own call; KServe's ModelServer with a model that does
nothing; the same with a model that calls the signature once a request; and our server. All answer protocol v1.
At half load the client counts, too: this one takes most of a core, which the server has not then. With `vegeta` on PATH
(github.com/tsenart/vegeta, Go) half load is also measured by it, at an even rate; and the no-op server's at half of its
own, which shows what of the tail is the machine's.

With --log it measures what the request log costs instead: two of our servers, one with a log of all requests, both at
one time under half the clients each, so that whatever else the machine does strikes both.
MODEL: a version's folder in a model store; default: the newest of examples/flights.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "examples" / "flights" / "models" / "flights" / "versions"
NAME = "flights"
CLIENTS = 64
ROWS = 'lockgate_rows_total{protocol="v1"}'


@dataclass
class Latency:
    """Of requests, in milliseconds."""

    p50: float
    p99: float
    failed: int = 0


def main() -> None:
    """Measures, and prints a table with the targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    newest = max((path for path in MODELS.glob("v*") if path.is_dir()), default=None)
    parser.add_argument("model", nargs="?", type=Path, default=newest)
    parser.add_argument("--role", choices=["noop", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--log", action="store_true", help="what the request log costs")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=3, help="that the medians are taken of")
    given = parser.parse_args()
    if given.model is None:
        parser.error("no model: `make run` publishes one")
    if given.role:
        _serve_baseline(given.role, given.model, given.port)
    elif given.log:
        _measure_log(given.model, given.seconds, given.rounds)
    else:
        _measure(given.model, given.seconds, given.rounds)


def _measure(model: Path, seconds: float, rounds: int) -> None:
    body = _body(model)
    signature, predict = _signature(model)
    script = [sys.executable, str(Path(__file__)), str(model)]
    ports = {name: _free_port() for name in ("noop", "plain", "ours")}
    ours = [sys.executable, "-m", "components.predictor", "--model-dir", str(model), "--model-name", NAME]
    commands = {
        "noop": [*script, "--role", "noop", "--port", str(ports["noop"])],
        "plain": [*script, "--role", "plain", "--port", str(ports["plain"])],
        "ours": [*ours, "--http-port", str(ports["ours"]), "--grpc-port", "0"],
    }
    singles: dict[str, list[Latency]] = {name: [] for name in ports}
    rates: dict[str, list[float]] = {name: [] for name in ports}
    urls = {name: f"http://127.0.0.1:{port}/v1/models/{NAME}:predict" for name, port in ports.items()}
    with _running(commands["noop"], ports["noop"]), _running(commands["plain"], ports["plain"]):  # noqa: SIM117
        with _running(commands["ours"], ports["ours"]) as (process, ready):
            rss_ready = process.memory_info().rss / 2**20
            for _ in range(rounds):
                for name, url in urls.items():
                    singles[name].append(asyncio.run(_closed(url, body, 1, seconds / 2))[0])
                for name, url in urls.items():
                    rates[name].append(asyncio.run(_closed(url, body, CLIENTS, seconds))[1])
            single = {name: _median(found) for name, found in singles.items()}
            rate = {name: statistics.median(found) for name, found in rates.items()}
            half = _median([asyncio.run(_open(urls["ours"], body, rate["ours"] / 2, seconds)) for _ in range(rounds)])
            by_vegeta = {
                name: _median([_vegeta(urls[name], body, rate[name] / 2, seconds) for _ in range(rounds)])
                for name in ("ours", "noop")
                if shutil.which("vegeta")
            }
            rss = process.memory_info().rss / 2**20
    limit = (signature + single["noop"].p50) * 1.3
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, medians of {rounds} rounds\n")
    print("| | value | target |\n|---|---|---|")
    for what, value, target in (
        ("signature's own call / ServingModel.predict, p50", f"{signature:.2f} / {predict:.2f} ms", ""),
        ("no-op ModelServer, one client, p50 / p99", f"{single['noop'].p50:.2f} / {single['noop'].p99:.2f} ms", ""),
        ("plain ModelServer, one client, p50 / p99", f"{single['plain'].p50:.2f} / {single['plain'].p99:.2f} ms", ""),
        (
            "ours, one client, p50 / p99",
            f"{single['ours'].p50:.2f} / {single['ours'].p99:.2f} ms",
            f"p50 ≤ {limit:.2f} ms",
        ),
        (f"no-op, {CLIENTS} clients", f"{rate['noop']:,.0f} requests/s", ""),
        (f"plain, {CLIENTS} clients", f"{rate['plain']:,.0f} requests/s", ""),
        (f"ours, {CLIENTS} clients", f"{rate['ours']:,.0f} requests/s", f"≥ {4 * rate['plain']:,.0f}"),
        (
            f"ours at {rate['ours'] / 2:,.0f} requests/s, p50 / p99",
            f"{half.p50:.2f} / {half.p99:.2f} ms ({half.failed} failed)",
            f"p99 ≤ {3 * half.p50:.2f} ms",
        ),
        *_rows_of_vegeta(by_vegeta, rate),
        ("ours, start to ready", f"{ready:.1f} s", "≤ 12 s"),
        ("ours, RSS when ready / at the end", f"{rss_ready:.0f} / {rss:.0f} MiB", "≤ 700 MiB"),
    ):
        print(f"| {what} | {value} | {target} |")


def _measure_log(model: Path, seconds: float, rounds: int) -> None:
    body = _body(model)
    ports = {name: _free_port() for name in ("off", "on")}
    latencies: dict[str, list[Latency]] = {name: [] for name in ports}
    answered: dict[str, list[float]] = {name: [] for name in ports}
    used: dict[str, list[float]] = {name: [] for name in ports}

    async def load() -> list[Latency]:
        urls = [f"http://127.0.0.1:{port}/v1/models/{NAME}:predict" for port in ports.values()]
        loads = [_closed(url, body, CLIENTS // 2, seconds) for url in urls]
        return [latency for latency, _ in await asyncio.gather(*loads)]

    with tempfile.TemporaryDirectory() as folder:
        ours = [sys.executable, "-m", "components.predictor", "--model-dir", str(model), "--model-name", NAME]
        commands = {name: [*ours, "--http-port", str(port), "--grpc-port", "0"] for name, port in ports.items()}
        commands["on"] += ["--log-uri", folder]
        with _running(commands["off"], ports["off"]) as (off, _), _running(commands["on"], ports["on"]) as (on, _):
            processes = {"off": off, "on": on}
            asyncio.run(load())
            for _ in range(rounds):
                rows = {name: _metric(port, ROWS) for name, port in ports.items()}
                times = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
                for name, latency in zip(ports, asyncio.run(load()), strict=True):
                    count = _metric(ports[name], ROWS) - rows[name]
                    latencies[name].append(latency)
                    answered[name].append(count)
                    used[name].append((sum(processes[name].cpu_times()[:2]) - times[name]) / count * 1e6)
            dropped = _metric(ports["on"], 'lockgate_request_log_rows_total{result="dropped"}')
            written = _metric(ports["on"], 'lockgate_request_log_rows_total{result="written"}')
    less = statistics.median(on / off - 1 for on, off in zip(answered["on"], answered["off"], strict=True))
    more = statistics.median(on / off - 1 for on, off in zip(used["on"], used["off"], strict=True))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, medians of {rounds} rounds of {seconds:.0f} s\n")
    print(f"| {CLIENTS // 2} clients each | log off | log on |\n|---|---|---|")
    for what, cells in (
        ("requests/s", [f"{statistics.median(one) / (seconds + 1):,.0f}" for one in answered.values()]),
        ("p50 / p99, ms", [f"{_median(one).p50:.1f} / {_median(one).p99:.1f}" for one in latencies.values()]),
        ("CPU of the server, µs a request", [f"{statistics.median(one):,.0f}" for one in used.values()]),
    ):
        print(f"| {what} | {' | '.join(cells)} |")
    print(f"\nmedians of the rounds' own: throughput {less:+.1%} (allowed: -5 %), CPU a request {more:+.1%}")
    print(f"rows written {written:,.0f}, dropped {dropped:,.0f}")


def _metric(port: int, sample: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{sample} ")), 0.0)


def _rows_of_vegeta(half: dict[str, Latency], rate: dict[str, float]) -> Iterator[tuple[str, str, str]]:
    for name, found in half.items():
        value = f"{found.p50:.2f} / {found.p99:.2f} ms ({found.failed} failed)"
        target = f"p99 ≤ {3 * found.p50:.2f} ms" if name == "ours" else f"p99 is {found.p99 / found.p50:.1f} × p50"
        yield f"{name} at {rate[name] / 2:,.0f} requests/s by vegeta, p50 / p99", value, target


def _median(found: list[Latency]) -> Latency:
    return Latency(
        statistics.median(latency.p50 for latency in found),
        statistics.median(latency.p99 for latency in found),
        sum(latency.failed for latency in found),
    )


def _body(model: Path) -> bytes:
    sys.path.insert(0, str(ROOT))
    from components.predictor.served_model import read_facts

    return json.dumps({"instances": [read_facts(str(model)).example]}).encode()


def _signature(model: Path) -> tuple[float, float]:
    """Gives the median milliseconds, for one row, of the signature's call and of ServingModel.predict around it."""
    code = """
import statistics, sys, time
import tensorflow as tf
from components.predictor.served_model import ServedModel, arrays_of, read_facts
facts = read_facts(sys.argv[1])
model = ServedModel(facts)._model
arrays = arrays_of([facts.example], facts.spec.inputs)
tensors = {i.tensor: tf.constant(arrays[i.name], i.dtype) for i in facts.spec.inputs}
for call in (lambda: model._signature(**tensors), lambda: model.predict(arrays)):
    times = []
    for _ in range(2000):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    print(statistics.median(times) * 1000)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(model)], env=_environment(), capture_output=True, text=True, check=True
    )
    signature, predict = map(float, done.stdout.split())
    return signature, predict


# ------------------------------------------------------------------------------------------------------ load


async def _closed(url: str, body: bytes, clients: int, seconds: float) -> tuple[Latency, float]:
    """Clients that send again as soon as they have an answer; also gives the requests a second."""
    times: list[float] = []
    async with _session(clients) as session:
        end = time.perf_counter() + seconds + 1

        async def client() -> None:
            while (started := time.perf_counter()) < end:
                async with session.post(url, data=body) as response:
                    await response.read()
                    assert response.status == 200, await response.text()
                if started > end - seconds:  # the first second warms up
                    times.append(time.perf_counter() - started)

        await asyncio.gather(*(client() for _ in range(clients)))
    return _latency(times), len(times) / seconds


async def _open(url: str, body: bytes, rate: float, seconds: float) -> Latency:
    """Requests at random times, whether or not earlier ones are answered; waiting for a connection counts."""
    times: list[float] = []
    failed = 0
    draw = random.Random(17)
    async with _session(CLIENTS) as session, asyncio.TaskGroup() as group:

        async def request(due: float, counts: bool) -> None:
            nonlocal failed
            async with session.post(url, data=body) as response:
                await response.read()
                failed += response.status != 200
            if counts:
                times.append(time.perf_counter() - due)

        started = due = time.perf_counter()
        while due < started + seconds + 1:
            due += draw.expovariate(rate)
            if (pause := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            # What the client itself is late is not the server's.
            group.create_task(request(max(due, time.perf_counter()), due > started + 1))
    return _latency(times, failed)


def _vegeta(url: str, body: bytes, rate: float, seconds: float) -> Latency:
    """The same at an even rate, by a client that takes a tenth of the time."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        options = (f"-rate={rate:.0f}", f"-duration={seconds:.0f}s", f"-workers={CLIENTS}", f"-connections={CLIENTS}")
        target = f"POST {url}\nContent-Type: application/json\n@{file.name}\n".encode()
        attack = subprocess.run(["vegeta", "attack", *options], input=target, capture_output=True, check=True)
        report = subprocess.run(
            ["vegeta", "report", "-type=json"], input=attack.stdout, capture_output=True, check=True
        )
    found = json.loads(report.stdout)
    failed = found["requests"] - found["status_codes"].get("200", 0)
    return Latency(found["latencies"]["50th"] / 1e6, found["latencies"]["99th"] / 1e6, failed)


def _session(connections: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections), headers={"Content-Type": "application/json"}
    )


def _latency(times: list[float], failed: int = 0) -> Latency:
    cuts = statistics.quantiles(times, n=100)
    return Latency(cuts[49] * 1000, cuts[98] * 1000, failed)


# --------------------------------------------------------------------------------------------------- servers


def _serve_baseline(role: str, model: Path, port: int) -> None:
    """KServe's server as its documentation has it: an event loop, one prediction a request."""
    sys.path.insert(0, str(ROOT))
    sys.argv[1:] = []
    from kserve import Model, ModelServer

    predict: Callable[[list[dict[str, Any]]], list[Any]] = lambda rows: [{"probability": 0.5}] * len(rows)  # noqa: E731
    if role == "plain":
        from components.predictor.served_model import arrays_of, read_facts
        from components.serving_model import ServingModel

        facts = read_facts(str(model))
        loaded = ServingModel(facts.directory)

        def predict(rows: list[dict[str, Any]]) -> list[Any]:
            outputs = loaded.predict(arrays_of(rows, facts.spec.inputs))
            return [
                dict(zip(outputs, row, strict=True))
                for row in zip(*(v.tolist() for v in outputs.values()), strict=True)
            ]

    class Baseline(Model):  # type: ignore[misc]
        async def predict(
            self, payload: dict[str, Any], headers: Any = None, response_headers: Any = None
        ) -> dict[str, Any]:
            return {"predictions": predict(payload["instances"])}

    served = Baseline(NAME)
    served.load()
    ModelServer(http_port=port, enable_grpc=False, enable_latency_logging=False).start([served])


@contextmanager
def _running(command: list[str], port: int) -> Iterator[tuple[psutil.Process, float]]:
    """Runs a server; gives its process and the seconds from its start until it was ready."""
    with tempfile.TemporaryFile() as log:
        started = time.monotonic()
        process = psutil.Popen(command, env=_environment(), stdout=log, stderr=log)
        try:
            while not _is_ready(port):
                if process.poll() is not None or time.monotonic() > started + 120:
                    log.seek(0)
                    raise RuntimeError(f"{command} is not ready: {log.read().decode()[-2000:]}")
                time.sleep(0.02)
            yield process, time.monotonic() - started
        finally:
            process.kill()
            process.wait()


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=1) as response:
            return response.status == 200
    except (OSError, urllib.error.URLError):
        return False


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    main()
