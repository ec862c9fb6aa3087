"""What deploy_model checks before it touches the cluster, and its page. Needs: the venv twin of the base image."""

from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest

from components.deploy_model.canary import Check, Step
from components.deploy_model.cluster import Cluster
from components.deploy_model.decision import Decision, Golden, Happening
from components.deploy_model.page import page
from components.deploy_model.serving import require_model, storage_uri
from components.errors import InputError


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("s3://models/flights/versions/v1", "s3://models/flights/versions/v1/"),
        ("gs://models/v1/", "gs://models/v1/"),
        ("pvc://claim/v1", "pvc://claim/v1"),
        ("https://host/model.zip", "https://host/model.zip"),
    ],
)
def test_a_prefix_ends_with_a_slash(given: str, wanted: str) -> None:
    assert storage_uri(given) == wanted


@pytest.mark.parametrize("given", ["models/flights/v1", "/models/v1", "file:///models/v1"])
def test_a_model_on_this_machine_is_refused(given: str) -> None:
    with pytest.raises(InputError, match=r"set publication\.store to gs:// or s3://"):
        storage_uri(given)


@pytest.mark.parametrize("inside", ["1/saved_model.pb", "model/1/saved_model.pb"])
def test_a_model_must_be_there(s3_bucket: str, inside: str) -> None:
    with pytest.raises(InputError, match=r"has no 1/saved_model\.pb"):
        require_model(f"{s3_bucket}/v1/")
    with fsspec.open(f"{s3_bucket}/v1/{inside}", "wb") as file:
        file.write(b"graph")
    require_model(f"{s3_bucket}/v1/")


def test_a_place_that_only_the_cluster_reaches_is_taken_as_it_is() -> None:
    require_model("pvc://claim/v1")


def test_no_cluster_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"no cluster: .*; set KUBECONFIG"):
        Cluster("lockgate", 1)


def test_the_page_tells_what_happened_and_escapes_it() -> None:
    check = Check(name="mean latency, ms", canary=200.0, stable=10.0, bound="at most 15.0", ok=False, detail="slow")
    text = page(
        Decision(
            verdict="fail",
            reason="v2: flights-canary: golden test: <b>",
            action="rolled back",
            namespace="lockgate",
            service="flights",
            version="v2",
            storage_uri="s3://models/v2/",
            previous_version="v1",
            previous_storage_uri="s3://models/v1/",
            url="http://flights.example.com/v1/models/flights:predict",
            cluster_url="http://flights-predictor.lockgate.svc.cluster.local/v1/models/flights:predict",
            golden=[Golden(service="flights-canary", rows=50, differing=1, largest=None, cause="row 3")],
            steps=[Step(percent=10, seconds=60, canary_requests=70, stable_requests=700, checks=[check])],
            happenings=[Happening(at=datetime(2026, 1, 1, 12, 30, tzinfo=UTC), text="rolling out")],
            events=["12:30:00 Warning Pod/x BackOff: y"],
            log=["last words"],
        )
    )
    for part in (
        "&lt;b&gt;",
        "row 3",
        "at most 15.0",
        "12:30:00",
        "Warning Pod/x BackOff",
        "last words",
        "s3://models/v1/",
    ):
        assert part in text
    assert "<b>" not in text
