"""Running a compiled pipeline in its images. Needs: a Docker daemon, or root and dockerd; the venv twins."""

import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler, dsl

from components import images
from components.errors import InputError, UnavailableError
from components.gate.component import gate
from components.model_store import ModelStore
from pipelines import compiled
from pipelines.containers import Containers
from pipelines.local import Outcome, images_of, run_pipeline
from tests.local.project import run, write_project
from tests.pipelines.test_local import Silent

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]  # the first test builds the images

Built = Callable[[str], str]
EXECUTED = (
    "ingest-data", "validate-data", "gate", "transform-data", "tune-model", "train-model", "predict-batch",
    "predict-batch-2", "evaluate-model", "explain-model", "gate-2", "publish-model",
)  # fmt: skip


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def probe(how: str, folder: str) -> str:
    import os
    import signal
    import socket
    from pathlib import Path

    if how == "at once":
        os._exit(7)
    if how == "signal":
        os.kill(1, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "bug":
        raise ZeroDivisionError("a bug")
    if how == "network":
        socket.create_connection((folder, 80), timeout=5)
    if how == "write":
        Path(folder, "written").write_text("by a task")
    return how


@dsl.pipeline(name="probes")
def probes(how: str, folder: str = "", verdict: str = "pass"):
    passed = gate(name="probe", verdict=verdict, reason="it was asked for")
    probe(how=how, folder=folder).after(passed)


@pytest.fixture
def start(built: Built, tmp_path: Path) -> Callable[..., Outcome]:
    built("base")
    path = tmp_path / "probes.yaml"
    compiler.Compiler().compile(probes, str(path))
    text = path.read_text().replace(images.BASE, images.reference("base", tag=compiled.content_tag()))
    count = iter(range(100))

    def run_probes(reads: tuple[str, ...] = (), writes: tuple[str, ...] = (), **arguments: Any) -> Outcome:
        root, name = tmp_path / "runs", f"run-{next(count)}"
        root.mkdir(exist_ok=True)
        executor = Containers(images_of(text), name, reads, writes)
        return run_pipeline(text, arguments, root, name, Silent(), executor=executor)

    return run_probes


def test_a_task_that_passes(start: Callable[..., Outcome]) -> None:
    outcome = start(how="well")
    assert outcome.failed is None
    assert outcome.stage("probe").parameters == {"Output": "well"}
    again = start(how="well")
    assert {record.state for record in again.records} == {"cached"}


@pytest.mark.parametrize(
    ("how", "exit_code", "cause"),
    [
        ("bug", 1, "ZeroDivisionError: a bug"),
        ("at once", 7, "ended with 7 and said nothing"),
        ("signal", -signal.SIGKILL, "killed by signal 9"),
    ],
)
def test_a_task_that_fails_fails_the_run(start: Callable[..., Outcome], how: str, exit_code: int, cause: str) -> None:
    for _ in range(3):  # kfp's own runner loses some of the failures, by chance
        outcome = start(how=how)
        assert outcome.failed.task == "probe"
        assert outcome.failed.exit_code == exit_code
        assert cause in outcome.failed.error


def test_a_closed_gate_fails_the_run(start: Callable[..., Outcome]) -> None:
    outcome = start(how="well", verdict="fail")
    assert outcome.failed.exit_code == 3
    assert outcome.failed.error == "probe gate: data rejected: it was asked for"
    assert [r.task for r in outcome.records if r.state == "succeeded"] == []


def test_a_task_reaches_no_network(start: Callable[..., Outcome]) -> None:
    with socket.create_server(("0.0.0.0", 0)):
        outcome = start(how="network", folder="172.17.0.1")
    assert "unreachable" in outcome.failed.error


def test_a_task_writes_only_where_it_may(start: Callable[..., Outcome], tmp_path: Path) -> None:
    data, store = tmp_path / "data", tmp_path / "store"
    data.mkdir()
    (data / "rows.csv").write_text("a\n1\n")
    options = {"reads": (str(data / "rows.csv"),), "writes": (f"file://{store}",)}
    for folder, error in ((data, "Read-only"), (Path("/opt/lockgate"), "Read-only"), (store, "")):
        outcome = start(how="write", folder=str(folder), **options)
        assert (outcome.failed is None) == (error == "")
        assert error in (outcome.failed.error if outcome.failed else "")
    assert (store / "written").read_text() == "by a task"
    assert not (data / "written").exists()


def test_nothing_is_left_behind(start: Callable[..., Outcome]) -> None:
    start(how="bug")
    left = subprocess.check_output(["docker", "ps", "--all", "--quiet", "--filter", "label=lockgate.run"])
    assert left == b""


def test_an_image_that_is_not_there_is_named(docker_daemon: None) -> None:
    with pytest.raises(InputError, match=r"image 'registry\.invalid/base:1' is not on this machine; run `make images`"):
        Containers(["registry.invalid/base:1"], "run", [], [])


def test_a_bucket_needs_a_network(docker_daemon: None) -> None:
    with pytest.raises(InputError, match=r"'s3://bucket/x' cannot be reached .*--network bridge"):
        Containers([], "run", ["s3://bucket/x"], [])


def test_without_a_daemon_the_next_step_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(UnavailableError, match="the Docker daemon does not answer"):
        Containers(["base:1"], "run", [], [])


def test_the_training_pipeline_ends_as_in_the_twins(built: Built, tmp_path: Path) -> None:
    for name in ("base", "tensorflow", "predictor"):
        built(name)
    cards = []
    for runner in ("venv", "docker"):
        project = write_project(tmp_path / runner)
        ended = run(project, "--runner", runner)
        assert ended.code == 0, ended.stdout + ended.stderr
        assert {ended.records[task].state for task in EXECUTED} == {"succeeded"}
        assert {record.image for record in ended.records.values()} <= set(
            images_of(compiled.read("training", tag=compiled.content_tag()))
        )
        (card,) = ModelStore(str(project / "models"), "shop").cards()
        cards.append(card)
    twins, containers = cards
    assert containers.data.digest == twins.data.digest
    assert containers.evaluation.verdict == twins.evaluation.verdict == "pass"
    assert containers.evaluation.metrics == pytest.approx(twins.evaluation.metrics, abs=0.01)


def test_garbage_ends_at_the_data_gate(built: Built, tmp_path: Path) -> None:
    for name in ("base", "tensorflow", "predictor"):
        built(name)
    project = write_project(tmp_path / "garbage", cities=("Paris", "Rome", "Bitcoin"))
    ended = run(project, "--runner", "docker")
    assert ended.code == 3
    assert ended.records["gate"].state == "failed"
    assert "Bitcoin" in ended.records["gate"].error
    assert ended.records["transform-data"].state == "skipped"
