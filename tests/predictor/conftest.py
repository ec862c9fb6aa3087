"""Models and servers that the tests share."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.models import export
from tests.predictor import running
from tests.predictor.running import RunningServer


@functools.cache
def exported() -> Path:
    """A folder with a small model of each task, exported by the tensorflow environment once a session."""
    folder = Path(tempfile.mkdtemp(prefix="lockgate-models-"))
    atexit.register(shutil.rmtree, folder)
    return export(folder)


@pytest.fixture(scope="session")
def models() -> Path:
    return exported()


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
