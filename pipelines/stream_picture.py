"""A picture of a stream, as a self-contained SVG: scores over time, what came true, and alerts against the budget."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from components.artifacts import write_whole
from pipelines.stream_alerts import Alerts, Decision
from pipelines.stream_view import moment, reasons_of

_TEMPLATE = Path(__file__).with_name("stream.svg.jinja")
_DRAWN = 3000
"""Decisions without an alert that are drawn; more are a cloud that looks the same."""
_WIDTH, _LEFT, _RIGHT = 960, 64, 150
_TOP, _SCORES, _BARS, _GAP = 78, 280, 96, 52
_LOWEST, _HIGHEST = 1e-4, 0.9995
_TICKS = (0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99)
_MOST_BARS, _DATES = 62, 8
_PERIODS_MS = tuple(hours * 3_600_000 for hours in (0.25, 1, 6, 24, 7 * 24, 28 * 24))


@dataclass(frozen=True)
class Scale:
    """Where things are, in pixels."""

    first_ms: int
    last_ms: int

    def x(self, time_ms: float) -> float:
        """Gives the place of a time."""
        share = (time_ms - self.first_ms) / max(1, self.last_ms - self.first_ms)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    @staticmethod
    def y(score: float) -> float:
        """Gives the place of a score: by its log odds, since most are small."""
        low, high, at = (np.log(p / (1 - p)) for p in (_LOWEST, _HIGHEST, min(max(score, _LOWEST), _HIGHEST)))
        return round(float(_TOP + _SCORES * (high - at) / (high - low)), 1)


def write(path: Path, alerts: Alerts, name: str, budget: float | None) -> None:
    """Draws the decisions that are remembered.

    Args:
        path: of the SVG.
        alerts: with one decision at least.
        name: of the project.
        budget: alerts per 1,000 events; None: nobody says.
    """
    decisions = list(alerts.kept)
    scale = Scale(min(one.time_ms for one in decisions), max(one.time_ms for one in decisions))
    truth = alerts.truth
    outcomes = [truth.is_positive(one) if truth else None for one in decisions]
    groups: dict[str, list[Decision]] = {"caught": [], "missed": [], "false": [], "open": [], "quiet": []}
    for decision, positive in zip(decisions, outcomes, strict=True):
        kind = "open" if positive is None else "caught" if positive else "false"
        groups[kind if decision.alert else "missed" if positive else "quiet"].append(decision)
    quiet = groups.pop("quiet")
    drawn = np.random.default_rng(0).permutation(len(quiet))[:_DRAWN]
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    text = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        title=f"{name}: decided one by one, {moment(scale.first_ms)} to {moment(scale.last_ms)}",
        subtitle=_subtitle(alerts, groups, len(decisions)),
        cloud="".join(f"M{scale.x(quiet[i].time_ms)} {scale.y(quiet[i].score)}h0" for i in np.sort(drawn)),
        drawn=len(drawn),
        quiet=len(quiet),
        points={
            kind: [(scale.x(one.time_ms), scale.y(one.score), _told(one)) for one in found]
            for kind, found in groups.items()
        },
        ticks=[(scale.y(tick), f"{tick:g}") for tick in _TICKS],
        threshold=(scale.y(decisions[-1].threshold), f"{decisions[-1].threshold:.2g}"),
        dates=_dates(scale),
        bars=_bars(scale, decisions, groups, budget),
        size=(_WIDTH, _TOP + _SCORES + _GAP + _BARS + 22),
        frame=(_LEFT, _TOP, _WIDTH - _RIGHT, _TOP + _SCORES),
        strip=(_TOP + _SCORES + _GAP, _TOP + _SCORES + _GAP + _BARS),
    )
    write_whole(str(path), text)


def _subtitle(alerts: Alerts, groups: dict[str, list[Decision]], decided: int) -> str:
    caught, missed, wrong = (len(groups[name]) for name in ("caught", "missed", "false"))
    raised = caught + wrong + len(groups["open"])
    parts = [f"{decided:,} decisions", f"{1000 * raised / decided:.1f} alerts per 1,000"]
    if alerts.truth and caught + wrong:
        parts.append(f"{caught / (caught + wrong):.0%} of them right")
    if alerts.truth and caught + missed:
        parts.append(f"{caught / (caught + missed):.0%} of {caught + missed:,} positive events found")
    return "  ·  ".join(parts)


def _told(decision: Decision) -> str:
    fields = ", ".join(f"{name} {value}" for name, value in decision.fields.items())
    parts = [moment(decision.time_ms), f"{decision.id}: {decision.score:.3f}", fields, reasons_of(decision)]
    return "\n".join(part for part in parts if part)


def _dates(scale: Scale) -> list[tuple[float, str]]:
    span = scale.last_ms - scale.first_ms
    day = 86_400_000
    if span < 2 * day:
        times = np.linspace(scale.first_ms, scale.last_ms, 5)
        return [(scale.x(time), f"{datetime.fromtimestamp(time / 1000, UTC):%d %b %H:%M}") for time in times]
    step = max(1, round(span / day / _DATES)) * day
    days = range(-(-scale.first_ms // day) * day, scale.last_ms + 1, step)
    return [(scale.x(time), f"{datetime.fromtimestamp(time / 1000, UTC):%-d %b}") for time in days]


def _bars(
    scale: Scale, decisions: Sequence[Decision], groups: dict[str, list[Decision]], budget: float | None
) -> dict[str, Any]:
    """Counts alerts by period, right ones below: rectangles, and the budget's line."""
    span = scale.last_ms - scale.first_ms
    period = next((int(one) for one in _PERIODS_MS if span / one <= _MOST_BARS), int(_PERIODS_MS[-1]))

    def by_period(found: Sequence[Decision]) -> Counter[int]:
        return Counter(one.time_ms // period for one in found)

    events = by_period(decisions)
    counts = {kind: by_period(groups[kind]) for kind in ("caught", "open", "false")}
    limits = {number: budget * count / 1000 for number, count in events.items()} if budget else {}
    highest = max([1.0, *limits.values(), *(sum(c[number] for c in counts.values()) for number in events)])
    bottom, rectangles, line = _TOP + _SCORES + _GAP + _BARS, [], []
    for number in sorted(events):
        left, right = (scale.x(min(max(edge * period, scale.first_ms), scale.last_ms)) for edge in (number, number + 1))
        below = 0.0
        for kind, found in counts.items():
            height = round(_BARS * found[number] / highest, 1)
            if height:
                rectangles.append(
                    (left + 0.5, round(bottom - below - height, 1), max(right - left - 1, 0.8), height, kind)
                )
            below += height
        if limits:
            y = round(bottom - _BARS * limits[number] / highest, 1)
            line.append(f"{left},{y} {right},{y}")
    names = {3_600_000: "hour", 24 * 3_600_000: "day", 7 * 24 * 3_600_000: "week"}
    hours = period / 3_600_000
    return {
        "rectangles": rectangles,
        "budget": " ".join(line),
        "budget_at": round(bottom - _BARS * float(np.median(list(limits.values()))) / highest, 1) if limits else 0,
        "budget_name": f"{budget:g} per 1,000" if budget else "",
        "highest": f"{highest:.0f}",
        "period": names.get(period, f"{hours:g} hours" if hours < 24 else f"{hours / 24:g} days"),
    }
