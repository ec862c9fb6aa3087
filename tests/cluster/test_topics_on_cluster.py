"""Training on a Kafka topic, on Kubeflow Pipelines: offsets are data, and a Secret tells how to reach them.

Needs: what test_stream_on_cluster.py needs. Takes about 5 minutes on two cores.
"""

import csv
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import servers
from tests.cluster import kubeflow
from tests.cluster.kubeflow import RUNS, states
from tests.cluster.lab import kubectl
from tests.cluster.streams import BROKER, Client
from tests.local.project import write_project

_WHY = kubeflow.missing()
pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(_WHY), reason=f"no cluster to test on: {_WHY}"),
]
SECRET = "lockgate-kafka"


@pytest.fixture(scope="module", autouse=True)
def store_within_reach() -> Iterator[None]:
    """This process and its children reach the cluster's object store."""
    with servers.environment(**kubeflow.credentials()):
        yield


@pytest.fixture
def client() -> Iterator[Client]:
    one = Client()
    one.start()
    yield one
    one.stop()


def test_a_range_of_offsets_is_trained_on_as_the_secret_says(client: Client, tmp_path: Path) -> None:
    source = write_project(tmp_path / "source")
    topic = f"visits-{uuid.uuid4().hex[:6]}"
    client.make([topic])
    client.write(topic, events(source / "data"))
    ends = client.ends(topic)
    data = {"source": f"kafka://{BROKER}/{topic}", "window": window(ends)}
    with kubeflow.project(tmp_path / "project", topic, source / "pipeline.yaml", {"data": data}) as project:
        try:
            protocol("PLAINTEXT")
            outcome = project.run()
            protocol("SSL")
            first, end = next((partition, end) for partition, end in ends.items() if end)
            refused = project.run("--set", f"data.window={window(ends | {first: end - 1})}")
        finally:
            kubectl("-n", RUNS, "delete", "secret", SECRET)
        assert outcome["verdict"] == "PASSED", outcome
        assert project.store.latest()
    assert refused["exit_code"] == 4, refused
    assert states(refused)["ingest-data"] == "failed"


def events(folder: Path) -> list[dict[str, Any]]:
    """Gives the rows of CSV files as events; an empty field is not in the event."""
    kinds = {"visit": str, "price": float, "age": int, "city": str, "bought": int}
    return [
        {name: kinds[name](value) for name, value in row.items() if value}
        for file in sorted(folder.iterdir())
        for row in csv.DictReader(file.read_text().splitlines())
    ]


def window(ends: dict[int, int]) -> str:
    """Names all offsets up to some."""
    return "offsets " + ",".join(f"{partition}:0..{end}" for partition, end in ends.items() if end)


def protocol(name: str) -> None:
    """Tells the stages how to speak with the broker."""
    made = kubectl(
        *("-n", RUNS, "create", "secret", "generic", SECRET, "--dry-run=client", "-o=yaml"),
        f"--from-literal=LOCKGATE_KAFKA_SECURITY_PROTOCOL={name}",
    )
    kubectl("-n", RUNS, "apply", "-f", "-", given=made)
