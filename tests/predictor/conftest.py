"""Models and servers that the tests share."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.environments import TENSORFLOW
from tests.predictor import running
from tests.predictor.running import RunningServer


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model of each task, exported by the tensorflow environment."""
    if not TENSORFLOW.executable.is_file():
        pytest.skip("no tensorflow environment to export models with: make setup")
    folder = tmp_path_factory.mktemp("models")
    done = subprocess.run(
        [TENSORFLOW.executable, "-m", "tests.predictor.export_models", folder],
        cwd=running.ROOT,
        env=running.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator[RunningServer]:
    """A server of the binary model."""
    with running.serving(models / "binary", max_rows=1000, max_body_bytes=1_000_000) as found:
        yield found


def instances(models: Path, kind: str) -> list[dict[str, Any]]:
    """Raw rows, as JSON has them."""
    return pq.read_table(models / kind / "rows.parquet").to_pylist()


def expected(models: Path, kind: str) -> dict[str, Any]:
    """What ServingModel gave for the rows where the model was exported."""
    with np.load(models / kind / "expected.npz", allow_pickle=False) as found:
        return dict(found)
