"""What receivers are told of a verdict."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from components.monitoring_record import MonitoringRecord
from components.settings import Event

_SHOWN = 5


@dataclass(frozen=True)
class Message:
    """One message, in words and in parts."""

    event: Event
    project: str
    window: str
    start: datetime
    end: datetime
    judged: datetime
    reason: str
    evidence: str
    model: str
    version: str
    findings: list[dict[str, Any]]
    run: str
    training_window: str

    @classmethod
    def of(cls, record: MonitoringRecord, event: str, run: str = "", training_window: str = "") -> "Message":
        """Makes a message of a record.

        Args:
            record: of the judged window.
            event: verdict, or `started`.
            run: that was started.
            training_window: that it trains on.
        """
        return cls(
            event=cast(Event, event),
            project=record.project,
            window=record.window,
            start=record.start,
            end=record.end,
            judged=record.created,
            reason=record.reason,
            evidence=record.evidence,
            model=record.model,
            version=record.version,
            findings=[
                {"kind": one.kind, "subject": one.subject, "detail": one.detail, "verdict": one.verdict}
                for one in record.findings
            ],
            run=run,
            training_window=training_window,
        )

    @property
    def name(self) -> str:
        """The same for the same event on the same evidence."""
        return f"{self.evidence}-{self.event}"

    @property
    def title(self) -> str:
        """One line."""
        if self.event == "started":
            return f"{self.project}: training on {self.training_window} was started"
        return f"{self.project}: {self.event.upper()} for {self.window}"

    @property
    def lines(self) -> list[str]:
        """What follows the title."""
        found = [
            f"{one['verdict']}: {one['kind'].replace('_', ' ')}{' of ' + one['subject'] if one['subject'] else ''}: "
            f"{one['detail']}"
            for one in self.findings[:_SHOWN]
        ]
        more = len(self.findings) - _SHOWN
        return [
            self.reason,
            *(found if len(found) > 1 else []),
            *([f"… and {more} more findings"] if more > 0 else []),
            f"model {self.version or 'unknown'}, evidence {self.evidence}",
            *([f"run {self.run}"] if self.run else []),
        ]
