"""Comparing canary and stable. Needs: the venv twin of the base image."""

import math
import re

import pytest

from components.deploy_model.canary import Counters, judge, parse, total
from components.settings import Canary

LIMITS = Canary(min_requests=10)
METRICS = """
# HELP lockgate_requests_total Requests for predictions
# TYPE lockgate_requests_total counter
lockgate_requests_total{code="200",protocol="v1"} 90.0
lockgate_requests_total{code="400",protocol="v2"} 10.0
# TYPE lockgate_request_seconds histogram
lockgate_request_seconds_bucket{le="0.1",phase="decode",protocol="v1"} 90.0
lockgate_request_seconds_bucket{le="+Inf",phase="decode",protocol="v1"} 90.0
lockgate_request_seconds_count{phase="decode",protocol="v1"} 90.0
lockgate_request_seconds_sum{phase="decode",protocol="v1"} 0.5
lockgate_request_seconds_sum{phase="predict",protocol="v1"} 1.5
# TYPE lockgate_predictions histogram
lockgate_predictions_bucket{le="0.5"} 30.0
lockgate_predictions_bucket{le="1.0"} 90.0
lockgate_predictions_bucket{le="+Inf"} 90.0
# TYPE lockgate_predicted_classes_total counter
lockgate_predicted_classes_total{name="yes"} 60.0
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 3.0
"""


def counters(requests: float = 100, failed: float = 0, seconds: float = 1, **more: dict[object, float]) -> Counters:
    return Counters(requests, failed, seconds, **more)  # type: ignore[arg-type]


def test_what_the_model_server_says_is_read() -> None:
    assert parse(METRICS) == Counters(100, 10, 2.0, {0.5: 30, 1.0: 90, math.inf: 90}, {"yes": 60})


TENSORFLOW_SERVING = """
# TYPE :tensorflow:serving:request_count counter
:tensorflow:serving:request_count{model_name="flights",status="OK"} 7
# TYPE :tensorflow:serving:request_latency histogram
:tensorflow:serving:request_latency_bucket{model_name="flights",API="predict",entrypoint="REST",le="10"} 0
"""


@pytest.mark.parametrize("text", [TENSORFLOW_SERVING, "", "<html>not found</html>"])
def test_another_server_says_nothing_that_can_be_judged(text: str) -> None:
    assert parse(text) is None


def test_our_server_counts_before_the_first_request() -> None:
    assert parse("# TYPE lockgate_requests_total counter\n") == Counters()


@pytest.mark.parametrize(
    ("canary", "stable", "who"),
    [
        (None, Counters(), "the canary"),
        (Counters(), None, "the stable model"),
        (None, None, "the canary or the stable model"),
    ],
)
def test_a_server_that_does_not_count_is_not_judged(canary: Counters | None, stable: Counters | None, who: str) -> None:
    step = judge(10, 60, canary, stable, LIMITS)
    assert step.cause == ""
    assert [check.detail for check in step.checks] == [
        f"not judged: no pod of {who} gives lockgate_requests_total at /metrics"
    ]
    assert (step.canary_requests is None, step.stable_requests is None) == (canary is None, stable is None)


def test_pods_are_summed_and_a_new_or_restarted_one_counts_from_zero() -> None:
    before = {"a": counters(100), "b": counters(50), "gone": counters(9)}
    after = {"a": counters(130), "b": counters(20), "new": counters(7)}
    counted = total(before, after)
    assert counted is not None
    assert counted.requests == 30 + 20 + 7


def test_pods_that_do_not_count_have_no_total() -> None:
    assert total({"a": counters(100)}, {}) is None


def test_a_canary_like_the_stable_model_passes() -> None:
    step = judge(10, 60, counters(), counters(), LIMITS)
    assert (step.cause, [check.name for check in step.checks]) == ("", ["failed requests", "mean latency, ms"])


@pytest.mark.parametrize(
    ("canary", "cause"),
    [
        (counters(failed=8), r"at 10 % of the traffic: 8.0% of the canary's requests failed \(allowed: 6.2%"),
        (counters(seconds=2), r"a request takes 20.0 ms in the mean \(allowed: 15.0 ms; stable: 10.0 ms\)"),
    ],
)
def test_a_worse_canary_fails(canary: Counters, cause: str) -> None:
    found = judge(10, 60, canary, counters(failed=1), LIMITS).cause
    assert re.search(cause, found), found


def test_small_differences_of_a_short_latency_count_as_none() -> None:
    assert judge(10, 60, counters(seconds=0.5), counters(seconds=0.1), LIMITS).cause == ""


@pytest.mark.parametrize(("canary", "stable"), [(9, 1000), (1000, 9), (0, 0)])
def test_too_little_traffic_is_not_judged(canary: float, stable: float) -> None:
    step = judge(10, 60, counters(canary, failed=canary), counters(stable), LIMITS)
    assert step.cause == ""
    assert "not judged" in step.checks[0].detail


def test_a_shift_of_the_scores_is_measured() -> None:
    low = counters(scores={0.5: 90.0, 1.0: 100.0, math.inf: 100.0})
    high = counters(scores={0.5: 10.0, 1.0: 100.0, math.inf: 100.0})
    assert judge(10, 60, low, low, LIMITS).cause == ""
    assert "the predictions differ by 0.800 (allowed: 0.426)" in judge(10, 60, high, low, LIMITS).cause


def test_models_with_other_buckets_are_compared_by_interpolation() -> None:
    even = counters(scores={0.0: 0.0, 10.0: 100.0, math.inf: 100.0})
    finer = counters(scores={0.0: 0.0, 5.0: 50.0, 10.0: 100.0, math.inf: 100.0})
    shifted = counters(scores={0.0: 0.0, 5.0: 100.0, 10.0: 100.0, math.inf: 100.0})
    assert judge(10, 60, even, finer, LIMITS).checks[-1].canary == 0
    assert judge(10, 60, even, shifted, LIMITS).checks[-1].canary == pytest.approx(0.5)


def test_a_shift_of_the_classes_is_measured() -> None:
    one, other = counters(classes={"a": 10.0, "b": 90.0}), counters(classes={"a": 60.0, "b": 40.0})
    assert judge(10, 60, one, other, LIMITS).checks[-1].canary == pytest.approx(0.5)


def test_what_chance_explains_is_no_fault() -> None:
    assert judge(10, 60, counters(50, failed=2), counters(50), LIMITS).cause == ""
    assert judge(10, 60, counters(5000, failed=200, seconds=50), counters(5000, seconds=50), LIMITS).cause
    few = [counters(scores={0.5: share, 1.0: 50.0, math.inf: 50.0}) for share in (20.0, 32.0)]
    many = [counters(scores={0.5: share, 1.0: 5000.0, math.inf: 5000.0}) for share in (2000.0, 3200.0)]
    assert judge(10, 60, *few, LIMITS).cause == ""
    assert "differ by 0.240" in judge(10, 60, *many, LIMITS).cause
