"""The tuning pipeline on Kubeflow Pipelines: parts of the trials in pods side by side, and training that knows them.

Needs: what test_training_on_cluster.py needs. Takes about 15 minutes on two cores.
"""

import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests import servers
from tests.cluster import kubeflow
from tests.cluster.kubeflow import Project, states
from tests.local.project import write_project

_WHY = kubeflow.missing()
pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(_WHY), reason=f"no Kubeflow Pipelines to test on: {_WHY}"),
]
TUNING: dict[str, Any] = {
    "candidates": [{"kind": "linear"}, {"kind": "boosted_trees"}],
    "trials": 4,
    "sampler": "random",
    "parallel": 2,
}


@pytest.fixture(scope="module", autouse=True)
def store_within_reach() -> Iterator[None]:
    """This process and its children reach the cluster's object store."""
    with servers.environment(**kubeflow.credentials()):
        yield


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    source = write_project(tmp_path_factory.mktemp("shop") / "source")
    settings = (source / "pipeline.yaml").read_text()
    (source / "pipeline.yaml").write_text(re.sub("^model: .*\n", "", settings, flags=re.MULTILINE))
    folder, name = tmp_path_factory.mktemp("shop") / "project", f"shop-{uuid.uuid4().hex[:6]}"
    # A node may have two cores, and others on it.
    changes = {"tuning": TUNING, "cluster": {"all_stages": {"cpu": "100m"}}}
    with kubeflow.project(folder, name, source / "pipeline.yaml", changes) as made:
        made.put(*sorted((source / "data").iterdir()))
        yield made


@pytest.fixture(scope="module")
def cache(shop: Project) -> tuple[str, str]:
    return ("--analysis-cache", f"s3://{shop.bucket}/analysis")


@pytest.fixture(scope="module")
def tuned(shop: Project, cache: tuple[str, str]) -> dict[str, Any]:
    outcome = shop.run("--pipeline", "tuning", *cache)
    assert outcome["verdict"] == "PASSED", outcome
    print(kubeflow.where_time_went(outcome["id"]))
    return outcome


def test_parts_run_side_by_side(tuned: dict[str, Any]) -> None:
    parts = [pod for pod in kubeflow.pods(tuned["id"]) if kubeflow.executes(pod) == "tune-model"]
    assert len(parts) == TUNING["parallel"]
    (one_began, one_ended), (other_began, other_ended) = map(kubeflow.main_ran, parts)
    assert one_began < other_ended
    assert other_began < one_ended


def test_training_knows_the_trials(shop: Project, cache: tuple[str, str], tuned: dict[str, Any]) -> None:
    outcome = shop.run(*cache)
    assert outcome["verdict"] == "PASSED", outcome
    assert states(outcome)["tune-model"] == "succeeded"
    said = kubeflow.log(outcome["id"], "tune-model")
    assert said.count("known from before") == len(TUNING["candidates"]) + TUNING["trials"]
    assert len(shop.store.cards()) == 1
