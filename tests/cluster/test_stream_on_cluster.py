"""The stream on a cluster, with the broker of manifests/kind/kafka: lost pods, a second member, window features.

Needs: what test_training_on_cluster.py needs, the broker's image on the nodes (`apache/kafka`, or what the manifest is
patched to), a storage class, and an empty namespace `kafka`, or the broker in it. One test needs KEDA. Takes about 6
minutes on two cores.
"""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from components.settings import WindowFeatures
from components.window_features.arrays import compute
from tests import servers
from tests.cluster import kubeflow, streams
from tests.cluster.kubeflow import SERVED
from tests.cluster.lab import kubectl
from tests.cluster.streams import STREAM, WINDOWS, Client
from tests.local.project import write_project

_WHY = kubeflow.missing()
pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(_WHY), reason=f"no cluster to test on: {_WHY}"),
]
EVENTS = 3000
SCALED_OBJECTS = "scaledobjects.keda.sh"
START_MS = 1_767_312_000_000
BY_CITY = {
    "time": "at",
    "key": ["city"],
    "features": [
        {"name": "city_count_10m", "of": "count", "window": "10 minutes"},
        {"name": "city_price_10m", "of": "sum", "column": "price", "window": "10 minutes"},
    ],
}
MADE = [str(feature["name"]) for feature in BY_CITY["features"]]  # type: ignore[index]
SCHEMA = """\
feature { name: "at" type: INT presence { min_fraction: 1.0 } }
feature { name: "city_count_10m" type: INT }
feature { name: "city_price_10m" type: FLOAT }
"""


@pytest.fixture(scope="module", autouse=True)
def store_within_reach() -> Iterator[None]:
    """This process and its children reach the cluster's object store."""
    with servers.environment(**kubeflow.credentials()):
        yield


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    one = Client()
    one.start()
    yield one
    one.stop()


def test_each_event_is_decided_once_through_a_lost_pod_and_a_new_member(client: Client, tmp_path: Path) -> None:
    source = write_project(tmp_path / "source") / "pipeline.yaml"
    sent, third = events(), EVENTS // 3
    for number, event in enumerate(sent[-30:]):
        event["price"] = "dear" if number % 2 else event["price"]
    with streams.trained(tmp_path, source) as project:
        names = streams.topics(project.name)
        client.make(list(names.values()))
        with streams.deployed(project, tmp_path, "store"):
            client.write(names["input_topic"], sent[:third])
            streams.kill(STREAM)
            client.write(names["input_topic"], sent[third : 2 * third])
            kubectl("-n", SERVED, "scale", STREAM, "--replicas=2")
            kubectl("-n", SERVED, "rollout", "status", STREAM, "--timeout=300s")
            client.write(names["input_topic"], sent[2 * third :])
            decisions = client.read(names["output_topic"], EVENTS - 15)
            rejected = client.read(names["dead_letter_topic"], 15)
        assert_each_once(decisions, EVENTS - 15)
        assert {one["version"] for one in decisions} == {project.store.latest()}
        assert sorted(one["price"] for one in rejected) == ["dear"] * 15


def test_window_features_are_those_of_a_batch_through_a_lost_pod_a_lost_disk_and_a_new_member(
    client: Client, tmp_path: Path
) -> None:
    sent, third = events(), EVENTS // 3
    with streams.trained(tmp_path, write_windowed(tmp_path / "source"), pass_through=MADE) as project:
        names = streams.topics(project.name)
        client.make(list(names.values()))
        with streams.deployed(project, tmp_path, "store", "windows"):
            client.write(names["input_topic"], sent[:third])
            client.read(names["output_topic"], third // 10)
            streams.kill(WINDOWS)
            client.write(names["input_topic"], sent[third : 2 * third])
            client.read(names["output_topic"], 2 * third)
            streams.lose_disk(WINDOWS)
            kubectl("-n", SERVED, "scale", WINDOWS, "--replicas=2")
            kubectl("-n", SERVED, "rollout", "status", WINDOWS, "--timeout=300s")
            client.write(names["input_topic"], sent[2 * third :])
            decisions = client.read(names["output_topic"], EVENTS)
            rejected = client.read(names["dead_letter_topic"], 0, 10)
    assert not rejected
    assert_each_once(decisions, EVENTS)
    assert {one["event_id"]: one["event"] for one in decisions} == of_a_batch(sent)


def test_members_follow_the_lag_and_are_no_more_than_partitions(client: Client, tmp_path: Path) -> None:
    if not kubectl("get", "crd", "-o=name", "--ignore-not-found", SCALED_OBJECTS).strip():
        pytest.skip(f"no KEDA in the cluster: it has no {SCALED_OBJECTS}")
    sent = events()
    with streams.trained(tmp_path, write_project(tmp_path / "source") / "pipeline.yaml") as project:
        names = streams.topics(project.name)
        client.make(list(names.values()))
        client.write(names["input_topic"], sent)
        # The whole backlog would want six members; the topic has four partitions.
        wanted = {"consumerGroup": project.name, "topic": names["input_topic"], "lagThreshold": str(EVENTS // 6)}
        changes = [
            {"op": "replace", "path": f"/spec/triggers/0/metadata/{name}", "value": value}
            for name, value in wanted.items()
        ]
        # So little of a core that the backlog is still there when the autoscaler looks.
        slow = {"op": "add", "path": "/spec/template/spec/containers/0/resources/limits/cpu", "value": "250m"}
        patches = [
            {"target": {"kind": kind}, "patch": yaml.safe_dump(patch)}
            for kind, patch in (("ScaledObject", changes), ("Deployment", [slow]))
        ]
        with streams.deployed(project, tmp_path, "store", "scaling", patches=patches):
            assert most_members(180) == 4
            decisions = client.read(names["output_topic"], EVENTS)
    assert_each_once(decisions, EVENTS)


def most_members(seconds: float) -> int:
    """Gives the greatest number of members that is asked for, within some seconds, or until there are four."""
    most, end = 0, time.monotonic() + seconds
    while most < 4 and time.monotonic() < end:
        most = max(most, int(kubectl("-n", SERVED, "get", STREAM, "-o=jsonpath={.spec.replicas}")))
        time.sleep(1)
    return most


def events() -> list[dict[str, Any]]:
    """Of three cities, a second apart."""
    cities = ("Paris", "Rome", "Oslo")
    return [
        {"visit": f"e{n}", "at": START_MS + 1000 * n, "price": n % 100 + 0.1, "age": 20 + n % 50, "city": cities[n % 3]}
        for n in range(EVENTS)
    ]


def write_windowed(folder: Path) -> Path:
    """Writes a project whose model takes window features."""
    source = write_project(folder) / "pipeline.yaml"
    settings = yaml.safe_load(source.read_text()) | {"window_features": BY_CITY}
    settings["features"]["numeric"][0]["columns"] += MADE
    source.write_text(yaml.safe_dump(settings))
    with (folder / "schema.pbtxt").open("a") as schema:
        schema.write(SCHEMA)
    for month, file in enumerate(sorted((folder / "data").iterdir())):
        header, *rows = file.read_text().splitlines()
        first = START_MS - (2 - month) * 30 * 86_400_000
        timed = [f"{row},{first + 1000 * number}" for number, row in enumerate(rows)]
        file.write_text("\n".join([f"{header},at", *timed, ""]))
    return source


def of_a_batch(sent: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Gives the features that ingest_data would have computed, by event."""
    columns = {
        "city": pa.array([one["city"] for one in sent]),
        "price": pa.array([one["price"] for one in sent], pa.float32()),
    }
    found = compute(WindowFeatures.model_validate(BY_CITY), pa.array([one["at"] for one in sent]), columns)
    return {one["visit"]: row for one, row in zip(sent, pa.table(found).to_pylist(), strict=True)}


def assert_each_once(decisions: list[dict[str, Any]], count: int) -> None:
    assert len(Counter(one["event_id"] for one in decisions)) == len(decisions) == count
