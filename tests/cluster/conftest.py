"""A namespace of its own for each test, on the cluster that KUBECONFIG names."""

import re
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.cluster import kubeflow
from tests.cluster.lab import Lab, missing

_WHY = missing()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/cluster" in item.nodeid:
            item.add_marker(pytest.mark.cluster)
            if _WHY:
                item.add_marker(pytest.mark.skip(reason=f"no cluster: {_WHY}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """After a failure of a pipeline, keeps what the cluster knows, and names the folder."""
    report = yield
    if report.failed and "test_training_on_cluster" in item.nodeid:
        folder = kubeflow.dump(re.sub(r"\W+", "-", item.name))
        report.sections.append(("what the cluster knew", str(folder)))
    return report


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(f"lockgate-test-{uuid.uuid4().hex[:6]}", tmp_path)
    try:
        made.set_up()
        yield made
    finally:
        made.tear_down()


@pytest.fixture
def served(lab: Lab) -> Lab:
    """Model `one` is in service."""
    decision = lab.deploy("one")
    assert (decision["verdict"], decision["action"]) == ("pass", "created"), decision["reason"]
    return lab
