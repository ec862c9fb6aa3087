"""The leaderboard's order, and which model is chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from components.settings import CustomModel, KMeansModel, Model, StackModel
from components.tune_model.measures import Measured
from components.tune_model.records import Row, TrialResult

_ALIKE = 1.25
"""Requests whose times differ by this factor at most cost the same; a time measured again may differ so much."""
_REST_MS = 1.0
"""What a request takes besides the model: to parse, transform and answer it."""


@dataclass(frozen=True)
class Entry:
    """A trial, and how good it is."""

    result: TrialResult
    measured: Measured | None
    """None: it is not complete."""


@dataclass(frozen=True)
class Contender:
    """A complete trial against the best one."""

    result: TrialResult
    measured: Measured
    behind: float
    standard_error: float


def contenders(entries: Sequence[Entry]) -> list[Contender]:
    """Compares the complete trials with the best of them, which comes first; equally good ones stay in their order."""
    complete = [(entry.result, entry.measured) for entry in entries if entry.measured]
    best = complete[0][1]
    for _, measured in complete:
        best = measured if measured.behind(best)[0] < 0 else best
    compared = [Contender(result, measured, *measured.behind(best)) for result, measured in complete]
    return sorted(compared, key=lambda one: one.behind)


def choose(ranked: Sequence[Contender], rule: Literal["one_standard_error", "best"]) -> tuple[Contender, str]:
    """Chooses a model.

    Args:
        ranked: best first.
        rule: section `tuning.rule`.

    Returns:
        It, and why it was chosen, in one sentence.
    """
    best = ranked[0]
    name = named(best.result.model)
    metric = f"{best.measured.metric} {best.measured.value:.4f}"
    if len(ranked) == 1:
        return best, f"{name} was chosen: no other candidate was fitted to the end ({metric})"
    if rule == "best":
        return best, f"{name} was chosen: it is the best ({metric})"
    near = [one for one in ranked if one.behind <= one.standard_error]
    longest = _ALIKE * min(_request_ms(one) for one in near)
    chosen = next(one for one in near if _request_ms(one) <= longest)
    if chosen is best:
        why = "none within one standard error of it is clearly cheaper to serve"
        return best, f"{name} was chosen: it is the best ({metric}), and {why}"
    return chosen, (
        f"{named(chosen.result.model)} was chosen: its {best.measured.metric}, {chosen.measured.value:.4f}, is "
        f"{chosen.behind:.4f} behind the best ({name}), which is within the standard error of the difference "
        f"({chosen.standard_error:.4f}), and it answers a row in {chosen.result.latency_ms:.2f} ms instead of "
        f"{best.result.latency_ms:.2f}"
    )


def rows(entries: Sequence[Entry], ranked: Sequence[Contender], chosen: Contender, baseline: Measured) -> list[Row]:
    """Lists all trials and the baseline: best first, then those given up, then those that failed."""
    complete = [
        Row(
            state="complete",
            value=one.measured.value,
            low=one.measured.interval[0],
            high=one.measured.interval[1],
            behind=one.behind,
            standard_error=one.standard_error,
            latency_ms=one.result.latency_ms,
            parameters=one.result.parameters,
            chosen=one is chosen,
            **_facts(one.result),
        )
        for one in ranked
    ]
    behind, standard_error = baseline.behind(ranked[0].measured)
    trivial = Row(
        kind="baseline",
        state="baseline",
        value=baseline.value,
        low=baseline.interval[0],
        high=baseline.interval[1],
        behind=behind,
        standard_error=standard_error,
    )
    ended = [
        Row(state=state, reason=entry.result.reason, **_facts(entry.result))
        for state in ("pruned", "failed")
        for entry in entries
        if entry.result.state == state
    ]
    place = next((index for index, row in enumerate(complete) if (row.behind or 0) > behind), len(complete))
    return [*complete[:place], trivial, *complete[place:], *ended]


def hyperparameters(model: Model) -> dict[str, Any]:
    """Gives those that differ from the kind's defaults; of a custom model, its options."""
    if isinstance(model, CustomModel):
        return dict(model.options)
    if isinstance(model, StackModel):
        return {member.kind: share for member, share in zip(model.members, model.shares, strict=True)}
    defaults = type(model).model_validate({"kind": model.kind})
    return {
        name: value for name, value in model.model_dump(exclude={"kind"}).items() if value != getattr(defaults, name)
    }


def _facts(result: TrialResult) -> dict[str, Any]:
    return {
        "kind": result.model.kind,
        "model": result.model,
        "hyperparameters": hyperparameters(result.model),
        "fit_seconds": round(result.seconds, 2),
        "steps": _steps(result),
    }


def _steps(result: TrialResult) -> str:
    counts = sorted(set(result.kept))
    if not counts:
        return ""
    unit = result.unit if counts[-1] == 1 else {"epoch": "epochs"}.get(result.unit, f"{result.unit}s")
    return f"{counts[0]} {unit}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} {unit}"


def _request_ms(contender: Contender) -> float:
    return contender.result.latency_ms + _REST_MS


def named(model: Model) -> str:
    """Names a model in a sentence."""
    if isinstance(model, StackModel):
        return f"{model.kind} of {' and '.join(member.kind for member in model.members)}"
    return f"{model.kind} with {model.clusters} clusters" if isinstance(model, KMeansModel) else model.kind
