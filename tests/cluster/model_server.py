"""A model server that behaves as its model says; runs in a pod, with nothing but the standard library.

/mnt/models/behaviour.json: `offset` is added to each prediction, `shift` to those of requests with one row, `seconds` a
request takes, `failing` is the share of requests that end with 500, `crash` ends the process at its start, and the
request after `requests` others with one row.
"""

import itertools
import json
import math
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread

BEHAVIOUR = json.loads(Path("/mnt/models/behaviour.json").read_text())
NAME = os.environ["LOCKGATE_MODEL_NAME"]
COUNTS = {"200": 0, "500": 0, "seconds": 0.0}
SCORES = {bound / 10: 0 for bound in range(11)}
"""Predictions up to a bound."""
LOCK, NUMBERS, STOPPING = Lock(), itertools.count(1), Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self.answer(200, metrics(), "text/plain")
        else:
            self.answer(200 if self.path.startswith("/v2/health/") else 404, "{}")

    def do_POST(self) -> None:
        started = time.monotonic()
        rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["instances"]
        time.sleep(BEHAVIOUR.get("seconds", 0))
        every = round(1 / BEHAVIOUR["failing"]) if BEHAVIOUR.get("failing") else 0
        if self.path != f"/v1/models/{NAME}:predict":
            self.answer(404, "{}")
            return
        # A request with many rows is a golden test: it must not see these faults.
        alone = len(rows) == 1
        number = next(NUMBERS) if alone else 0
        if number > BEHAVIOUR.get("requests", math.inf):
            os._exit(1)
        failed = bool(every) and alone and number % every == 0
        added = BEHAVIOUR.get("offset", 0) + (BEHAVIOUR.get("shift", 0) if alone else 0)
        predictions = [{"probability": row["x"] / 2 + added} for row in rows]
        body = {"predictions": predictions, "model": BEHAVIOUR.get("name")}
        with LOCK:
            COUNTS["500" if failed else "200"] += 1
            COUNTS["seconds"] += time.monotonic() - started
            for bound in SCORES:
                SCORES[bound] += sum(one["probability"] <= bound for one in predictions)
        self.answer(500 if failed else 200, json.dumps({"error": "as told"} if failed else body))

    def answer(self, status: int, text: str, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        if STOPPING.is_set():
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *values: object) -> None:
        pass


def metrics() -> str:
    return "\n".join(
        [
            "# TYPE lockgate_requests counter",
            *(f'lockgate_requests_total{{protocol="v1",code="{code}"}} {COUNTS[code]}' for code in ("200", "500")),
            "# TYPE lockgate_request_seconds histogram",
            f'lockgate_request_seconds_sum{{protocol="v1",phase="predict"}} {COUNTS["seconds"]}',
            "# TYPE lockgate_predictions histogram",
            *(f'lockgate_predictions_bucket{{le="{bound}"}} {count}' for bound, count in SCORES.items()),
            f'lockgate_predictions_bucket{{le="+Inf"}} {SCORES[1.0]}',
            "",
        ]
    )


if __name__ == "__main__":
    if BEHAVIOUR.get("crash"):
        sys.exit("model: the weights are of another architecture")
    # A process with id 1 has no default for this signal.
    signal.signal(signal.SIGTERM, lambda number, frame: STOPPING.set())
    Thread(target=ThreadingHTTPServer(("", 8080), Handler).serve_forever, daemon=True).start()
    STOPPING.wait()
    time.sleep(3)
