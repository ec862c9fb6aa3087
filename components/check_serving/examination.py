"""What a server is asked, and what is expected of its answers."""

import json
import time
from typing import Any

import numpy as np

from components.check_serving.clients import PREDICT, Ask, Clients
from components.check_serving.hostile import send_all
from components.check_serving.result import Check, Figures, Hostile
from components.check_serving.server import AnswerError, Server
from components.golden import GoldenRows, compare
from components.model_spec import ModelSpec
from components.settings import Serving

_WARM_UP_REQUESTS = 20

Answers = dict[str, list[dict[str, Any]] | None]


class Examination:
    """One server's way through all checks."""

    def __init__(self, server: Server, spec: ModelSpec, rows: GoldenRows, settings: Serving) -> None:
        """Asks nothing yet."""
        self.checks: list[Check] = []
        self.hostile: list[Hostile] = []
        self.figures: Figures | None = None
        self._server = server
        self._spec = spec
        self._rows = rows
        self._settings = settings

    def run(self) -> None:
        """Asks all, and ends the server.

        Raises:
            ServerError: it does not start, or not end.
            AnswerError: it does not answer any more.
        """
        self._server.wait_until_ready(self._settings.start_seconds)
        bound = f"within {self._settings.start_seconds:g} s"
        self._add("ready", True, f"after {self._server.start_seconds:.1f} s", bound)
        clients = Clients(self._server, self._spec.inputs)
        try:
            answers = {name: self._golden(name, ask) for name, ask in clients.protocols().items()}
            self._harass(clients, answers)
            if all(answers.values()):
                self._measure(clients)
        finally:
            clients.close()
        self._server.stop()

    def summary(self) -> str:
        """One line on a server that passed."""
        assert self.figures
        return (
            f"{len(self._rows.instances)} golden rows alike over REST v1, REST v2 and gRPC; {len(self.hostile)} bad "
            f"requests refused; ready after {self.figures.start_seconds:.1f} s; p50 {self.figures.p50_ms:.2f} ms, p99 "
            f"{self.figures.p99_ms:.2f} ms"
        )

    def _golden(self, protocol: str, ask: Ask) -> list[dict[str, Any]] | None:
        golden = self._settings.golden
        name, bound = f"golden rows over {protocol}", f"as in predict_batch, ±{golden.tolerance:g}"
        try:
            answer = ask(self._rows.instances)
        except AnswerError as error:
            self._add(name, False, str(error), bound)
            return None
        found = compare(self._rows, {"predictions": answer}, golden.tolerance, golden.tolerances)
        self._add(name, not found.cause, found.cause or f"largest difference {found.largest:.2g}", bound)
        return answer

    def _harass(self, clients: Clients, before: Answers) -> None:
        """Sends the hostile requests, and makes sure that good ones are answered as before."""
        self.hostile = list(send_all(clients, self._rows.instances[0], self._spec.inputs))
        accepted = [one for one in self.hostile if not one.ok]
        detail = f"{len(self.hostile)} refused, each with a cause"
        if accepted:
            first = f"{accepted[0].protocol}, {accepted[0].request}: {accepted[0].answer}"
            detail = f"{len(accepted)} of {len(self.hostile)} are not refused with a cause: {first}"
        self._add("hostile requests", not accepted, detail, "HTTP 4xx, or its like in gRPC")
        for name, ask in clients.protocols().items():
            if before[name] is None:
                continue
            try:
                same = ask(self._rows.instances) == before[name]
                detail = "as before" if same else "other predictions than before the hostile requests"
            except AnswerError as error:
                same, detail = False, str(error)
            self._add(f"golden rows over {name}, again", same, detail, "as before")

    def _measure(self, clients: Clients) -> None:
        bodies = [json.dumps({"instances": [row]}).encode() for row in self._rows.instances]
        seconds: list[float] = []
        refused = 0
        for index in range(_WARM_UP_REQUESTS + self._settings.requests):
            started = time.perf_counter()
            status = clients.post(PREDICT, bodies[index % len(bodies)]).status
            seconds.append(time.perf_counter() - started)
            refused += status != 200
        count = len(seconds)
        self._add("requests with one row", not refused, f"{count - refused} of {count} answered", "all")
        p50, p99 = (float(1000 * np.percentile(seconds[_WARM_UP_REQUESTS:], share)) for share in (50, 99))
        memory = self._server.memory_mib()
        self.figures = Figures(
            start_seconds=round(self._server.start_seconds, 2),
            p50_ms=round(p50, 3),
            p99_ms=round(p99, 3),
            memory_mib=round(memory, 1),
        )
        self._limit("latency, median", p50, self._settings.max_p50_ms, "ms")
        self._limit("latency, 99th percentile", p99, self._settings.max_p99_ms, "ms")
        self._limit("memory", memory, self._settings.max_memory_mib, "MiB")

    def _limit(self, name: str, value: float, limit: float | None, unit: str) -> None:
        bound = f"at most {limit:g} {unit}" if limit is not None else ""
        ok = limit is None or value <= limit
        self._add(name, ok, f"{value:.4g} {unit}" + ("" if ok else f" (allowed: {limit:g})"), bound)

    def _add(self, name: str, ok: bool, detail: str, bound: str) -> None:
        self.checks.append(Check(name=name, ok=ok, detail=detail, bound=bound))
        print(f"check_serving: {'' if ok else 'FAILED: '}{name}: {detail}", flush=True)
