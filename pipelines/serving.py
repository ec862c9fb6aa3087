"""`make serve`: a project's published model on this machine, in the predictor's environment.

Prints a request that works as it is printed: with a row of a run's evaluation split, or, where no run is left, with the
medians and most frequent values of the training data.
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.errors import InputError, LockgateError, UnavailableError
from components.model_spec import ModelInput, read_spec
from components.model_store import CARD, MODEL, ModelStore
from pipelines.environments import PREDICTOR, ROOT
from pipelines.project import load_project

_SECONDS_TO_START = 120


def main() -> int:
    """Serves until Ctrl-C; other options go to the predictor."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.serving", description=__doc__)
    parser.add_argument("project", type=Path, help="a pipeline.yaml, or its folder")
    parser.add_argument(
        "--version", default="latest", help="v0007-1a2b3c4d, v0007, 7, or latest: the one in production"
    )
    parser.add_argument("--port", type=int, default=8080, help="of REST; gRPC has the next one")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="folder of the runs")
    given, options = parser.parse_known_args()
    try:
        with tempfile.TemporaryDirectory(prefix="lockgate-serving-") as folder:
            version = _version(given.project, given.version, Path(folder))
            return _serve(version, given.port, given.runs, options)
    except LockgateError as error:
        print(f"serve: {error.label}: {error}", file=sys.stderr)
        return error.exit_code


def _version(project: Path, version: str, folder: Path) -> Path:
    """Gives the folder of a published version; one in a bucket is fetched."""
    loaded = load_project(project)
    store = ModelStore(loaded.resolve(loaded.settings.publication.store), loaded.settings.name)
    chosen = store.latest() if version == "latest" else store.card(version).version
    if chosen is None:
        raise InputError(
            f"model '{store.name}' in '{store.uri}' has no version; `make run PROJECT={project}` makes one"
        )
    local = Path(store.uri_of(chosen))
    if local.is_dir():
        return local
    store.download(chosen, folder / chosen)
    return folder / chosen


def _serve(version: Path, port: int, runs: Path, options: list[str]) -> int:
    command = [str(PREDICTOR.executable), "-m", "components.predictor", "--model-dir", str(version)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    process = subprocess.Popen(
        [*command, "--http-port", str(port), "--grpc-port", str(port + 1), *options], env=environment
    )
    # Ctrl-C reaches both processes; the server ends in its own time, and this one after it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    name = _wait(process, port)
    if name:
        row = _real_row(version, runs) or _get(port, f"/v2/models/{name}")["properties"]["example"]
        body = json.dumps({"instances": [row]}, ensure_ascii=False)
        print(f"\n  page      http://localhost:{port}/\n  metrics   http://localhost:{port}/metrics\n  request:\n")
        print(f"curl -s localhost:{port}/v1/models/{name}:predict -d {shlex.quote(body)}\n", flush=True)
    return process.wait()


def _wait(process: "subprocess.Popen[bytes]", port: int) -> str:
    """Waits until the server is ready; gives the model's name, empty if the server ended and has said why."""
    deadline = time.monotonic() + _SECONDS_TO_START
    while process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            _get(port, "/v2/health/ready")
            # Another server on this port would answer, too, while ours ends.
            time.sleep(0.2)
            if process.poll() is None:
                return str(_get(port, "/v2/models")["models"][0])
        if time.monotonic() > deadline:
            process.terminate()
            raise UnavailableError(f"the server is not ready after {_SECONDS_TO_START} s; see its lines above")
        time.sleep(0.1)
    return ""


def _get(port: int, path: str) -> Any:
    # No proxy: it is a server on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
        return json.load(response)


def _real_row(version: Path, runs: Path) -> dict[str, Any]:
    """Finds a row of an evaluation split: of the run that made the model, else of a newer or older one; empty: none."""
    card = version / CARD
    if not card.is_file():
        return {}
    facts = json.loads(card.read_text(encoding="utf-8"))
    inputs = read_spec(version / MODEL).inputs
    own = runs / str(facts.get("run_name"))
    others = sorted(runs.glob(f"{facts.get('name')}-*"), reverse=True)
    for part in (part for run in [own, *others] for part in sorted(run.glob("*/examples/eval/*.parquet"))):
        file = pq.ParquetFile(part)
        if not {i.name for i in inputs} <= set(file.schema_arrow.names):
            continue
        batch = next(file.iter_batches(1000, columns=[i.name for i in inputs]), None)
        if batch is None or not batch.num_rows:
            continue
        full = np.ones(batch.num_rows, bool)
        for i in inputs:
            full &= pc.is_valid(batch.column(i.name)).to_numpy(zero_copy_only=False)
        row = batch.slice(int(full.argmax()), 1).to_pylist()[0]
        return {i.name: _value(i, row[i.name]) for i in inputs if row[i.name] is not None}
    return {}


def _value(i: ModelInput, value: Any) -> Any:
    # The fewest digits that give the same float32 again.
    return float(str(np.float32(value))) if i.dtype == "float32" else value


if __name__ == "__main__":
    sys.exit(main())
