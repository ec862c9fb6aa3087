"""`python -m pipelines models`, as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from components.model_store import ModelStore
from tests.publish_model.blessed import NAME, bless, publish_blessed

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """A store with two versions."""
    folder = tmp_path_factory.mktemp("models")
    store = ModelStore(str(folder / "store"), NAME)
    publish_blessed(bless(folder / "a", "a", 0.70), store.uri)
    first = store.uri_of(store.versions()[0])
    publish_blessed(bless(folder / "b", "b", 0.75), store.uri, production_model=first)
    return store


def models(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "pipelines", "models", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def of(store: ModelStore) -> tuple[str, ...]:
    return ("--store", store.uri, "--name", NAME)


def test_list_shows_versions_and_which_is_in_production(store: ModelStore) -> None:
    ended = models("list", *of(store))
    assert ended.returncode == 0
    first, second = store.versions()
    lines = ended.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["version", first, second]
    assert "in production" in lines[2]
    assert "in production" not in lines[1]
    assert lines[2].split()[-2:] == ["0.75", "–"]


def test_list_gives_json(store: ModelStore) -> None:
    listed = json.loads(models("list", *of(store), "--json").stdout)
    assert [entry["version"] for entry in listed] == store.versions()
    assert [entry["in_production"] for entry in listed] == [False, True]
    assert listed[1]["parent"] == listed[0]["version"]


def test_show_prints_the_card(store: ModelStore) -> None:
    first, second = store.versions()
    assert f"# {NAME} {second}" in models("show", *of(store)).stdout
    card = json.loads(models("show", "1", *of(store), "--json").stdout)
    assert (card["version"], card["uri"]) == (first, store.uri_of(first))


def test_diff_prints_what_changed(store: ModelStore) -> None:
    ended = models("diff", "1", "2", *of(store))
    assert ["metrics", "auc", "0.7", "0.75"] in [line.split() for line in ended.stdout.splitlines()]
    changes = json.loads(models("diff", "1", *of(store), "--json").stdout)
    assert {"topic": "metrics", "key": "auc", "before": 0.70, "after": 0.75} in changes
    assert "do not differ" in models("diff", "2", "2", *of(store)).stdout


def test_rollback_and_promote_change_what_is_in_production(store: ModelStore) -> None:
    first, second = store.versions()
    assert models("rollback", *of(store)).stdout.strip() == f"in production: {store.uri_of(first)}"
    assert store.latest() == first
    ended = models("rollback", *of(store))
    assert ended.returncode == 2
    assert "nothing was before" in ended.stderr
    assert json.loads(models("promote", "2", *of(store), "--json").stdout)["version"] == second
    assert store.latest() == second


def test_a_project_names_store_and_model(tmp_path: Path) -> None:
    project = "examples/flights"
    ended = models("list", "--project", project, "--store", str(tmp_path / "none"))
    assert ended.returncode == 0
    assert ended.stdout.startswith("no version of model 'flights'")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("list",), "--project"),
        (("list", "--store", "x"), "--name"),
        (("list", "--store", "ftp://x", "--name", NAME), "unknown scheme 'ftp'"),
        (("list", "--store", "x", "--name", "A b"), "model name 'A b'"),
        (("list", "--project", "no/such/folder"), "no/such/folder"),
        (("show", "--store", "no/such/store", "--name", NAME), "has no version 'latest'"),
        (("diff", "--store", "x", "--name", NAME), "Missing argument"),
        (("promote", "[bold]9", "--store", "no/such/store", "--name", NAME), "has no version '[bold]9'"),
        (("remove", "1"), "No such command"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: tuple[str, ...], message: str) -> None:
    ended = models(*arguments)
    assert ended.returncode == 2, ended.stderr
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    assert not (ROOT / "no").exists()
