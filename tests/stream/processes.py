"""The stream's own process, as a Deployment runs it."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.model_card import CodeFacts, DataFacts, EvaluationFacts, ModelFacts
from components.model_store import ModelStore, Published
from components.settings import Stream

ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """Variables for a program of ours."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}


def publish(store: Path, name: str, version: Path, digest: str, threshold: float | None = None) -> Published:
    """Puts an exported model into a store, and into production."""
    files = {
        f"model/{path.relative_to(version / 'model')}": path
        for path in (version / "model").rglob("*")
        if path.is_file()
    }
    facts = ModelFacts(
        description="",
        owner="",
        run_name="run",
        model_digest=digest,
        inputs_digest=digest,
        parent=None,
        data=DataFacts(source="", spans=[], digest="", splits={}, files=[]),
        schema_digest="",
        evaluation=EvaluationFacts(
            verdict="pass", reason="", metrics={}, intervals={}, slices=[], checks=[], decision_threshold=threshold
        ),
        code=CodeFacts(version="", registry="", image_tag="", details={}, locks={}, libraries={}),
        config={},
    )
    return ModelStore(str(store), name).publish(files, facts)


def write_job(path: Path, name: str, store: Path, stream: Stream) -> Path:
    job = {"name": name, "store": str(store), "stream": stream.model_dump(mode="json", exclude_none=True)}
    path.write_text(json.dumps(job))
    return path


class Process:
    """One process; it may be ended and started again."""

    def __init__(self, job: Path, instance: str, log: Path, *command_prefix: str, state: Path | None = None) -> None:
        """Args: state: folder of the stores, of a process that gives window features."""
        module = "components.stream.windows" if state else "components.stream"
        self._command = [*command_prefix, sys.executable, "-W", "ignore", "-m", module, "--job", str(job)]
        self._command += ["--instance", instance, "--port", "0", *(["--state", str(state)] if state else [])]
        self.log_file = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(self._command, cwd=ROOT, env=environment(), stdout=log, stderr=log)

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process
        self.process.terminate()
        return self.process.wait(timeout=60)

    def log(self) -> str:
        return self.log_file.read_text()


@contextlib.contextmanager
def running(job: Path, instance: str, log: Path, *command_prefix: str) -> Iterator[Process]:
    process = Process(job, instance, log, *command_prefix)
    process.start()
    try:
        yield process
    finally:
        if process.process and process.process.poll() is None:
            process.kill()


def one_line(job: dict[str, Any] | str, folder: Path) -> tuple[int, str]:
    """Runs a process that must end by itself; gives its code and what it says."""
    path = folder / "job.json"
    path.write_text(job if isinstance(job, str) else json.dumps(job))
    command = [sys.executable, "-m", "components.stream", "--job", str(path), "--port", "0"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120)
    return done.returncode, done.stderr.strip().splitlines()[-1]
