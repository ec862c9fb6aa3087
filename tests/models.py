"""Small models of each task, which suites of several environments share."""

import os
import subprocess
from pathlib import Path

import pytest

from pipelines.environments import ROOT, TENSORFLOW


def environment() -> dict[str, str]:
    """Variables for a program of ours."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}


def export(folder: Path, *kinds: str) -> Path:
    """Trains, exports and predicts with a model of each kind in the environment that trains; gives the folder."""
    if not TENSORFLOW.executable.is_file():
        pytest.skip("no tensorflow environment to export models with: make setup")
    command = [TENSORFLOW.executable, "-m", "tests.predictor.export_models", folder, *kinds]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder
