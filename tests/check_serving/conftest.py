"""Models and their predictions, which the tests share."""

from pathlib import Path

import pytest

from tests.predictor.conftest import exported


@pytest.fixture(scope="session")
def models() -> Path:
    """A folder with `model` and `predictions` of each task."""
    return exported()
