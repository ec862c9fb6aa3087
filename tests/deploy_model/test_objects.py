"""The objects that deploy_model writes. Needs: the venv twin of the base image."""

from copy import deepcopy
from typing import Any

import pytest
from pydantic import ValidationError

from components.deploy_model import inference_service, route
from components.settings import Deployment

SETTINGS = Deployment.model_validate(
    {"target": "kserve", "gateway": "gateways/main", "hostname": "flights.example.com", "storage_secret": "store"}
)
NOTES = {**inference_service.annotations(SETTINGS), inference_service.VERSION: "v1", inference_service.RUN: "r1"}


def predictor(settings: Deployment = SETTINGS, uri: str = "s3://models/flights/v1/") -> dict[str, Any]:
    return inference_service.predictor(settings, "flights", uri)


def service(live: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any] | None:
    given = {"spec": predictor(), "notes": NOTES, **changes}
    return inference_service.changed(live, "flights", "lockgate", "flights", given["spec"], given["notes"])


def test_the_mode_is_always_set_and_pods_are_restricted() -> None:
    made = service()
    assert made is not None
    assert made["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"
    assert made["metadata"]["annotations"]["serving.kserve.io/storageSecretName"] == "store"
    spec = made["spec"]["predictor"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert spec["deploymentStrategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert spec["model"]["env"] == [{"name": "LOCKGATE_MODEL_NAME", "value": "flights"}]


def test_the_server_is_told_where_to_log_and_with_what() -> None:
    log = {"uri": "s3://logs/requests", "sample": 0.5, "redact": ["age", "city"], "credentials": "writers"}
    settings = Deployment.model_validate({"target": "kserve", "request_log": log})
    model = predictor(settings)["model"]
    assert {one["name"]: one["value"] for one in model["env"]} == {
        "LOCKGATE_MODEL_NAME": "flights",
        "LOCKGATE_LOG_URI": "s3://logs/requests",
        "LOCKGATE_LOG_SAMPLE": "0.5",
        "LOCKGATE_REDACT": "age,city",
    }
    optional = {"name": "writers", "optional": True}
    assert model["envFrom"] == [{"secretRef": optional}, {"configMapRef": optional}]
    assert "envFrom" not in predictor()["model"]


def test_defaults_of_the_webhook_are_no_difference_but_a_change_by_hand_is() -> None:
    live = service()
    assert live is not None
    live["spec"]["predictor"] |= {"name": "", "timeout": 60}
    live["spec"]["predictor"]["model"] |= {"protocolVersion": "v1", "name": ""}
    assert service(live) is None
    assert service(live, notes={**NOTES, inference_service.RUN: "another run"}) is None
    by_hand = deepcopy(live)
    by_hand["spec"]["predictor"]["model"]["resources"]["limits"]["memory"] = "64Gi"
    assert service(by_hand) is not None
    being_deleted = deepcopy(live)
    being_deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert service(being_deleted) is not None


def test_what_others_wrote_stays() -> None:
    live = service()
    assert live is not None
    live["metadata"] |= {"resourceVersion": "7", "labels": {"team": "a"}, "annotations": {"note": "b"}}
    live["spec"]["transformer"] = {"containers": []}
    made = service(live, spec=predictor(uri="s3://models/flights/v2/"))
    assert made is not None
    assert (made["metadata"]["labels"]["team"], made["metadata"]["annotations"]["note"]) == ("a", "b")
    assert made["metadata"]["resourceVersion"] == "7"
    assert made["spec"]["transformer"] == {"containers": []}


def test_any_change_of_the_spec_shows_on_the_pods() -> None:
    more = SETTINGS.model_copy(update={"min_replicas": 3})
    marks = {predictor(one)["annotations"][inference_service.SPEC] for one in (SETTINGS, SETTINGS, more)}
    assert len(marks) == 2


def test_a_route_names_only_backends_that_get_traffic() -> None:
    backends = {share: _backends(share) for share in (0, 25, 100)}
    assert backends == {
        0: {"flights-predictor": 100},
        25: {"flights-predictor": 75, "flights-canary-predictor": 25},
        100: {"flights-canary-predictor": 100},
    }


def _backends(share: int) -> dict[str, int]:
    made = route.changed(None, SETTINGS, "flights", share)
    assert made is not None
    assert route.canary_percent(made, "flights") == share
    return {backend["name"]: backend["weight"] for backend in made["spec"]["rules"][0]["backendRefs"]}


def test_an_unchanged_route_is_left_alone_with_the_defaults_of_the_api_server() -> None:
    live = route.changed(None, SETTINGS, "flights", 25)
    assert live is not None
    live["spec"]["rules"][0]["timeouts"] = {"request": "10s"}
    assert route.changed(live, SETTINGS, "flights", 25) is None
    assert route.changed(live, SETTINGS, "flights", 50) is not None


def test_no_route_sends_nothing_to_the_canary() -> None:
    assert route.canary_percent(None, "flights") == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_replicas": 3, "max_replicas": 2},
        {"gateway": "a/b"},
        {"hostname": "a.example.com"},
        {"gateway": "no-namespace", "hostname": "a"},
        {"canary": {"steps": [50, 10]}},
        {"canary": {"steps": [10, 100]}},
        {"gateway": "a/b", "hostname": "c", "timeout_seconds": 60},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Deployment.model_validate(wrong)
