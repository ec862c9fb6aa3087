"""`python -m pipelines models export`, to a real MLflow and to a real Model Registry of Kubeflow.

Needs: the authoring environment; MLflow, which is installed into .tools; Kubeflow's model-registry and MariaDB.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from components.model_store import ModelStore
from components.registries.entry import Entry, entry_of
from components.registries.mlflow import MlflowRegistry
from pipelines.environments import ROOT
from tests.publish_model.blessed import NAME, bless, publish_blessed
from tests.servers import free_port

LOCAL = {**os.environ, "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
KUBEFLOW_API = "/api/model_registry/v1alpha3"


@pytest.fixture
def store(tmp_path: Path, request: pytest.FixtureRequest) -> ModelStore:
    """Two versions, the second in production; a model's name is a test's own, as the servers are shared."""
    made = ModelStore(str(tmp_path / "store"), f"{NAME}-{abs(hash(request.node.name)) % 10**9}")
    for weights in "ab":
        latest = made.latest()
        config = {
            "pipeline": {"data": {"source": "data/visits-{YYYY}-{MM}.csv"}},
            "code": {"version": "0.1.0", "digest": "c0de", "registry": "registry.example/team", "tag": "0.1.0-c0de"},
            "locks": {"base": "10c4"},
        }
        parent = made.uri_of(latest) if latest else ""
        run = bless(tmp_path / weights, weights)
        publish_blessed(run, made.uri, name=made.name, config=config, production_model=parent)
    return made


def export(store: ModelStore, to: str, url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "ignore", "-m", "pipelines", "models", "export", "--to", to, "--uri", url]
    command += ["--store", store.uri, "--name", store.name, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, env=LOCAL)


def exported(store: ModelStore, to: str, url: str, *arguments: str) -> list[str]:
    """What an export says it changed."""
    ended = export(store, to, url, "--json", *arguments)
    assert ended.returncode == 0, ended.stderr
    return list(json.loads(ended.stdout)["changes"])


def asked(url: str, **parameters: str) -> dict[str, Any]:
    answer = httpx2.get(url, params=parameters)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


# ------------------------------------------------------------------------------------------------------ MLflow


def models(url: str, store: ModelStore) -> dict[str, Any]:
    return dict(asked(f"{url}/api/2.0/mlflow/registered-models/get", name=store.name)["registered_model"])


def versions(url: str, store: ModelStore) -> list[dict[str, Any]]:
    path = f"{url}/api/2.0/mlflow/model-versions/search"
    return list(asked(path, filter=f"name = '{store.name}'", order_by="version_number ASC")["model_versions"])


def runs(url: str, store: ModelStore) -> list[dict[str, Any]]:
    api = f"{url}/api/2.0/mlflow"
    experiment = asked(f"{api}/experiments/get-by-name", experiment_name=store.name)["experiment"]["experiment_id"]
    return list(httpx2.post(f"{api}/runs/search", json={"experiment_ids": [experiment]}).json().get("runs", []))


def test_mlflow_has_all_of_a_version(store: ModelStore, mlflow_url: str) -> None:
    changes = exported(store, "mlflow", mlflow_url)
    card = store.card("latest")
    assert changes[0] == f"model {store.name} made"
    (version,) = versions(mlflow_url, store)
    tags = {tag["key"]: tag["value"] for tag in version["tags"]}
    assert tags["lockgate.version"] == card.version
    assert tags["lockgate.model_digest"] == card.model_digest
    assert tags["lockgate.data_digest"] == card.data.digest
    assert tags["lockgate.data_spans"] == "2025-01 … 2025-02 (2)"
    assert tags["lockgate.parent"] == store.versions()[0]
    assert tags["lockgate.uri"] == f"file://{socket.gethostname()}{store.uri_of(card.version)}"
    assert version["source"] == f"lockgate://{store.name}/{card.version}"
    assert version["description"] == "Who buys?"
    assert [(one["alias"], one["version"]) for one in models(mlflow_url, store)["aliases"]] == [("production", "1")]
    (run,) = runs(mlflow_url, store)
    assert run["info"]["run_id"] == version["run_id"]
    assert run["info"]["status"] == "FINISHED"
    logged = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    known = {name: value for name, value in card.evaluation.metrics.items() if value is not None}
    assert known
    assert {name: logged[name] for name in known} == pytest.approx(known)


def test_exporting_again_changes_nothing_in_mlflow(store: ModelStore, mlflow_url: str) -> None:
    exported(store, "mlflow", mlflow_url)
    before = (models(mlflow_url, store), versions(mlflow_url, store), runs(mlflow_url, store))
    assert exported(store, "mlflow", mlflow_url) == []
    assert (models(mlflow_url, store), versions(mlflow_url, store), runs(mlflow_url, store)) == before


def test_the_alias_of_mlflow_follows_production(store: ModelStore, mlflow_url: str) -> None:
    ended = export(store, "mlflow", mlflow_url, "--all")
    assert ended.returncode == 0, ended.stderr
    store.rollback()
    first = store.versions()[0]
    assert exported(store, "mlflow", mlflow_url) == [f"alias production: {first}"]
    (alias,) = models(mlflow_url, store)["aliases"]
    assert alias["version"] == "1"


def test_an_alias_of_what_is_not_in_production_any_more_goes(store: ModelStore, mlflow_url: str) -> None:
    exported(store, "mlflow", mlflow_url)
    store.rollback()
    (change,) = exported(store, "mlflow", mlflow_url, "--version", "2")
    assert change.startswith("alias production taken away")
    assert not models(mlflow_url, store).get("aliases")


def test_an_export_that_was_stopped_is_gone_on_with(store: ModelStore, mlflow_url: str) -> None:
    entry = entry_of(store, "latest")
    # As one that dies between the run and the version leaves it.
    left = MlflowRegistry(mlflow_url)._run(entry)
    exported(store, "mlflow", mlflow_url)
    (run,) = runs(mlflow_url, store)
    assert run["info"]["run_id"] == left == versions(mlflow_url, store)[0]["run_id"]
    assert len(run["data"]["metrics"]) == len(entry.metrics)


def test_mlflow_is_told_of_buckets_parameters_and_retirement(store: ModelStore, mlflow_url: str) -> None:
    card = store.card("latest")
    bucket = {"uri": "s3://models/shop/versions/v0002", "parameters": {f"p.{i}": str(i) for i in range(230)}}
    entry = Entry(**{**vars(entry_of(store, "latest")), **bucket})
    registry = MlflowRegistry(mlflow_url)
    registry.export(entry, card.version)
    assert versions(mlflow_url, store)[0]["source"] == "s3://models/shop/versions/v0002"
    assert len(runs(mlflow_url, store)[0]["data"]["params"]) == 230
    retired = registry.export(Entry(**{**vars(entry), "retired": True}), card.version)
    assert retired.changes == ["tag lockgate.retired: true"]


# ---------------------------------------------------------------------------------------------------- Kubeflow


def registered(url: str, store: ModelStore) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """The model, its versions and their artifacts."""
    model = asked(f"{url}{KUBEFLOW_API}/registered_model", name=store.name)
    found = asked(f"{url}{KUBEFLOW_API}/registered_models/{model['id']}/versions")["items"]
    artifacts = [
        artifact
        for version in found
        for artifact in asked(f"{url}{KUBEFLOW_API}/model_versions/{version['id']}/artifacts")["items"]
    ]
    return model, sorted(found, key=lambda one: str(one["name"])), artifacts


def stages(url: str, store: ModelStore) -> dict[str, str]:
    _, found, _ = registered(url, store)
    return {one["name"]: one["customProperties"]["lockgate.stage"]["string_value"] for one in found}


def test_kubeflow_has_all_of_a_version(store: ModelStore, kubeflow_url: str) -> None:
    exported(store, "kubeflow", kubeflow_url)
    card = store.card("latest")
    model, (version,), (artifact,) = registered(kubeflow_url, store)
    assert (model["owner"], model["description"], model["state"]) == ("shop team", "Who buys?", "LIVE")
    assert (version["name"], version["state"], version["author"]) == (card.version, "LIVE", "shop team")
    properties = version["customProperties"]
    assert properties["lockgate.model_digest"]["string_value"] == card.model_digest
    assert properties["lockgate.stage"]["string_value"] == "production"
    assert properties["lockgate.parent"]["string_value"] == store.versions()[0]
    assert properties["metric.auc"]["double_value"] == pytest.approx(card.evaluation.metrics["auc"])
    assert artifact["artifactType"] == "model-artifact"
    assert artifact["uri"] == f"file://{socket.gethostname()}{store.uri_of(card.version)}/model"
    assert artifact["modelFormatName"] == "tensorflow"


def test_exporting_again_changes_nothing_in_kubeflow(store: ModelStore, kubeflow_url: str) -> None:
    exported(store, "kubeflow", kubeflow_url)
    before = registered(kubeflow_url, store)
    assert exported(store, "kubeflow", kubeflow_url) == []
    assert registered(kubeflow_url, store) == before


def test_the_stage_in_kubeflow_follows_production(store: ModelStore, kubeflow_url: str) -> None:
    assert export(store, "kubeflow", kubeflow_url, "--all").returncode == 0
    first, second = store.versions()
    assert stages(kubeflow_url, store) == {first: "none", second: "production"}
    store.rollback()
    exported(store, "kubeflow", kubeflow_url)
    assert stages(kubeflow_url, store) == {first: "production", second: "none"}


# ------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("to", ["mlflow", "kubeflow"])
def test_nobody_there_is_told_of(store: ModelStore, to: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    ended = export(store, to, url)
    assert ended.returncode == 4
    assert f"at '{url}' does not answer" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("url", ["localhost:5000", "ftp://host", "http://ali:sesame@host", "http://"])
def test_what_is_no_url_is_refused(store: ModelStore, url: str) -> None:
    ended = export(store, "mlflow", url)
    assert ended.returncode == 2
    assert "of MLflow" in ended.stderr
    assert "sesame" not in ended.stderr


def test_the_other_registry_is_told_apart(store: ModelStore, mlflow_url: str) -> None:
    ended = export(store, "kubeflow", mlflow_url)
    assert ended.returncode == 2
    assert "is not Kubeflow's Model Registry; check its URL" in ended.stderr
