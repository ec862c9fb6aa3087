"""How a stream is shown: on a terminal while it runs, in a line where there is none, and in some lines at its end."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from pipelines.stream_alerts import RECENT, Alerts, Decision

_CLASSES, _FIELDS = 8, 5
_BAR = 30


def picture(status: Mapping[str, Any], alerts: Alerts | None = None, budget: float | None = None) -> RenderableType:
    """Draws how a stream is.

    Args:
        status: as the stream's process tells it.
        alerts: what it has decided; None, or none decided: nobody asks.
        budget: alerts per 1,000 events that there is time for; None: nobody says.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    latency = "–" if status["p50_ms"] is None else f"p50 {status['p50_ms']:.0f} ms   p99 {status['p99_ms']:.0f} ms"
    state = "[green]deciding[/]" if status["ready"] else "[yellow]waiting[/]"
    table.add_row("model", f"{status['model'] or '–'}   {state}")
    table.add_row(
        "events", f"{status['events_per_second']:,.0f}/s   lag {status['lag']:,}   {status['decided']:,} decided"
    )
    table.add_row("latency", latency)
    if alerts and alerts.decided:
        _add_alerts(table, alerts, budget)
    else:
        total = sum(status["classes"].values())
        for name, count in sorted(status["classes"].items(), key=lambda item: -item[1])[:_CLASSES]:
            table.add_row("", f"{name:>12}  {'█' * round(_BAR * count / total)} {count / total:.1%}")
    for title, counts in (("rejected", status["rejected"]), ("noted", status["odd"])):
        if counts:
            table.add_row(title, "   ".join(f"{name} {count:,}" for name, count in sorted(counts.items()) if count))
    return Group(table, "", _last_alerts(alerts)) if alerts and alerts.last else table


def line(status: Mapping[str, Any], alerts: Alerts | None = None) -> str:
    """Writes how a stream is on one line."""
    latency = "" if status["p50_ms"] is None else f", p50 {status['p50_ms']:.0f} ms, p99 {status['p99_ms']:.0f} ms"
    rejected = sum(status["rejected"].values())
    raised = f", {alerts.alerts:,} alerts" if alerts and alerts.decided else ""
    return (
        f"stream: {status['events_per_second']:,.0f} events/s{latency}, lag {status['lag']:,}, "
        f"{status['decided']:,} decided{raised}, {rejected:,} rejected by {status['model'] or 'no model yet'}"
    )


def summary(status: Mapping[str, Any], alerts: Alerts | None = None, budget: float | None = None) -> list[str]:
    """Writes how a stream was."""
    rejected = sum(status["rejected"].values())
    latency = ""
    if status["p50_ms_of_all"] is not None:
        latency = f"; latency p50 {status['p50_ms_of_all']:.0f} ms, p99 {status['p99_ms_of_all']:.0f} ms"
    found = [
        f"events   {status['decided'] + rejected:,}: {status['decided']:,} decided, {rejected:,} rejected{latency}"
    ]
    if not alerts or not alerts.decided:
        return found
    allowed = f" (budget: {budget:g})" if budget else ""
    rate = 1000 * alerts.alerts / alerts.decided
    found.append(f"alerts   {alerts.alerts:,}, {rate:.1f} per 1,000 events{allowed}")
    if alerts.truth:
        known, true = alerts.known(), alerts.known(_END)
        missed = f"{known.reported:,} positive events reported that raised none"
        found.append(f"known    {known.alerts:,} alerts looked at, {_share(known.right, known.alerts)} right; {missed}")
        positives = true.right + true.reported
        caught = f"{_share(true.right, positives)} of {positives:,} positive events raised one"
        found.append(f"in truth {_share(true.right, true.alerts)} of {true.alerts:,} alerts right; {caught}")
    return found


def reasons_of(decision: Decision, most: int = 3) -> str:
    """Writes what speaks for an alert, e.g. amount 912, hour 3."""
    speaks = [one for one in decision.reasons if one["contribution"] > 0][:most]
    return ", ".join(f"{one['feature']} {_short(one['value'])}" for one in speaks)


def moment(milliseconds: int) -> str:
    """Writes a time of events (UTC)."""
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M}"


_END = 2**62


def _add_alerts(table: Table, alerts: Alerts, budget: float | None) -> None:
    rate = alerts.recent_rate
    longest = max(2 * budget if budget else rate, 1.0)
    filled = min(round(_BAR * rate / longest), _BAR)
    colour = "red" if budget and rate > 1.5 * budget else "green"
    mark = round(_BAR * budget / longest) if budget else 0
    bar = "".join("┃" if budget and place == mark else "█" if place < filled else "·" for place in range(_BAR + 1))
    allowed = f" of {budget:g}" if budget else ""
    table.add_row("clock", moment(alerts.clock_ms))
    table.add_row("alerts", f"[{colour}]{bar}[/]  {rate:.1f}{allowed} per 1,000 (last {min(alerts.decided, RECENT):,})")
    table.add_row("", f"{alerts.alerts:,} since the start, {1000 * alerts.alerts / alerts.decided:.1f} per 1,000")
    if alerts.truth:
        known = alerts.known()
        right = f", {_share(known.right, known.alerts)} of them right" if known.alerts else ""
        table.add_row("known", f"{known.alerts:,} looked at{right}   {known.reported:,} reported without an alert")


def _last_alerts(alerts: Alerts) -> Table:
    names = list(alerts.last[0].fields)[:_FIELDS]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    table.add_column("right", justify="center", no_wrap=True)
    table.add_column("alert", no_wrap=True, min_width=11)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column(" · ".join(names), no_wrap=True, overflow="ellipsis", ratio=5)
    table.add_column("because of", no_wrap=True, overflow="ellipsis", ratio=6)
    marks = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[dim]?[/]"}
    for alert in alerts.last:
        fields = " · ".join(_short(alert.fields.get(name)) for name in names)
        mark = marks[alerts.verdict(alert)]
        table.add_row(mark, moment(alert.time_ms)[5:], f"{alert.score:.2f}", escape(fields), escape(reasons_of(alert)))
    return table


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.0%})" if whole else "none"


def _short(value: Any) -> str:
    """Writes a value, a number with three digits or its whole part."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return "–" if value is None else str(value)[:24]
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"
