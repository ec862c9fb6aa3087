"""The batch prediction pipeline on Kubeflow Pipelines: a span of rows to predictions in a bucket.

Needs: what test_training_on_cluster.py needs. Takes about 10 minutes on two cores.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pyarrow.fs
import pytest

from components import storage
from tests import servers
from tests.cluster import kubeflow
from tests.cluster.kubeflow import Project, pipelines
from tests.local.project import write_project, write_span

_WHY = kubeflow.missing()
pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(_WHY), reason=f"no Kubeflow Pipelines to test on: {_WHY}"),
]
BATCH = ("--pipeline", "batch_prediction")


@pytest.fixture(scope="module", autouse=True)
def store_within_reach() -> Iterator[None]:
    """This process and its children reach the cluster's object store."""
    with servers.environment(**kubeflow.credentials()):
        yield


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with a model in the cluster's store, trained on this machine."""
    source = write_project(tmp_path_factory.mktemp("shop") / "source", months=3)
    folder, name = tmp_path_factory.mktemp("shop") / "project", f"shop-{uuid.uuid4().hex[:6]}"
    changes = {
        "batch": {"output": {"target": f"s3://{name}/predictions"}, "reasons": 2, "top_rows": 5},
        "cluster": {"all_stages": {"cpu": "100m"}},  # a node may have two cores, and others on it
    }
    with kubeflow.project(folder, name, source / "pipeline.yaml", changes) as made:
        made.put(*sorted((source / "data").iterdir()))
        options = ("--runs", source / "runs", "--set", "data.window=2025-01..2025-02")
        trained = pipelines("run", made.folder, *options, seconds=900)
        assert trained.code == 0, trained
        yield made


@pytest.fixture(scope="module")
def predicted(shop: Project) -> dict[str, Any]:
    outcome = shop.run(*BATCH, "--set", "data.window=2025-03")
    assert outcome["verdict"] == "PASSED", outcome
    print(kubeflow.where_time_went(outcome["id"]))
    return outcome


def predictions(shop: Project) -> "pyarrow.Table":
    fs, root = storage.filesystem(f"s3://{shop.bucket}/predictions/{shop.name}")
    fs.invalidate_cache()
    return pyarrow.dataset.dataset(root, filesystem=fs, partitioning="hive").to_table()


def test_a_span_is_predicted_into_a_bucket(shop: Project, predicted: dict[str, Any]) -> None:
    table = predictions(shop)
    assert set(table["span"].to_pylist()) == {"2025-03"}
    assert len(set(table["visit"].to_pylist())) == len(table) == 1500
    assert set(table["model_version"].to_pylist()) == {shop.store.latest()}
    assert sum(bool(reasons) for reasons in table["reasons"].to_pylist()) == 5


def test_a_rejected_span_writes_nothing(shop: Project, predicted: dict[str, Any], tmp_path: Path) -> None:
    before = predictions(shop)
    source = write_project(tmp_path / "source", months=0)
    write_span(source, 4, 500, cities=("Atlantis", "Paris"))
    shop.put(source / "data" / "visits-2025-04.csv")
    ended = kubeflow.wait(shop.submit(*BATCH, "--set", "data.window=2025-04"))
    assert (ended.code, ended.json["verdict"]) == (3, "FAILED"), ended
    assert "Atlantis" in ended.json["cause"] or "city" in ended.json["cause"]
    assert predictions(shop).equals(before)


def test_a_backfill_predicts_span_by_span(shop: Project, predicted: dict[str, Any]) -> None:
    ended = pipelines(
        *("backfill", shop.folder, *BATCH, "--from", "2025-01", "--to", "2025-02", "--json"), seconds=1800
    )
    assert ended.code == 0, ended
    assert [one["span"] for one in ended.json] == ["2025-01", "2025-02"]
    assert set(predictions(shop)["span"].to_pylist()) == {"2025-01", "2025-02", "2025-03"}
