"""`python -m pipelines deployments` on a cluster, as a user types it. Needs: what test_deploy_on_cluster.py needs."""

import json
import os
import subprocess

from tests.cluster.lab import ROOT, Lab, killed_at, read_until

DEV = ROOT / ".venvs" / "dev" / "bin" / "python"


def deployments(lab: Lab, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(DEV), "-W", "ignore", "-m", "pipelines", "deployments", *arguments, "--namespace", lab.namespace],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "PYTHONPATH": ""},
    )


def test_what_is_served_is_listed_promoted_rolled_back_and_deleted(served: Lab) -> None:
    process = served.start("pvc://models/two")
    read_until(process, "route: 20 %")
    listed = json.loads(deployments(served, "list", "--json").stdout)
    assert [(one["service"], one["stable"]["version"], one["canary"]["version"]) for one in listed] == [
        ("flights", "one", "two")
    ]
    assert listed[0]["canary_percent"] == 20
    with served.client() as client:
        ended = deployments(served, "promote", "flights", "--take-over")
        assert (ended.returncode, ended.stdout.splitlines()[-1:]) == (0, ["two is in service"]), ended.stderr
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == 4, rest
        assert "has taken the deployment over" in rest
        client.models.clear()
        status = deployments(served, "status", "flights")
        assert "stable: two pvc://models/two, 100 % of the traffic: 1 of 1 pods are ready" in status.stdout
        assert "before: one" in status.stdout
        ended = deployments(served, "rollback", "flights")
        assert (ended.returncode, ended.stdout.splitlines()[-1:]) == (0, ["one is in service"]), ended.stderr
    assert client.models["two"] > 0
    assert client.models["one"] > 0
    ended = deployments(served, "delete", "flights", "--yes")
    assert ended.returncode == 0, ended.stderr
    left = served.kubectl("get", "isvc,httproutes,leases,deployments,services,hpa", "-o", "name")
    assert left == ""
    ended = deployments(served, "status", "flights")
    assert (ended.returncode, "has no service 'flights'" in ended.stderr) == (2, True), ended.stderr


def test_rolling_back_drops_a_canary_that_a_dead_run_left(served: Lab) -> None:
    with served.client() as client:
        killed_at(served.start("pvc://models/two"), "route: 20 %")
        ended = deployments(served, "rollback", "flights", "--take-over")
        assert (ended.returncode, "the canary is removed" in ended.stdout) == (0, True), ended.stderr
        assert client.next_models() == {"one"}
    assert "canary" not in served.kubectl("get", "isvc,deployments,hpa", "-o", "name")


def test_no_namespace_is_told_of(served: Lab) -> None:
    ended = subprocess.run(
        [str(DEV), "-W", "ignore", "-m", "pipelines", "deployments", "list"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, "which services?" in ended.stderr) == (2, True), ended.stderr
