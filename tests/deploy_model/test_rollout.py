"""Causes of a rollout that fails, from objects recorded on a cluster (Kubernetes 1.34, KServe 0.20).

Needs: the venv twin of the base image.
"""

import copy
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.deploy_model.rollout import Observed, Rollout, lines_of, read, restarts

RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())
    return loaded


def judged(record: dict[str, Any], patience: float = 20.0, later: float = 0.0) -> Rollout:
    since, now = (datetime.fromisoformat(record[moment]) for moment in ("since", "now"))
    return read(Observed(**record["observed"]), record["predictor"], patience, since, now + timedelta(seconds=later))


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("bad_image", "image 'nowhere.invalid/predictor:1' cannot be pulled: Back-off pulling image"),
        ("crash", "crashes (exit code 1, Error, 2 restarts)"),
        ("download", "container 'storage-initializer' of pod"),
        ("download", "RuntimeError: Failed to connect to HTTP endpoint 'nowhere.invalid'"),
        ("no_claim", 'persistentvolumeclaim "nowhere" not found'),
        ("no_node", "didn't match Pod's node affinity/selector"),
        ("quota", "pods cannot be made: pods"),
        ("quota", "exceeded quota: q, requested: pods=1"),
        ("scheme", "KServe: StorageURI not supported"),
        ("format", "KServe: NoSupportingRuntime: Specified runtime does not support specified framework/version"),
    ],
)
def test_a_cause_is_told_in_one_line(name: str, cause: str) -> None:
    found = judged(recorded(name))
    assert found.state == "failed"
    assert cause in found.detail
    assert "\n" not in found.detail


@pytest.mark.parametrize("name", ["crash", "download"])
def test_a_crash_names_the_log_that_tells_more(name: str) -> None:
    found = judged(recorded(name))
    assert found.log_of is not None
    assert found.log_of[1] == ("kserve-container" if name == "crash" else "storage-initializer")


def test_ready_pods_of_the_wanted_kind_are_the_end() -> None:
    assert judged(recorded("ready")) == Rollout(
        "done", "1 of 1 pods are ready", pods=[recorded("ready")["observed"]["pods"][0]["metadata"]["name"]]
    )


def test_pods_that_start_are_waited_for() -> None:
    found = judged(recorded("starting"))
    assert (found.state, found.detail) == ("under way", "0 of 1 pods are ready")


def test_ready_pods_of_another_spec_do_not_count() -> None:
    record = recorded("ready")
    record["predictor"]["annotations"]["lockgate.dev/spec"] = "another"
    assert judged(record).detail == "KServe has not made the Deployment yet"
    record = recorded("ready")
    record["predictor"]["model"]["storageUri"] = "pvc://models/another"
    assert judged(record).state == "under way"


def test_a_deployment_that_has_not_been_looked_at_is_not_done() -> None:
    record = recorded("ready")
    record["observed"]["deployment"]["metadata"]["generation"] += 1
    assert judged(record).state == "under way"


def test_a_refusal_of_pods_of_another_kind_does_not_count() -> None:
    """The Deployment repeats what was said about a ReplicaSet that it has given up."""
    record = recorded("quota")
    record["observed"]["replica_sets"][0]["status"]["conditions"] = []
    assert judged(record).state == "under way"


def test_old_pods_that_are_still_going_are_waited_for() -> None:
    record = recorded("ready")
    old = copy.deepcopy(record["observed"]["pods"][0])
    old["metadata"] |= {"name": "old", "ownerReferences": [{"uid": "old"}], "deletionTimestamp": record["now"]}
    record["observed"]["pods"].append(old)
    assert (judged(record).state, judged(record).detail) == ("under way", "1 old pods are going")


def test_a_pod_may_wait_for_room_but_not_for_a_claim_that_is_not_there() -> None:
    assert judged(recorded("no_node"), patience=600).state == "under way"
    assert judged(recorded("no_node"), patience=600, later=700).state == "failed"
    assert judged(recorded("no_claim"), patience=600).state == "failed"


def test_one_crash_is_tried_again() -> None:
    record = recorded("crash")
    for status in record["observed"]["pods"][0]["status"]["containerStatuses"]:
        status["restartCount"] = 1
    assert judged(record).state == "under way"


@pytest.mark.parametrize("name", ["scheme", "format"])
def test_what_kserve_said_before_the_change_does_not_count(name: str) -> None:
    record = recorded(name)
    record["since"] = record["now"]
    assert judged(record).state == "under way"


def test_an_error_of_kserve_that_goes_away_by_itself_does_not_count() -> None:
    record = recorded("scheme")
    for event in record["observed"]["events"]:
        event["message"] = "the object has been modified; please apply your changes to the latest version"
    assert judged(record).state == "under way"


def test_an_error_that_kserve_met_once_does_not_count() -> None:
    """As when its controller is stopped in the middle."""
    record = recorded("scheme")
    for event in record["observed"]["events"]:
        event |= {"count": 1, "message": "fails to reconcile predictor: Post …: context canceled"}
    assert judged(record).state == "under way"


def test_restarts_and_events_are_read() -> None:
    observed = recorded("crash")["observed"]
    assert restarts(observed["pods"]) == 2
    lines = lines_of(observed["events"], last=5)
    assert len(lines) == 5
    assert all("\n" not in line for line in lines)
    assert any("BackOff" in line for line in lines)
