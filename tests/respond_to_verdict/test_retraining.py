"""What starts a training run, and that it starts once. Needs: the venv twin of the base image."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components import pipelines_api
from components.errors import DataRejectedError, InputError, LockgateError, UnavailableError
from components.monitoring_responses import Act, Responses, StartedPerhapsError
from tests.pipelines.kubeflow_server import Kubeflow, serving
from tests.respond_to_verdict.world import EVIDENCE, World, record

ROOT = Path(__file__).parents[2]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def kubeflow() -> Iterator[Kubeflow]:
    with serving() as server:
        schedule(server)
        yield server


def schedule(kubeflow: Kubeflow, name: str = "shop-training", **changes: Any) -> dict[str, Any]:
    """Puts a schedule there, as `schedule create --paused` makes it."""
    given = {
        "display_name": name,
        "mode": "DISABLE",
        "experiment_id": "experiment-1",
        "service_account": "trainer",
        "pipeline_version_reference": {"pipeline_id": "p1", "pipeline_version_id": "v1"},
        "runtime_config": {
            "parameters": {"name": "shop", "data": {"source": "s3://data/x", "window": "last 9 months"}, "task": {}},
            "pipeline_root": "s3://runs",
        },
    }
    return kubeflow._add("recurringruns", given | changes)


def runs(kubeflow: Kubeflow) -> list[dict[str, Any]]:
    return list(kubeflow.objects["runs"].values())


def test_a_run_of_the_schedule_is_started_on_the_window_that_follows(world: World, kubeflow: Kubeflow) -> None:
    answer = world.respond(record(), retrain=True, kfp_url=kubeflow.url)
    (run,) = runs(kubeflow)
    assert (answer.run, answer.training_window) == (run["run_id"], "2025-02..2025-03")
    assert run["description"].splitlines() == [
        "project=shop",
        "pipeline=training",
        "window=2025-02..2025-03",
        "judged=2025-03",
        f"evidence={EVIDENCE}",
    ]
    assert run["pipeline_version_reference"] == {"pipeline_id": "p1", "pipeline_version_id": "v1"}
    assert (run["experiment_id"], run["service_account"]) == ("experiment-1", "trainer")
    assert run["runtime_config"]["pipeline_root"] == "s3://runs"
    given = run["runtime_config"]["parameters"]
    assert given == {"name": "shop", "task": {}, "data": {"source": "s3://data/x", "window": "2025-02..2025-03"}}
    assert world.markers == [f"{EVIDENCE}/retrain.claim-1.json", f"{EVIDENCE}/retrain.done.json"]


def test_the_same_evidence_starts_nothing_twice(world: World, kubeflow: Kubeflow) -> None:
    first, second = (world.respond(record(), retrain=True, kfp_url=kubeflow.url) for _ in range(2))
    assert first.run == second.run
    assert "trained before on this evidence" in second.reason
    assert len(runs(kubeflow)) == 1
    other = world.respond(record(evidence="f" * 16), retrain=True, kfp_url=kubeflow.url)
    assert other.run != first.run


@pytest.mark.parametrize("history", ["local", "s3", "gcs"])
def test_of_many_at_once_one_starts(
    history: str, world: World, kubeflow: Kubeflow, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.monitoring_responses._POLL_SECONDS", 0.05)
    place = str(world.folder / "history") if history == "local" else request.getfixturevalue(f"{history}_bucket")
    ready, started, ended = threading.Barrier(6), [], []

    def act(begin: Any) -> tuple[str, str]:
        begin()
        started.append(1)
        time.sleep(0.2)
        return "run-1", "2025-03"

    def monitor() -> None:
        ready.wait()
        ended.append(Responses(place, "shop", EVIDENCE).once("retrain", Act(act)))

    threads = [threading.Thread(target=monitor) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 1
    assert [done.result for done, _ in ended] == ["run-1"] * 6
    assert sum(new for _, new in ended) == 1


@pytest.mark.parametrize("has_started", [False, True])
def test_what_a_killed_monitoring_run_left_is_settled(
    world: World, kubeflow: Kubeflow, has_started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process is killed between its claim and the end, before or after it has started the run."""
    place = str(world.folder / "models" / "monitoring")
    script = f"""
import sys, time, urllib.request
from components.monitoring_responses import Act, Responses
def act(begin):
    begin()
    if {has_started}:
        body = sys.argv[1].encode()
        headers = {{"content-type": "application/json"}}
        urllib.request.urlopen(urllib.request.Request("{kubeflow.url}/apis/v2beta1/runs", body, headers)).read()
    print("now", flush=True)
    time.sleep(600)
Responses({place!r}, "shop", {EVIDENCE!r}).once("retrain", Act(act))
"""
    body = {"display_name": "a", "description": f"project=shop\nwindow=2025-02..2025-03\nevidence={EVIDENCE}"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "no_proxy": "*"}
    command = [sys.executable, "-c", script, json.dumps(body)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGKILL)
    monkeypatch.setattr("components.monitoring_responses.ABANDONED_SECONDS", 0.0)
    answer = world.respond(record(), retrain=True, kfp_url=kubeflow.url)
    (run,) = runs(kubeflow)
    assert answer.run == run["run_id"]
    assert answer.training_window == "2025-02..2025-03"
    assert ("started before" in answer.reason) == has_started
    assert world.markers == [f"{EVIDENCE}/retrain.{name}.json" for name in ("claim-1", "claim-2", "done")]


def test_a_claim_that_is_young_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.monitoring_responses._POLL_SECONDS", 0.05)
    monkeypatch.setattr("components.monitoring_responses.ABANDONED_SECONDS", 0.4)
    slow, quick = (Responses(str(tmp_path), "shop", EVIDENCE) for _ in range(2))

    def killed(begin: Any) -> tuple[str, str]:
        raise StartedPerhapsError("no answer")

    with pytest.raises(UnavailableError):
        slow.once("retrain", Act(killed))
    began = time.monotonic()
    done, new = quick.once("retrain", Act(lambda begin: ("again", "")))
    assert (done.result, new) == ("again", True)
    assert time.monotonic() - began >= 0.2


def test_a_holder_that_is_too_late_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.monitoring_responses.ACTING_SECONDS", -1.0)
    with pytest.raises(UnavailableError, match="to prepare; run monitoring again"):
        Responses(str(tmp_path), "shop", EVIDENCE).once("retrain", Act(lambda begin: (begin(), ("never", ""))[1]))
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("status", "error", "claims"), [(400, InputError, 0), (403, InputError, 0), (503, UnavailableError, 1)]
)
def test_an_api_that_refuses_or_is_away(
    world: World, kubeflow: Kubeflow, status: int, error: type[LockgateError], claims: int
) -> None:
    answer = kubeflow.answer

    def broken(method: str, *arguments: Any) -> Any:
        return (status, {"message": "no"}) if method == "POST" else answer(method, *arguments)

    kubeflow.answer = broken  # type: ignore[method-assign]
    with pytest.raises(error):
        world.respond(record(), retrain=True, kfp_url=kubeflow.url)
    # Nobody knows whether a server that fails has done it; whoever was refused has started nothing.
    assert len(world.markers) == claims
    assert runs(kubeflow) == []


def test_an_api_that_nobody_answers_for(world: World) -> None:
    with pytest.raises(UnavailableError, match="does not answer"):
        world.respond(record(), retrain=True, kfp_url="http://127.0.0.1:9")
    assert world.markers == []


def test_schedules_that_cannot_be_copied(world: World, kubeflow: Kubeflow) -> None:
    with pytest.raises(InputError, match=r"no schedule 'nightly' .* schedule create PROJECT --name nightly"):
        world.respond(record(), retrain=True, kfp_url=kubeflow.url, schedule="nightly")
    schedule(kubeflow)
    with pytest.raises(InputError, match="2 schedules are named 'shop-training'"):
        world.respond(record(), retrain=True, kfp_url=kubeflow.url)
    schedule(kubeflow, "other", runtime_config={"parameters": {"name": "other", "data": {}}})
    with pytest.raises(InputError, match="schedule 'other' trains no project 'shop'"):
        world.respond(record(), retrain=True, kfp_url=kubeflow.url, schedule="other")
    assert runs(kubeflow) == []
    assert world.markers == []


def test_the_token_and_the_namespace_of_a_user(
    world: World, kubeflow: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeflow.token, kubeflow.multi_user = "secret-1", True
    for one in kubeflow.objects["recurringruns"].values():
        one["namespace"] = "team"
    (tmp_path / "token").write_text("secret-1\n")
    (tmp_path / "namespace").write_text("team")
    where = {"retrain": True, "kfp_url": kubeflow.url, "token_file": str(tmp_path / "token")}
    with pytest.raises(InputError, match=r"name it: monitoring\.response\.namespace"):
        world.respond(record(), **where)
    monkeypatch.setattr(pipelines_api, "NAMESPACE", tmp_path / "namespace")
    assert world.respond(record(), **where).run
    with pytest.raises(InputError, match="cannot be read: No such file"):
        world.respond(record(evidence="b" * 16), **where | {"token_file": str(tmp_path / "none")})


def test_windows_that_training_cannot_have(world: World) -> None:
    world.window = "2025-01..2025-02"
    with pytest.raises(InputError, match=r"let it move by monitoring\.response\.window"):
        world.respond(record(), "local", retrain=True)
    assert world.respond(record(), "local", retrain=True, window="last 3 months").training_window == "2025-01..2025-03"
    (world.folder / "data" / "visits-2025-02.csv").unlink()
    with pytest.raises(DataRejectedError, match="2025-02"):
        world.respond(record(), "local", retrain=True, window="last 3 months")


def test_on_this_machine_it_only_says_what_to_train_on(world: World) -> None:
    answer = world.respond(record(), "local", retrain=True)
    assert (answer.run, answer.training_window) == ("", "2025-02..2025-03")
    assert world.markers == []


@pytest.mark.parametrize("verdict", ["watch", "page"])
def test_other_verdicts_train_nothing(world: World, kubeflow: Kubeflow, verdict: Any) -> None:
    answer = world.respond(record(verdict), retrain=True, kfp_url=kubeflow.url)
    assert (answer.run, answer.training_window) == ("", "")
    assert kubeflow.requests == []


def test_without_leave_nothing_is_trained(world: World) -> None:
    answer = world.respond(record())
    assert "starts by hand (monitoring.response.retrain is false)" in answer.reason
    assert answer.run == ""


def test_records_that_cannot_be_read(world: World, tmp_path: Path) -> None:
    from components.respond_to_verdict.response import respond
    from components.settings import Monitoring, Publication

    place = tmp_path / "bad"
    with pytest.raises(InputError, match="does not exist; give the output `record`"):
        respond("shop", Monitoring(), world.data, Publication(), str(place), "local")
    place.mkdir()
    for content in (b"", b"{}", b"\xff\xfe", b"[]"):
        (place / "record.json").write_bytes(content)
        with pytest.raises(InputError, match="is damaged"):
            respond("shop", Monitoring(), world.data, Publication(), str(place), "local")


def test_a_damaged_marker_is_told_of(world: World, kubeflow: Kubeflow) -> None:
    world.respond(record(), retrain=True, kfp_url=kubeflow.url)
    folder = world.folder / "models" / "monitoring" / "shop" / "responses" / EVIDENCE
    (folder / "retrain.done.json").write_text("{")
    with pytest.raises(InputError, match=r"is damaged: .*; remove the file"):
        world.respond(record(), retrain=True, kfp_url=kubeflow.url)
    (folder / "retrain.done.json").unlink()
    (folder / "retrain.claim-1.json").write_text("{}")
    with pytest.raises(InputError, match="is damaged"):
        world.respond(record(), retrain=True, kfp_url=kubeflow.url)
