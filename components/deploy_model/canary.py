"""What the canary does with its traffic, measured against the stable model in the same time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, ConfigDict

from components.settings import Canary

_REQUESTS, _SECONDS = "lockgate_requests_total", "lockgate_request_seconds_sum"
_SCORES, _CLASSES = "lockgate_predictions_bucket", "lockgate_predicted_classes_total"

_CHANCE = math.sqrt(-math.log(0.001 / 2) / 2)
"""How far two samples of one distribution are apart once in 1000 times (two-sample Kolmogorov-Smirnov test), times the
root of the sum of their inverse sizes."""
_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Counters:
    """What one pod has counted since it started."""

    requests: float = 0.0
    failed: float = 0.0
    """Not answered with 200."""
    seconds: float = 0.0
    """Of all requests, over all phases."""
    scores: Mapping[float, float] = field(default_factory=dict)
    """Predictions up to a bound, by bound."""
    classes: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(
            self.requests + other.requests,
            self.failed + other.failed,
            self.seconds + other.seconds,
            _sum(self.scores, other.scores),
            _sum(self.classes, other.classes),
        )

    def since(self, before: "Counters") -> "Counters":
        """Gives what was counted between two readings; a pod that was started again counts from 0."""
        if self.requests < before.requests:
            return self
        return Counters(
            self.requests - before.requests,
            self.failed - before.failed,
            self.seconds - before.seconds,
            {bound: count - before.scores.get(bound, 0.0) for bound, count in self.scores.items()},
            {name: count - before.classes.get(name, 0.0) for name, count in self.classes.items()},
        )


class Check(BaseModel):
    """One comparison of canary and stable."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    canary: float | None
    stable: float | None
    bound: str
    ok: bool
    detail: str = ""
    """Why it was not judged, or what failed."""


class Step(BaseModel):
    """What was seen while the canary had a share of the traffic."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    percent: int
    seconds: float
    canary_requests: int | None
    """None: its model server does not count them."""
    stable_requests: int | None
    checks: list[Check]

    @property
    def cause(self) -> str:
        """Why the canary fails; empty: it does not."""
        return next(
            (f"at {self.percent} % of the traffic: {check.detail}" for check in self.checks if not check.ok), ""
        )


def parse(text: str) -> Counters | None:
    """Reads what a model server says at /metrics; None: it is not ours, and counts nothing to compare by."""
    requests = failed = seconds = 0.0
    scores: dict[float, float] = {}
    classes: dict[str, float] = {}
    try:
        families = list(text_string_to_metric_families(text))
    except ValueError:
        return None
    if _REQUESTS.removesuffix("_total") not in (family.name for family in families):
        return None
    for family in families:
        for sample in family.samples:
            if sample.name == _REQUESTS:
                requests += sample.value
                failed += 0.0 if sample.labels.get("code") in ("200", "OK") else sample.value
            elif sample.name == _SECONDS:
                seconds += sample.value
            elif sample.name == _SCORES:
                scores[float(sample.labels["le"])] = sample.value
            elif sample.name == _CLASSES:
                classes[sample.labels["name"]] = sample.value
    return Counters(requests, failed, seconds, scores, classes)


def total(before: Mapping[str, Counters], after: Mapping[str, Counters]) -> Counters | None:
    """Sums up what pods counted between two readings, by name of the pod; None: no pod counts."""
    if not after:
        return None
    return sum((counters.since(before.get(pod, Counters())) for pod, counters in after.items()), Counters())


def judge(percent: int, seconds: float, canary: Counters | None, stable: Counters | None, limits: Canary) -> Step:
    """Compares what both counted in the same time."""
    return Step(
        percent=percent,
        seconds=seconds,
        canary_requests=round(canary.requests) if canary else None,
        stable_requests=round(stable.requests) if stable else None,
        checks=_checks(canary, stable, limits),
    )


def _checks(canary: Counters | None, stable: Counters | None, limits: Canary) -> list[Check]:
    if canary is None or stable is None:
        silent = [who for who, one in (("the canary", canary), ("the stable model", stable)) if one is None]
        return [_not_judged(canary, stable, f"no pod of {' or '.join(silent)} gives {_REQUESTS} at /metrics")]
    if min(canary.requests, stable.requests) < limits.min_requests:
        seen = f"{canary.requests:.0f} requests to the canary, {stable.requests:.0f} to the stable model"
        return [_not_judged(canary, stable, f"{seen} (needed: {limits.min_requests} each)")]
    shift = _shift(canary, stable, limits)
    return [_errors(canary, stable, limits), _latency(canary, stable, limits), *([shift] if shift else [])]


def _not_judged(canary: Counters | None, stable: Counters | None, why: str) -> Check:
    new, old = (one.requests if one else None for one in (canary, stable))
    return Check(name="requests", canary=new, stable=old, bound="", ok=True, detail=f"not judged: {why}")


def _errors(canary: Counters, stable: Counters, limits: Canary) -> Check:
    new, old = canary.failed / canary.requests, stable.failed / stable.requests
    most = min(1.0, old + limits.max_error_increase)
    # Of few requests one or two may fail by chance: three standard errors.
    allowed = most + 3 * math.sqrt(most * (1 - most) / canary.requests)
    ok = new <= allowed
    detail = "" if ok else f"{new:.1%} of the canary's requests failed (allowed: {allowed:.1%}; stable: {old:.1%})"
    return Check(name="failed requests", canary=new, stable=old, bound=f"at most {allowed:.2%}", ok=ok, detail=detail)


def _latency(canary: Counters, stable: Counters, limits: Canary) -> Check:
    new, old = 1000 * canary.seconds / canary.requests, 1000 * stable.seconds / stable.requests
    allowed = max(old * limits.max_latency_ratio, old + limits.latency_slack_ms)
    ok = new <= allowed
    detail = "" if ok else f"a request takes {new:.1f} ms in the mean (allowed: {allowed:.1f} ms; stable: {old:.1f} ms)"
    return Check(name="mean latency, ms", canary=new, stable=old, bound=f"at most {allowed:.1f}", ok=ok, detail=detail)


def _shift(canary: Counters, stable: Counters, limits: Canary) -> Check | None:
    distance = _distance(canary, stable)
    if distance is None:
        return None
    sizes = [one.scores.get(math.inf) or sum(one.classes.values()) for one in (canary, stable)]
    allowed = limits.max_prediction_shift + _CHANCE * math.sqrt(sum(1 / size for size in sizes))
    ok = distance <= allowed
    detail = "" if ok else f"the predictions differ by {distance:.3f} (allowed: {allowed:.3f})"
    bound = f"at most {allowed:.3f} apart"
    return Check(name="prediction shift", canary=distance, stable=None, bound=bound, ok=ok, detail=detail)


def _distance(canary: Counters, stable: Counters) -> float | None:
    """Measures the distance between two distributions of predictions, 0 to 1; None: there are none."""
    sizes = [sum(one.classes.values()) for one in (canary, stable)]
    if all(sizes) and set(canary.classes) == set(stable.classes) and not canary.scores:
        return max(abs(canary.classes[n] / sizes[0] - stable.classes[n] / sizes[1]) for n in canary.classes)
    bounds = sorted(b for b in {*canary.scores, *stable.scores} if math.isfinite(b))
    curves = [_distribution(one.scores) for one in (canary, stable)]
    if not bounds or not all(curves):
        return None
    return max(abs(_at(bound, curves[0]) - _at(bound, curves[1])) for bound in bounds)


def _distribution(scores: Mapping[float, float]) -> Sequence[tuple[float, float]]:
    """Gives the share of predictions up to each finite bound; empty: there were none."""
    size = scores.get(math.inf, 0.0)
    return [(bound, count / size) for bound, count in sorted(scores.items()) if math.isfinite(bound)] if size else []


def _at(bound: float, curve: Sequence[tuple[float, float]]) -> float:
    """Interpolates: two models may have been given other buckets."""
    below = [(b, share) for b, share in curve if b <= bound]
    above = [(b, share) for b, share in curve if b >= bound]
    if not below:
        return 0.0 if bound < curve[0][0] else curve[0][1]
    if not above:
        return below[-1][1]
    (low, at_low), (high, at_high) = below[-1], above[0]
    return at_low if high == low else at_low + (at_high - at_low) * (bound - low) / (high - low)


def _sum(one: Mapping[_Key, float], other: Mapping[_Key, float]) -> dict[_Key, float]:
    return {key: one.get(key, 0.0) + other.get(key, 0.0) for key in {**one, **other}}
