"""From what was found to one verdict: confirmed by the windows before, and not again right after a retrain."""

import hashlib
from collections.abc import Sequence

from components.monitor_model.findings import Suspicion, rule_of
from components.monitoring_record import GRAVITY, Finding, MonitoringRecord, Verdict
from components.settings import Monitoring


def judge(found: Sequence[Suspicion], before: Sequence[MonitoringRecord], monitoring: Monitoring) -> list[Finding]:
    """Gives each finding the verdict that it means now, the gravest first.

    Args:
        found: in this window.
        before: records of the windows before, the earliest first.
        monitoring: rules, confirmations and cool-down.
    """
    cooling = _cooling(before, monitoring.cooldown_windows)
    judged = []
    for one in found:
        rule = rule_of(one.kind, monitoring)
        windows = 1 + _windows_before((one.kind, one.subject), before)
        detail, verdict = one.detail, _verdict(rule)
        if one.softened and verdict != "healthy":
            verdict = "watch"
        needed = {"retrain": monitoring.confirmations, "page": monitoring.page_confirmations}.get(verdict, 1)
        if windows < needed:
            detail += f"; {verdict} once it stands for {needed} windows (now: {windows})"
            verdict = "watch"
        elif verdict == "retrain" and cooling:
            detail += f"; the retrain of {cooling} is not older than {monitoring.cooldown_windows} windows"
            verdict = "watch"
        judged.append(
            Finding(
                kind=one.kind,
                subject=one.subject,
                value=one.value,
                limit=one.limit,
                detail=detail,
                rule=rule,
                verdict=verdict,
                windows=windows,
                examples=one.examples,
            )
        )
    return sorted(judged, key=lambda one: (-GRAVITY.index(one.verdict), -GRAVITY.index(_verdict(one.rule))))


def overall(findings: Sequence[Finding]) -> Verdict:
    """Gives the gravest verdict."""
    return findings[0].verdict if findings else "healthy"


def reason(findings: Sequence[Finding], rows: int, labelled: int, notes: Sequence[str]) -> str:
    """Says in one line what decides."""
    looked = f"{rows:,} rows, {labelled:,} with a label"
    if not findings:
        return f"nothing found in {looked}" + (f" ({notes[0]})" if notes else "")
    first = findings[0]
    more = sum(one.verdict == first.verdict for one in findings) - 1
    others = f" … and {more} more" if more else ""
    subject = f" of {first.subject}" if first.subject else ""
    example = f", e.g. {first.examples[0]}" if first.examples else ""
    return f"{first.kind.replace('_', ' ')}{subject}: {first.detail}{example}{others} ({looked})"


def evidence(model: str, window: str, findings: Sequence[Finding], verdict: Verdict) -> str:
    """Names what a verdict rests on: the same model, window and findings give the same name."""
    decisive = sorted(one.key for one in findings if one.verdict == verdict)
    return hashlib.sha256(f"{model}\n{window}\n{verdict}\n{decisive}".encode()).hexdigest()[:16]


def _verdict(rule: str) -> Verdict:
    return next((one for one in GRAVITY if one == rule), "healthy")


def _windows_before(key: tuple[str, str], before: Sequence[MonitoringRecord]) -> int:
    """Counts the windows in a row, up to the last one before this, in which the same was found."""
    count = 0
    for record in reversed(before):
        if key not in {finding.key for finding in record.findings}:
            break
        count += 1
    return count


def _cooling(before: Sequence[MonitoringRecord], windows: int) -> str:
    """Names the window of the last retrain, unless it is long ago; empty: there is none."""
    recent = before[-windows:] if windows else []
    return next((record.window for record in reversed(recent) if record.verdict == "retrain"), "")
