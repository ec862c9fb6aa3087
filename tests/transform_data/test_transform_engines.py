"""The analysis on engines of their own. Needs: what tests/engines.py needs; what is not there is skipped."""

from pathlib import Path

import numpy as np
import pytest

from tests.engines import ENGINES, running
from tests.transform_data.datasets import Project

ROWS = 500
FEATURES = {"numeric": [{"columns": ["amount"]}], "categorical": [{"columns": ["colour"]}]}


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_gives_the_same_rows_the_same_features(name: str, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    columns = {
        "amount": random.normal(10, 3, ROWS),
        "colour": random.choice(["red", "green", "blue"], ROWS),
        "y": random.integers(0, 2, ROWS),
    }
    project = Project(tmp_path).write({"amount": "FLOAT", "colour": "BYTES", "y": "INT"}, train=columns)
    here = project.transform(FEATURES, name="here")
    with running(name, tmp_path) as beam_args:
        there = project.transform(FEATURES, name="there", beam_args=beam_args)
    assert here.spec == there.spec
    assert here.table().equals(there.table())
