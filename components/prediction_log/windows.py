"""Windows of time that are judged at once: an hour, a day, a week, a month, or from one time to another."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from components.errors import InputError
from components.settings import Period

_FORMATS = {4: "%Y", 7: "%Y-%m", 10: "%Y-%m-%d", 13: "%Y-%m-%dT%H", 16: "%Y-%m-%dT%H:%M", 19: "%Y-%m-%dT%H:%M:%S"}
_END = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d)?)?)?)?)?")
_EPOCH = datetime(1970, 1, 5, tzinfo=UTC)
"""A Monday, where weeks begin."""


@dataclass(frozen=True)
class Window:
    """From a time on, up to another one, which is outside."""

    name: str
    """As records are named: 2013-10, 2013-10-05, 2013-10-05T07, or 2013-10-07..2013-10-13."""
    start: datetime
    """UTC."""
    end: datetime

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.end - self.start).total_seconds()

    @property
    def file(self) -> str:
        """Its name as that of a file."""
        return self.name.replace(":", "").replace("..", "_")


def parse_window(text: str) -> Window:
    """Reads a window: a year, month, day or hour, or two of them with `..` between, both included.

    Raises:
        InputError: it is none.
    """
    first, dots, last = text.strip().removesuffix("Z").partition("..")
    start, end = _ends(first, text)[0], _ends(last or first, text)[1]
    if start >= end:
        raise InputError(f"window '{text}' ends before it begins; write the earlier time first")
    return Window(f"{first}..{last}" if dots and last != first else first, start, end)


def scheduled_window(at: datetime, period: Period, delay: int = 0) -> Window:
    """Gives the last whole period before a time.

    A run that starts late, or catches up, is told the time it was scheduled for, and so judges its own window.

    Args:
        at: with a time zone.
        period: hour, day, week (from Monday) or month, UTC.
        delay: so many periods are passed over, whose labels are still to come.
    """
    window = _last_whole(at, period)
    for _ in range(delay):
        window = _last_whole(window.start, period)
    return window


def _last_whole(at: datetime, period: Period) -> Window:
    at = at.astimezone(UTC)
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    match period:
        case "hour":
            return parse_window(f"{at - timedelta(hours=1):%Y-%m-%dT%H}")
        case "day":
            return parse_window(f"{day - timedelta(days=1):%Y-%m-%d}")
        case "week":
            monday = day - timedelta(days=(day - _EPOCH).days % 7)
            return parse_window(f"{monday - timedelta(days=7):%Y-%m-%d}..{monday - timedelta(days=1):%Y-%m-%d}")
    return parse_window(f"{day.replace(day=1) - timedelta(days=1):%Y-%m}")


def _ends(text: str, whole: str) -> tuple[datetime, datetime]:
    """Gives where a year, month, … begins, and where it ends."""
    if not _END.fullmatch(text):
        raise InputError(
            f"window '{whole}': '{text}' is no time; write it like 2013-10, 2013-10-05, 2013-10-05T07, or two with .. "
            "between them"
        )
    try:
        start = datetime.strptime(text, _FORMATS[len(text)]).replace(tzinfo=UTC)
        match len(text):
            case 4:
                return start, start.replace(year=start.year + 1)
            case 7:
                return start, (start + timedelta(days=31)).replace(day=1)
            case size:
                units = {10: "days", 13: "hours", 16: "minutes", 19: "seconds"}
                return start, start + timedelta(**{units[size]: 1})
    except (ValueError, OverflowError) as error:
        raise InputError(f"window '{whole}': '{text}' is no time ({error})") from error
