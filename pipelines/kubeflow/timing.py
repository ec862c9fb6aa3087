"""When a schedule starts runs, as users write it and as KFP takes it."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from components.errors import InputError
from pipelines.kubeflow.api import Object

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_FIELDS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "second": (0, 59, ()),
    "minute": (0, 59, ()),
    "hour": (0, 23, ()),
    "day of the month": (1, 31, ()),
    "month": (1, 12, _MONTHS),
    "day of the week": (0, 6, _DAYS),
}
_DESCRIPTORS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True)
class Timing:
    """When runs start: by cron or every so often."""

    cron: str = ""
    seconds: int = 0
    start: datetime | None = None
    end: datetime | None = None

    @property
    def trigger(self) -> Object:
        """As KFP takes it."""
        ends = {
            name: moment.isoformat().replace("+00:00", "Z")
            for name, moment in (("start_time", self.start), ("end_time", self.end))
            if moment
        }
        if self.cron:
            return {"cron_schedule": {"cron": self.cron, **ends}}
        return {"periodic_schedule": {"interval_second": str(self.seconds), **ends}}


def parse_timing(cron: str, every: str, start: str, end: str) -> Timing:
    """Reads the options.

    Raises:
        InputError: they make no sense.
    """
    if bool(cron) == bool(every):
        raise InputError("when? give --cron '0 3 * * 1' or --every 6h, one of them")
    begins, ends = _moment("--start", start), _moment("--end", end)
    if begins and ends and begins >= ends:
        raise InputError(f"--end {end} is not after --start {start}")
    return Timing(cron_of(cron) if cron else "", _seconds(every) if every else 0, begins, ends)


def cron_of(text: str) -> str:
    """Makes six fields of the usual five: KFP's first is seconds.

    Raises:
        InputError: it is no cron expression that KFP takes.
    """
    text = " ".join(text.split())
    if text.startswith("@"):
        if text in _DESCRIPTORS:
            return text
        raise InputError(f"--cron '{text}': not one of {', '.join(_DESCRIPTORS)}")
    fields = text.split(" ")
    if len(fields) not in (5, 6):
        raise InputError(
            f"--cron '{text}' has {len(fields)} fields; give 5 (minute hour day month weekday), or 6 with seconds first"
        )
    fields = ["0", *fields] if len(fields) == 5 else fields
    for (name, (low, high, names)), field in zip(_FIELDS.items(), fields, strict=True):
        for part in field.split(","):
            if not _is_part(part.upper(), low, high, names):
                hint = "; Sunday is 0" if name == "day of the week" and "7" in part else ""
                raise InputError(f"--cron '{text}': '{field}' is no {name} ({low} to {high}, *, ranges, steps){hint}")
    return " ".join(fields)


def described(trigger: Object) -> str:
    """Says when a trigger of KFP fires."""
    if schedule := trigger.get("cron_schedule"):
        fields = str(schedule.get("cron", "")).split()
        text = f"cron {' '.join(fields[1:] if len(fields) == 6 and fields[0] == '0' else fields)}"
    elif schedule := trigger.get("periodic_schedule"):
        seconds = int(schedule.get("interval_second", 0))
        unit = next((u for u in ("w", "d", "h", "m") if seconds % _SECONDS[u] == 0), "")
        text = f"every {seconds // _SECONDS[unit]}{unit}" if unit else f"every {seconds} s"
    else:
        return "never"
    begins, ends = schedule.get("start_time"), schedule.get("end_time")
    return text + (f" from {begins}" if begins else "") + (f" until {ends}" if ends else "")


def _is_part(part: str, low: int, high: int, names: tuple[str, ...]) -> bool:
    base, slash, step = part.partition("/")
    if slash and not (step.isdecimal() and int(step) > 0):
        return False
    if base in ("*", "?"):
        return True
    values = [names.index(end) + low if end in names else end for end in base.split("-")]
    numbers = [int(value) if isinstance(value, int) or value.isdecimal() else -1 for value in values]
    return len(numbers) in (1, 2) and all(low <= n <= high for n in numbers) and numbers == sorted(numbers)


def _seconds(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([mhdw])", text.strip())
    if match is None or int(match[1]) == 0:
        raise InputError(f"--every '{text}': not like 30m, 6h, 1d or 2w")
    return int(match[1]) * _SECONDS[match[2]]


def _moment(option: str, text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{option} '{text}': not a time such as 2026-01-31 or 2026-01-31T06:00") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
