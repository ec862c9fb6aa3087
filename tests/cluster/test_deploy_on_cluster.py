"""deploy_model on a real cluster. Needs: KUBECONFIG, KServe, a Gateway API gateway, an image with Python on the nodes.

No client of the service may see a failed request, whatever is deployed.
"""

import json
import re
import time

import pytest

from tests.cluster.lab import Lab, decision_of, killed_at


def test_a_new_model_takes_over_by_steps(served: Lab) -> None:
    with served.client() as client:
        decision = served.deploy("two")
    assert (decision["verdict"], decision["action"]) == ("pass", "promoted"), decision["reason"]
    assert [step["percent"] for step in decision["steps"]] == [20, 50]
    assert all(len(step["checks"]) >= 2 for step in decision["steps"]), decision["steps"]
    assert client.models["one"] > 0
    assert client.models["two"] > 0
    assert "canary" not in served.kubectl("get", "isvc,deployments,services,hpa", "-o", "name")
    assert served.deploy("two")["action"] == "unchanged"


@pytest.mark.parametrize(
    ("model", "changes", "cause"),
    [
        ("two", {"runtime": "no-image"}, r"image 'nowhere.invalid/predictor:1' cannot be pulled"),
        ("pvc://nowhere/model", {}, r'finds no node: .*persistentvolumeclaim "nowhere" not found'),
        ("https://nowhere.invalid/model.zip", {}, r"container 'storage-initializer' .* crashes \(exit code 1.*\): .+"),
        ("pvc://models/none", {}, r"crashes \(exit code 1.*\): .*behaviour.json"),
        ("crashing", {}, r"crashes \(exit code 1.*\): .*the weights are of another architecture"),
        ("two", {"node_selector": {"disk": "none"}}, r"finds no node: 0/1 nodes are available: .*didn't match"),
        ("wrong", {}, r"golden test: 50 of 50 rows differ .* probability is 0.3 instead of 0"),
        ("ftp://nowhere.invalid/model", {}, r"KServe: .*StorageURI not supported"),
        ("two", {"model_format": "none"}, r"KServe: "),
    ],
)
def test_a_model_that_cannot_serve_is_rolled_back_in_one_line(
    served: Lab, model: str, changes: dict[str, object], cause: str
) -> None:
    with served.client() as client:
        started = time.monotonic()
        decision = served.deploy(model, **changes)
        assert time.monotonic() - started < 80
        time.sleep(2)
    assert (decision["verdict"], decision["action"]) == ("fail", "rolled back")
    assert re.search(cause, decision["reason"]), decision["reason"]
    assert "\n" not in decision["reason"]
    assert set(client.models) == {"one"}
    assert "canary" not in served.kubectl("get", "isvc", "-o", "name")


@pytest.mark.parametrize(("pods", "service"), [(1, "flights-canary"), (2, "flights")])
def test_a_quota_is_named(served: Lab, pods: int, service: str) -> None:
    """With room for one pod the canary does not fit; for two, the stable model's successor does not."""
    hard = {"hard": {"pods": str(pods)}}
    with served.client() as client:
        served.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": hard})
        decision = served.deploy("two")
        assert client.next_models() == {"one"}
    assert re.search(rf": {service}: pods cannot be made: .*exceeded quota: q", decision["reason"]), decision["reason"]


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        ("slow", r"at 20 % of the traffic: a request takes"),
        ("failing", r"at 20 % of the traffic: .* requests failed"),
        ("shifted", r"at 20 % of the traffic: the predictions differ by"),
        ("dying", r"at 20 % of the traffic: \d+ restarts"),
    ],
)
def test_a_canary_that_is_worse_is_rolled_back(served: Lab, model: str, cause: str) -> None:
    with served.client() as client:
        # What the canary answers itself, or the gateway for it.
        client.tolerates = {"failing": "as told", "dying": "Bad Gateway"}.get(model, "")
        decision = served.deploy(model)
        assert decision["verdict"] == "fail"
        assert re.search(cause, decision["reason"]), decision["reason"]
        assert client.tolerated < 0.2 * client.requests
        client.tolerates = ""
        assert client.next_models() == {"one"}


def test_a_killed_run_is_picked_up_where_it_stood(served: Lab) -> None:
    with served.client():
        killed_at(served.start("pvc://models/two"), "route: 50 %")
        decision = served.deploy("two")
    assert (decision["verdict"], decision["action"]) == ("pass", "promoted")
    said = [one["text"] for one in decision["happenings"]]
    assert any("an earlier run was stopped at 50 %" in text for text in said), said
    assert [step["percent"] for step in decision["steps"]] == [50]


def test_two_runs_at_once_take_turns(served: Lab) -> None:
    with served.client():
        runs = [served.start(f"pvc://models/{model}", run=model) for model in ("two", "three")]
        decisions = [decision_of(run) for run in runs]
    assert {(one["verdict"], one["action"]) for one in decisions} == {("pass", "promoted")}
    last = max(decisions, key=lambda one: one["happenings"][-1]["at"])
    live = served.get("isvc", "flights")
    assert live["spec"]["predictor"]["model"]["storageUri"] == last["storage_uri"]


def test_annotations_of_others_are_kept_while_they_change_all_the_time(served: Lab) -> None:
    served.kubectl("label", "isvc", "flights", "team=a")
    with served.client():
        process = served.start("pvc://models/two")
        count = 0
        while process.poll() is None:
            count += 1
            served.kubectl("annotate", "--overwrite", "isvc", "flights", "team.example.com/count=0")
            served.kubectl("annotate", "--overwrite", "httproute", "flights", f"team.example.com/count={count}")
        decision = decision_of(process)
    assert decision["verdict"] == "pass", decision["reason"]
    metadata = served.get("isvc", "flights")["metadata"]
    assert metadata["labels"]["team"] == "a"
    assert metadata["annotations"]["team.example.com/count"] == "0"
    assert served.get("httproute", "flights")["metadata"]["annotations"]["team.example.com/count"] == str(count)


def test_without_a_gateway_the_model_is_replaced_in_place(served: Lab) -> None:
    """The client's route is the tests' here: it leads to the stable Service whatever is deployed."""
    nothing = {"gateway": "", "hostname": ""}
    with served.client() as client:
        decision = served.deploy("two", **nothing)
        assert (decision["action"], decision["steps"]) == ("promoted", [])
        assert decision["url"].startswith("http://flights-predictor.")
        client.models.clear()
        assert served.deploy("wrong", **nothing)["verdict"] == "fail"
    assert set(client.models) == {"two"}
    assert served.get("isvc", "flights")["spec"]["predictor"]["model"]["storageUri"] == "pvc://models/two"
    left = json.loads(served.kubectl("get", "httproutes", "-o", "json"))["items"]
    assert [one["metadata"]["generation"] for one in left] == [1]
