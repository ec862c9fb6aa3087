"""What deploy_model does to a cluster, step by step. Needs: the venv twin of the base image."""

import itertools
import math
import re
from collections.abc import Iterator

import pytest

from components.deploy_model import deployment as module
from components.deploy_model.cluster import HTTP_ROUTE, INFERENCE_SERVICE, LEASE, SERVING_RUNTIME, ConflictError
from components.deploy_model.decision import Decision
from components.deploy_model.deployment import Candidate, ServiceDeployment, require_name
from components.deploy_model.inference_service import storage_uri_of
from components.errors import InputError, UnavailableError
from components.golden import GoldenRows
from components.settings import Deployment
from tests.deploy_model.simulated_cluster import SERVICE_NAME, KilledError, SimulatedCluster

ROWS = GoldenRows([{"a": 1}, {"a": None}], [{"probability": 0.5}, {"probability": 0.5}], [{"a": 1.0}, {"a": math.nan}])
SETTINGS = Deployment.model_validate(
    {
        "target": "kserve",
        "gateway": "gateways/main",
        "hostname": "flights.example.com",
        "canary": {"hold_seconds": 0.01},
        "settle_seconds": 0,
    }
)
STEPS = [*SETTINGS.canary.steps, 100, 0]


@pytest.fixture
def cluster() -> SimulatedCluster:
    return SimulatedCluster()


def deploy(
    cluster: SimulatedCluster, uri: str, settings: Deployment = SETTINGS, holder: str = "run", run: str = "run-1"
) -> Decision:
    candidate = Candidate(SERVICE_NAME, uri, module.version_of(uri), run, ROWS)
    return ServiceDeployment(cluster, settings, SERVICE_NAME, f"{holder}/{len(cluster.writes)}").deploy(candidate)


def served(cluster: SimulatedCluster, name: str = SERVICE_NAME) -> str | None:
    live = cluster.get(INFERENCE_SERVICE, name)
    return storage_uri_of(live["spec"]["predictor"]) if live else None


def annotations(cluster: SimulatedCluster) -> dict[str, str]:
    live = cluster.get(INFERENCE_SERVICE, SERVICE_NAME)
    assert live is not None
    found: dict[str, str] = live["metadata"]["annotations"]
    return found


def test_the_first_model_is_created_and_gets_the_route_when_it_has_been_tested(cluster: SimulatedCluster) -> None:
    decision = deploy(cluster, "s3://good/v0001/")
    assert (decision.verdict, decision.action) == ("pass", "created")
    assert decision.url == "http://flights.example.com/v1/models/flights:predict"
    assert cluster.writes == ["InferenceService flights", "HTTPRoute flights"]
    assert [one.rows for one in decision.golden] == [2]


def test_a_second_model_goes_through_the_canary_steps(cluster: SimulatedCluster) -> None:
    deploy(cluster, "s3://good/v0001/")
    decision = deploy(cluster, "s3://good/v0002/")
    assert (decision.verdict, decision.action, decision.previous_version) == ("pass", "promoted", "v0001")
    assert cluster.traffic == [0, *STEPS]
    assert [step.percent for step in decision.steps] == SETTINGS.canary.steps
    assert (served(cluster), served(cluster, "flights-canary")) == ("s3://good/v0002/", None)


def test_new_pods_get_traffic_when_all_nodes_have_heard_of_them(cluster: SimulatedCluster) -> None:
    settings = SETTINGS.model_copy(update={"settle_seconds": 5.0})
    for uri in ("s3://good/v0001/", "s3://good/v0002/"):
        deploy(cluster, uri, settings)
    assert cluster.ready_for >= 5


def test_the_same_model_again_changes_nothing(cluster: SimulatedCluster) -> None:
    deploy(cluster, "s3://good/v0001/")
    before = len(cluster.writes)
    decision = deploy(cluster, "s3://good/v0001/")
    assert (decision.verdict, decision.action, len(cluster.writes)) == ("pass", "unchanged", before)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("s3://wrong/v0002/", r"2 of 2 rows differ .* row 0: probability is 0.9 instead of 0.5"),
        ("s3://broken/v0002/", r"image 'x' cannot be pulled"),
        ("s3://dying/v0002/", r"at 10 % of the traffic: 1 restarts"),
        ("s3://hanging/v0002/", r"at 10 % of the traffic: none of its pods is ready"),
        ("s3://slow/v0002/", r"at 10 % of the traffic: a request takes 100.0 ms in the mean \(allowed: 15.0 ms"),
    ],
)
def test_a_bad_model_leaves_the_one_before_in_service(cluster: SimulatedCluster, uri: str, reason: str) -> None:
    deploy(cluster, "s3://good/v0001/")
    decision = deploy(cluster, uri)
    assert (decision.verdict, decision.action) == ("fail", "rolled back")
    assert decision.reason.endswith("v0001 stays in service")
    assert re.search(reason, decision.reason), decision.reason
    assert (served(cluster), served(cluster, "flights-canary")) == ("s3://good/v0001/", None)
    assert cluster.traffic[-1] == 0
    assert deploy(cluster, "s3://good/v0003/").verdict == "pass"


def test_a_model_that_fails_only_where_it_should_stay_is_replaced_by_the_one_before(cluster: SimulatedCluster) -> None:
    deploy(cluster, "s3://good/v0001/", run="run-1")
    deploy(cluster, "s3://good/v0001/", run="run-2")
    before = annotations(cluster)
    decision = deploy(cluster, "s3://fickle/v0002/", run="run-3")
    # KServe puts them on the pods: others would replace pods that serve.
    assert annotations(cluster) == before
    assert decision.verdict == "fail"
    assert decision.reason.endswith("v0001 stays in service")
    assert served(cluster) == "s3://good/v0001/"
    assert cluster.traffic == [0, *STEPS]


def test_a_model_that_cannot_be_restored_keeps_its_traffic_where_it_is(cluster: SimulatedCluster) -> None:
    deploy(cluster, "s3://good/v0001/")
    cluster.breaks_later.add("s3://good/v0001/")
    with pytest.raises(UnavailableError, match=r"the model before cannot be restored: flights: .* cannot be pulled"):
        deploy(cluster, "s3://fickle/v0002/")
    assert cluster.traffic[-1] == 100


@pytest.mark.parametrize("refused", ["flights", "flights-canary"])
def test_a_refusal_of_the_api_server_leaves_the_one_before_in_service(cluster: SimulatedCluster, refused: str) -> None:
    deploy(cluster, "s3://good/v0001/")
    cluster.refuses.add(refused)
    with pytest.raises(InputError, match="models need a ticket"):
        deploy(cluster, "s3://good/v0002/")
    assert (served(cluster), served(cluster, "flights-canary")) == ("s3://good/v0001/", None)
    assert cluster.traffic[-1] == 0
    cluster.refuses.clear()
    assert deploy(cluster, "s3://good/v0002/").action == "promoted"


def test_a_refusal_of_the_first_model_is_told_of_and_a_later_run_goes_on(cluster: SimulatedCluster) -> None:
    cluster.refuses.add(SERVICE_NAME)
    with pytest.raises(InputError, match="models need a ticket"):
        deploy(cluster, "s3://good/v0001/")
    cluster.refuses.clear()
    assert deploy(cluster, "s3://good/v0001/").action == "created"


def test_a_first_model_that_is_bad_leaves_nothing(cluster: SimulatedCluster) -> None:
    decision = deploy(cluster, "s3://wrong/v0001/")
    assert decision.verdict == "fail"
    assert decision.reason.endswith("no model is in service")
    assert (served(cluster), cluster.traffic) == (None, [])


def test_a_newer_version_in_service_stays(cluster: SimulatedCluster) -> None:
    deploy(cluster, "s3://good/v0002-0000000a/")
    decision = deploy(cluster, "s3://good/v0001-0000000a/")
    assert (decision.verdict, decision.action) == ("pass", "overtaken")
    assert served(cluster) == "s3://good/v0002-0000000a/"


def test_a_change_of_the_settings_goes_through_the_canary_too(cluster: SimulatedCluster) -> None:
    deploy(cluster, "s3://good/v0001/")
    more = SETTINGS.model_copy(update={"min_replicas": 2})
    assert deploy(cluster, "s3://good/v0001/", more).action == "promoted"


def test_without_a_gateway_the_model_is_only_tested(cluster: SimulatedCluster) -> None:
    settings = SETTINGS.model_copy(update={"gateway": "", "hostname": ""})
    deploy(cluster, "s3://good/v0001/", settings)
    decision = deploy(cluster, "s3://good/v0002/", settings)
    assert (decision.action, decision.steps, cluster.traffic) == ("promoted", [], [])
    assert any("without canary steps" in one.text for one in decision.happenings)
    assert decision.url == "http://flights-predictor.lockgate.svc.cluster.local/v1/models/flights:predict"


def test_a_cluster_without_gateway_api_is_told_of(cluster: SimulatedCluster) -> None:
    cluster.has_gateway_api = False
    decision = deploy(cluster, "s3://good/v0001/")
    assert decision.verdict == "pass"
    assert any("no Gateway API" in one.text for one in decision.happenings)


def _deaths() -> Iterator[int]:
    whole = SimulatedCluster()
    deploy(whole, "s3://good/v0001/")
    first = len(whole.writes)
    deploy(whole, "s3://good/v0002/")
    yield from range(first + 1, len(whole.writes) + 1)


@pytest.mark.parametrize("die_at", list(_deaths()))
def test_a_run_that_was_killed_is_picked_up_where_it_stood(cluster: SimulatedCluster, die_at: int) -> None:
    deploy(cluster, "s3://good/v0001/")
    cluster.die_at = die_at
    with pytest.raises(KilledError):
        deploy(cluster, "s3://good/v0002/")
    cluster.die_at = None
    _expire(cluster)
    at = cluster.traffic[-1]
    decision = deploy(cluster, "s3://good/v0002/")
    assert decision.verdict == "pass"
    assert (served(cluster), served(cluster, "flights-canary")) == ("s3://good/v0002/", None)
    again = cluster.traffic[cluster.traffic.index(at) + 1 :]
    assert all(share == 0 or share >= at for share in again)


@pytest.mark.parametrize("die_at", list(_deaths()))
@pytest.mark.parametrize("uri", ["s3://good/v0003/", "s3://wrong/v0003/", "s3://good/v0001/"])
def test_what_a_killed_run_left_is_cleared_by_another_model(cluster: SimulatedCluster, die_at: int, uri: str) -> None:
    deploy(cluster, "s3://good/v0001/")
    cluster.die_at = die_at
    with pytest.raises(KilledError):
        deploy(cluster, "s3://good/v0002/")
    cluster.die_at = None
    _expire(cluster)
    decision = deploy(cluster, uri)
    assert decision.verdict == ("pass" if "good" in uri else "fail")
    assert served(cluster) == (uri if "good" in uri else "s3://good/v0001/")
    assert served(cluster, "flights-canary") is None
    assert cluster.traffic[-1] == 0


def _expire(cluster: SimulatedCluster) -> None:
    cluster.objects[LEASE, "flights-deployment"]["spec"]["renewTime"] = "2020-01-01T00:00:00.000000Z"


def test_a_second_run_waits_for_the_first(cluster: SimulatedCluster) -> None:
    deploy(cluster, "s3://good/v0001/")
    lease = cluster.objects[LEASE, "flights-deployment"]
    lease["spec"] |= {"holderIdentity": "other", "renewTime": "2999-01-01T00:00:00.000000Z"}
    with pytest.raises(UnavailableError, match="another deployment of service 'flights' is under way"):
        deploy(cluster, "s3://good/v0002/")
    assert served(cluster) == "s3://good/v0001/"


def test_a_run_stops_when_its_lease_was_taken_over(cluster: SimulatedCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(cluster, "s3://good/v0001/")
    monkeypatch.setattr("components.deploy_model.lease._RENEW_SECONDS", -1.0)
    write = cluster.write

    def steal(kind: object, wanted: dict[str, object]) -> dict[str, object]:
        written = write(kind, wanted)
        if kind is HTTP_ROUTE:
            cluster.objects[LEASE, "flights-deployment"]["spec"]["holderIdentity"] = "somebody else"
        return written

    monkeypatch.setattr(cluster, "write", steal)
    with pytest.raises(UnavailableError, match="somebody else has taken the deployment over"):
        deploy(cluster, "s3://good/v0002/")


def test_a_lease_that_others_write_on_stays_the_runs(
    cluster: SimulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.deploy_model.lease._RENEW_SECONDS", -1.0)
    write, asked = cluster.write, itertools.count()

    def conflict_every_third_time(kind: object, wanted: dict[str, object]) -> dict[str, object]:
        if kind is LEASE and next(asked) % 3 == 1:
            raise ConflictError
        return write(kind, wanted)

    monkeypatch.setattr(cluster, "write", conflict_every_third_time)
    for uri in ("s3://good/v0001/", "s3://good/v0002/"):
        assert deploy(cluster, uri).verdict == "pass"
        assert cluster.objects[LEASE, "flights-deployment"]["spec"].get("holderIdentity") is None


def test_a_lease_is_renewed_when_the_api_server_answers_again(
    cluster: SimulatedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(cluster, "s3://good/v0001/")
    monkeypatch.setattr("components.deploy_model.lease._RENEW_SECONDS", -1.0)
    get, failures = cluster.get, iter(range(2000))

    def fail_after_the_first_step(kind: object, name: str) -> dict[str, object] | None:
        while kind is LEASE and len(cluster.traffic) > 1 and next(failures, None) is not None:
            cluster.pause(0.01, "the API server does not answer")
        return get(kind, name)

    monkeypatch.setattr(cluster, "get", fail_after_the_first_step)
    assert deploy(cluster, "s3://good/v0002/").action == "promoted"
    assert next(failures, None) is None


def test_rolling_back_by_hand_restores_the_model_before(cluster: SimulatedCluster) -> None:
    deploy(cluster, "s3://good/v0001/")
    deploy(cluster, "s3://good/v0002/")
    by_hand = ServiceDeployment(cluster, SETTINGS, SERVICE_NAME, "me")
    before = by_hand.lease.previous()
    assert before is not None
    assert by_hand.restore(before, take_over=False) == "v0001 is in service"
    assert served(cluster) == "s3://good/v0001/"
    after = by_hand.lease.previous()
    assert after is not None
    assert after.version == "v0002"


def test_a_canary_can_be_promoted_and_abandoned_by_hand(cluster: SimulatedCluster) -> None:
    for action, wanted in (("promote", "s3://good/v0002/"), ("abandon", "s3://good/v0001/")):
        other = SimulatedCluster()
        deploy(other, "s3://good/v0001/")
        other.die_at = len(other.writes) + 3
        with pytest.raises(KilledError):
            deploy(other, "s3://good/v0002/")
        other.die_at = None
        _expire(other)
        getattr(ServiceDeployment(other, SETTINGS, SERVICE_NAME, "me"), action)(take_over=False)
        assert (served(other), served(other, "flights-canary"), other.traffic[-1]) == (wanted, None, 0)


def test_tensorflow_serving_gets_tensors_and_its_canary_steps_are_held_unjudged(cluster: SimulatedCluster) -> None:
    settings = SETTINGS.model_copy(update={"runtime": "lockgate-tensorflow-serving"})
    deploy(cluster, "s3://good/v0001/", settings)
    decision = deploy(cluster, "s3://slow/v0002/", settings)
    assert (decision.verdict, decision.action) == ("pass", "promoted")
    assert [step.percent for step in decision.steps] == SETTINGS.canary.steps
    why = "not judged: no pod of the canary or the stable model gives lockgate_requests_total at /metrics"
    assert {check.detail for step in decision.steps for check in step.checks} == {why}
    said = [one.text for one in decision.happenings]
    assert "runtime 'lockgate-tensorflow-serving' is TensorFlow Serving: canary steps are held, but not judged" in said
    assert f"{SETTINGS.canary.steps[0]} %: {why}" in said
    assert deploy(cluster, "s3://wrong/v0003/", settings).verdict == "fail"
    assert served(cluster) == "s3://slow/v0002/"


def test_a_service_can_move_to_tensorflow_serving_and_back(cluster: SimulatedCluster) -> None:
    other = SETTINGS.model_copy(update={"runtime": "lockgate-tensorflow-serving"})
    deploy(cluster, "s3://good/v0001/")
    there = deploy(cluster, "s3://good/v0001/", other)
    back = deploy(cluster, "s3://good/v0002/")
    for decision, who in ((there, "canary"), (back, "stable model")):
        assert decision.action == "promoted"
        assert {check.detail for step in decision.steps for check in step.checks} == {
            f"not judged: no pod of the {who} gives lockgate_requests_total at /metrics"
        }


def test_a_missing_runtime_is_named(cluster: SimulatedCluster) -> None:
    del cluster.objects[SERVING_RUNTIME, "lockgate-predictor"]
    with pytest.raises(InputError, match="ServingRuntime 'lockgate-predictor' is not in namespace 'lockgate'"):
        deploy(cluster, "s3://good/v0001/")


def test_annotations_and_labels_of_others_are_kept(cluster: SimulatedCluster) -> None:
    deploy(cluster, "s3://good/v0001/")
    metadata = cluster.objects[INFERENCE_SERVICE, "flights"]["metadata"]
    metadata["annotations"]["team.example.com/owner"] = "ada"
    metadata["labels"]["cost-centre"] = "7"
    deploy(cluster, "s3://good/v0002/")
    metadata = cluster.objects[INFERENCE_SERVICE, "flights"]["metadata"]
    assert metadata["annotations"]["team.example.com/owner"] == "ada"
    assert metadata["labels"]["cost-centre"] == "7"


@pytest.mark.parametrize("name", ["1st", "Flights", "a" * 47, "under_score", "end-"])
def test_names_that_kubernetes_refuses_are_refused_first(name: str) -> None:
    with pytest.raises(InputError, match=r"set deployment\.service"):
        require_name(name, "lockgate")


def test_an_infinite_difference_is_no_number_in_the_decision(cluster: SimulatedCluster) -> None:
    decision = deploy(cluster, "s3://wrong/v0001/")
    assert all(one.largest is None or math.isfinite(one.largest) for one in decision.golden)
