"""Spans: a source's files by the time or number in their names, and windows of them.

A source is a path or URI with wildcards (`*`, `?`, `[ab]`, `**`) and placeholders: `{SPAN}` for a number, or
`{YYYY}`, `{MM}`, `{DD}`, `{HH}` for a time. A window names the spans that a run reads. It is resolved once,
when a run is submitted, and pinned, so that a retry reads the same files.
"""

import calendar
import difflib
import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsspec.spec import AbstractFileSystem
from fsspec.utils import glob_translate

from components import storage
from components.errors import DataRejectedError, InputError, UnavailableError

if TYPE_CHECKING:
    from components.kafka_spans import OffsetRange

_DIGITS = {"YYYY": 4, "MM": 2, "DD": 2, "HH": 2}
_UNITS = ("year", "month", "day", "hour")
_FORMATS = {"year": "%Y", "month": "%Y-%m", "day": "%Y-%m-%d", "hour": "%Y-%m-%dT%H"}
_WINDOW_END = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d))?)?)?")
_NUMBER = "number"
_SHOWN = 5
KAFKA = "kafka://"
"""How a source begins that is a topic."""
_OFFSETS = "offsets "


@dataclass(frozen=True)
class SpanFile:
    """One file of a source."""

    uri: str
    """As `components.storage` takes it; relative where the source is."""
    span: str
    """E.g. 2013-09, 2013-09-01T05 or 0042; empty for a pattern without placeholders."""
    size: int
    """In bytes; of a topic's partition, in messages."""
    version: str
    """Changes whenever the content does: a generation, an entity tag, or the time of the last change."""


def resolve(source: str, window: str, before: datetime | None = None) -> list[SpanFile]:
    """Lists the files of a source that lie in a window, in the order of their spans, then of their names.

    Args:
        source: pattern, see `Data.source`.
        window: see `Data.window`.
        before: UTC; spans that begin at this time or later count as not there yet.

    Raises:
        InputError: the source or the window makes no sense, or the storage refuses.
        DataRejectedError: no file matches, or a span inside the window is missing.
        UnavailableError: the storage does not answer.
    """
    if source.startswith(KAFKA):
        return _of_topic(source, window)
    if window.startswith(_OFFSETS):
        raise InputError(f"data.window '{window}' names offsets, but data.source '{source}' is no kafka:// topic")
    pattern = _Pattern(source)
    files = pattern.files()
    if not files:
        raise DataRejectedError(f"no file matches '{source}'{_neighbours(source)}; check data.source")
    if before and pattern.unit not in (None, _NUMBER):
        files = [file for file in files if _start_of(file.span, pattern.unit) < before.replace(tzinfo=None)]
        if not files:
            raise DataRejectedError(f"'{source}' has no span that begins before {before:%Y-%m-%d %H:%M}; supply them")
    if window == "all":
        return files
    if pattern.unit is None:
        raise InputError(
            f"data.window is '{window}' but data.source '{source}' tells no span; put {{SPAN}}, or {{YYYY}}, {{MM}}, … "
            "where the spans are in the names, or set the window to all"
        )
    inside = _Window(window, pattern.unit).select({_ordinal(file.span, pattern.unit) for file in files})
    return [file for file in files if _ordinal(file.span, pattern.unit) in inside]


def overlapping(source: str, start: datetime, end: datetime, later: int = 0) -> tuple[list[SpanFile], list[str]]:
    """Lists the files of a source whose spans share time with an interval; all, where names tell no time.

    Args:
        source: as of `resolve`.
        start: UTC.
        end: UTC, outside.
        later: so many spans behind the interval count as inside.

    Returns:
        The files in the order of their spans, and the spans of the interval that are not there.

    Raises:
        InputError: the source makes no sense, or the storage refuses.
        UnavailableError: the storage does not answer.
    """
    pattern = _Pattern(source)
    files, unit = pattern.files(), pattern.unit
    if unit is None or unit == _NUMBER:
        return files, []
    last = end.replace(tzinfo=None) - timedelta(microseconds=1)
    wanted = range(_ordinal_of(start.replace(tzinfo=None), unit), _ordinal_of(last, unit) + 1)
    inside = range(wanted.start, wanted.stop + later)
    present = {_ordinal(file.span, unit) for file in files}
    absent = [_text(_moment_at(ordinal, unit), unit) for ordinal in wanted if ordinal not in present]
    return [file for file in files if _ordinal(file.span, unit) in inside], absent


def before(source: str, files: Sequence[SpanFile], length: timedelta) -> tuple[list[SpanFile], list[str]]:
    """Lists the files of a source that lie up to some time before a window, or between its parts.

    Args:
        source: as of `resolve`.
        files: those of the window, as `resolve` found them.
        length: how far back. Spans that are numbers tell no time: of these, all that are lower.

    Returns:
        The files in the order of their spans, none where names tell no span; and the spans that are not there, from
        the first one of the source on.

    Raises:
        InputError: the source makes no sense, or the storage refuses.
        DataRejectedError: the messages of a topic were deleted.
        UnavailableError: the storage does not answer.
    """
    if source.startswith(KAFKA):
        return _topic_before(source, files, length), []
    pattern = _Pattern(source)
    unit = pattern.unit
    if unit is None:
        return [], []
    inside = {_ordinal(file.span, unit) for file in files}
    there = [(_ordinal(file.span, unit), file) for file in pattern.files()]
    first = min(ordinal for ordinal, _ in there)
    if unit == _NUMBER:
        return [file for ordinal, file in there if ordinal < max(inside) and ordinal not in inside], []
    wanted: set[int] = set()
    for ordinal in inside:
        start = _moment_at(ordinal, unit)
        try:
            earliest = _ordinal_of(start - length, unit)
        except OverflowError:
            earliest = first
        wanted.update(range(max(earliest, first), ordinal))
    wanted -= inside
    absent = sorted(wanted - {ordinal for ordinal, _ in there})
    return (
        [file for ordinal, file in there if ordinal in wanted],
        [_text(_moment_at(ordinal, unit), unit) for ordinal in absent],
    )


def pinned_window(files: Sequence[SpanFile]) -> str:
    """Gives the window that holds exactly these files' spans, e.g. 2013-01..2013-09, or all where they have none.

    Spans with gaps between them become several ranges: 2013-01..2013-03,2013-05..2013-09.
    """
    if files and files[0].uri.startswith(KAFKA):
        return _OFFSETS + ",".join(file.version for file in files)
    spans = list(dict.fromkeys(file.span for file in files))
    if not spans or not spans[0]:
        return "all"
    unit = _unit_of(spans[0])
    ranges: list[list[str]] = []
    for span in spans:
        if ranges and _ordinal(span, unit) == _ordinal(ranges[-1][1], unit) + 1:
            ranges[-1][1] = span
        else:
            ranges.append([span, span])
    return ",".join(f"{first}..{last}" for first, last in ranges)


def pin_data(data: Mapping[str, Any], files: Sequence[SpanFile]) -> dict[str, Any]:
    """Gives section `data` with the window that these files make, and the split's `eval_last` as a time.

    Args:
        data: section `data` of pipeline.yaml.
        files: as `resolve` found them, at least one.

    Raises:
        InputError: the split counts from the end of the window, and the names of the files tell no time, or there is
            no such time.
    """
    split = dict(data.get("split", {}))
    if last := split.pop("eval_last", None):
        count, unit = last.split()
        cut = _earlier(_end_of(files, data["source"]), int(count), unit.rstrip("s"))
        if cut == datetime.min:
            raise InputError(f"data.split.eval_last is '{last}', which is before the year 1; make it shorter")
        split["eval_from"] = cut.isoformat()
    return {**data, "window": pinned_window(files), **({"split": split} if split else {})}


def _end_of(files: Sequence[SpanFile], source: str) -> datetime:
    """Gives the time at which the last span ends (UTC)."""
    unit = _unit_of(files[-1].span) if files[-1].span else _NUMBER
    if unit == _NUMBER:
        raise InputError(
            f"data.split.eval_last counts from the end of the window, and data.source '{source}' tells no time; put "
            "{YYYY}, {MM}, … where it is in the names, or give data.split.eval_from"
        )
    return _earlier(_start_of(files[-1].span, unit), -1, unit)


def _start_of(span: str, unit: str | None) -> datetime:
    return _moment_at(_ordinal(span, unit), unit or _NUMBER)


def resolve_from_afar(source: str, window: str) -> list[SpanFile]:
    """Lists what a window holds, as `resolve`, from where a broker may be out of reach that stages do reach.

    Offsets are then taken as the window names them; that they are there is seen when they are read.

    Raises:
        InputError, DataRejectedError, UnavailableError: as of `resolve`.
    """
    try:
        return resolve(source, window)
    except UnavailableError:
        if not (source.startswith(KAFKA) and window.startswith(_OFFSETS)):
            raise
        from components import kafka_spans

        return _as_files(source, kafka_spans.ranges_of(window))


def listing_digest(files: Iterable[SpanFile]) -> str:
    """Gives a SHA-256, in hex, that changes with the names, sizes and versions of the files; reads no content."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.uri}\0{file.span}\0{file.size}\0{file.version}\n".encode())
    return digest.hexdigest()


def _of_topic(source: str, window: str) -> list[SpanFile]:
    """Gives a topic's partitions as if each were a file; its version is its offsets, its size the messages."""
    from components import kafka_spans  # the client is not in every image

    return _as_files(source, kafka_spans.resolve(source, window))


def _as_files(source: str, ranges: "Iterable[OffsetRange]") -> list[SpanFile]:
    return [SpanFile(f"{source}?{one}", "", one.end - one.start, str(one)) for one in ranges]


def _topic_before(source: str, files: Sequence[SpanFile], length: timedelta) -> list[SpanFile]:
    from components import kafka_spans

    ranges = [one for file in files for one in kafka_spans.ranges_of(file.version)]
    return _as_files(source, kafka_spans.before(source, ranges, length))


class _Pattern:
    """A source with its placeholders understood."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.placeholders = [_placeholder(name, source) for name in re.findall(r"\{([^{}]*)\}", source)]
        if re.search(r"[{}]", re.sub(r"\{[^{}]*\}", "", source)):
            raise InputError(f"data.source '{source}' has a brace that is never closed or opened")
        self.unit = self._unit()

    def _unit(self) -> str | None:
        """Tells what one span is: a number, a year, … an hour; None without placeholders."""
        names = list(dict.fromkeys(self.placeholders))
        if not names:
            return None
        if names == ["SPAN"]:
            return _NUMBER
        wanted = list(_DIGITS)[: len(names)]
        if sorted(names) != sorted(wanted):
            raise InputError(
                f"data.source '{self.source}' has the placeholders {_braced(names)}; use {{SPAN}} alone, or a time "
                f"without holes: {_braced(wanted)}"
            )
        return _UNITS[len(names) - 1]

    def files(self) -> list[SpanFile]:
        fs, path = storage.filesystem(self.source)
        with storage.reaching(self.source):
            found = fs.glob(self._glob(path), detail=True)
        expression = self._expression(path)
        files = []
        for name, info in found.items():
            match = expression.match(name)
            if match and info["type"] == "file":
                uri = self._uri(fs, name)
                files.append(SpanFile(uri, self._span(match, uri), info["size"], _version(info, name)))
        return sorted(files, key=lambda file: (_ordinal(file.span, self.unit) if self.unit else 0, file.uri))

    def _glob(self, path: str) -> str:
        for name in {"SPAN", *_DIGITS}:
            any_value = "[0-9]" * _DIGITS[name] if name in _DIGITS else "*"
            path = re.sub(rf"\{{{name}\}}", any_value, path, flags=re.IGNORECASE)
        return path

    def _expression(self, path: str) -> re.Pattern[str]:
        # Glob translation must not see the braces: private characters stand in for the placeholders.
        for index, name in enumerate(("SPAN", *_DIGITS)):
            path = re.sub(rf"\{{{name}\}}", chr(0xE000 + index), path, flags=re.IGNORECASE)
        expression = glob_translate(path)
        for index, name in enumerate(("SPAN", *_DIGITS)):
            digits = f"{{{_DIGITS[name]}}}" if name in _DIGITS else "+"
            first, more = f"(?P<{name}>[0-9]{digits})", f"(?P={name})"
            expression = expression.replace(chr(0xE000 + index), first, 1).replace(chr(0xE000 + index), more)
        return re.compile(expression)

    def _uri(self, fs: AbstractFileSystem, name: str) -> str:
        if storage.is_remote(self.source):
            return str(fs.unstrip_protocol(name))
        return name if self.source.startswith(("/", "file://")) else os.path.relpath(name)

    def _span(self, match: re.Match[str], uri: str) -> str:
        if self.unit is None:
            return ""
        if self.unit == _NUMBER:
            return match["SPAN"]
        parts = [int(match[name]) for name in dict.fromkeys(sorted(self.placeholders, key=list(_DIGITS).index))]
        try:
            return _text(_moment(*parts), self.unit)
        except ValueError as error:
            raise DataRejectedError(f"'{uri}': its name tells no valid time ({error}); rename or remove it") from error


class _Window:
    """A window over spans of one unit: what may be selected from those that are there."""

    def __init__(self, text: str, unit: str) -> None:
        self.text = text
        self.unit = unit

    def select(self, present: set[int]) -> set[int]:
        """Gives the ordinals of the spans inside.

        Raises:
            InputError: the window does not fit the unit.
            DataRejectedError: a span inside is missing.
        """
        last = re.fullmatch(r"(?:the )?last (\d+) (span|hour|day|month|year)s?", self.text)
        if last is None:
            ranges = [self._range(part) for part in self.text.split(",")]
        elif last[2] == "span":
            return set(sorted(present)[-int(last[1]) :])
        else:
            ranges = [self._last(int(last[1]), last[2], max(present))]
        for wanted in ranges:
            self._require(wanted, present)
        return {ordinal for wanted in ranges for ordinal in wanted}

    def _last(self, count: int, unit: str, newest: int) -> range:
        if self.unit == _NUMBER:
            raise InputError(
                f"data.window '{self.text}' counts {unit}s but the spans are numbers; say last {count} spans"
            )
        if _UNITS.index(unit) > _UNITS.index(self.unit):
            raise InputError(
                f"data.window '{self.text}' counts {unit}s but a span is a {self.unit}; count {self.unit}s"
            )
        before = _earlier(_moment_at(newest, self.unit), count, unit)
        return range(_ordinal_of(before, self.unit) + 1, newest + 1)

    def _range(self, text: str) -> range:
        first, _, last = text.partition("..")
        wanted = range(self._end(first).start, self._end(last or first).stop)
        if not wanted:
            raise InputError(f"data.window '{text}' ends before it begins; write the earlier span first")
        return wanted

    def _end(self, text: str) -> range:
        """Gives the spans that one end of a range covers: the month 2013-09 is 30 days."""
        if self.unit == _NUMBER:
            if not text.isdecimal():
                raise InputError(f"data.window '{self.text}': the spans are numbers, '{text}' is none")
            return range(int(text), int(text) + 1)
        match = _WINDOW_END.fullmatch(text)
        if match is None:
            raise InputError(
                f"data.window '{self.text}': '{text}' is no time; write it like 2013, 2013-09 or 2013-09-01T05"
            )
        parts = [int(part) for part in match.groups() if part]
        unit = _UNITS[len(parts) - 1]
        if _UNITS.index(unit) > _UNITS.index(self.unit):
            raise InputError(f"data.window '{self.text}': '{text}' is a {unit} but a span is a {self.unit}")
        try:
            start = _moment(*parts)
        except ValueError as error:
            raise InputError(f"data.window '{self.text}': '{text}' is no time ({error})") from error
        return range(_ordinal_of(start, self.unit), _ordinal_of(_earlier(start, -1, unit), self.unit))

    def _require(self, wanted: range, present: set[int]) -> None:
        count = len(wanted) - sum(ordinal in wanted for ordinal in present)
        if not count:
            return
        missing = islice((ordinal for ordinal in wanted if ordinal not in present), _SHOWN)
        names = ", ".join(self._name(ordinal) for ordinal in missing) + (", …" if count > _SHOWN else "")
        there = f"{self._name(min(present))} to {self._name(max(present))}"
        raise DataRejectedError(
            f"{count} of {len(wanted)} spans in window '{self.text}' are missing: {names} (present: {there}); "
            "supply them or change data.window"
        )

    def _name(self, ordinal: int) -> str:
        return str(ordinal) if self.unit == _NUMBER else _text(_moment_at(ordinal, self.unit), self.unit)


def _placeholder(name: str, source: str) -> str:
    known = ["SPAN", *_DIGITS]
    if name.upper() in known:
        return name.upper()
    close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.3)
    meant = f"did you mean {{{close[0]}}}?" if close else f"use {_braced(known)}"
    raise InputError(f"data.source '{source}': unknown placeholder '{{{name}}}'; {meant}")


def _braced(names: Iterable[str]) -> str:
    return " ".join(f"{{{name}}}" for name in names)


def _neighbours(source: str) -> str:
    """Tells what a local source's folder holds instead."""
    if storage.is_remote(source):
        return ""
    path = Path(source.removeprefix("file://"))
    if path.is_dir():
        return f": it is a folder; add a pattern such as '{path / '*.parquet'}'"
    if not path.parent.is_dir():
        return "" if re.search(r"[*?{\[]", str(path.parent)) else f": there is no folder '{path.parent}'"
    names = sorted(entry.name for entry in path.parent.iterdir())
    shown = difflib.get_close_matches(path.name, names, n=3, cutoff=0.4) or names[:3]
    return f": '{path.parent}' holds {', '.join(shown)}{', …' if len(names) > len(shown) else ''}" if names else ""


def _version(info: dict[str, object], name: str) -> str:
    for key in ("generation", "ETag", "etag"):
        if info.get(key):
            return str(info[key])
    return str(Path(name).stat().st_mtime_ns)


def _unit_of(span: str) -> str:
    match = _WINDOW_END.fullmatch(span)
    return _UNITS[len([part for part in match.groups() if part]) - 1] if match else _NUMBER


def _ordinal(span: str, unit: str | None) -> int:
    if unit == _NUMBER or unit is None:
        return int(span or 0)
    return _ordinal_of(datetime.strptime(span, _FORMATS[unit]), unit)


def _ordinal_of(moment: datetime, unit: str) -> int:
    match unit:
        case "year":
            return moment.year
        case "month":
            return moment.year * 12 + moment.month - 1
        case "day":
            return moment.toordinal()
    return moment.toordinal() * 24 + moment.hour


def _moment_at(ordinal: int, unit: str) -> datetime:
    match unit:
        case "year":
            return datetime(ordinal, 1, 1)
        case "month":
            return datetime(ordinal // 12, ordinal % 12 + 1, 1)
        case "day":
            return datetime.fromordinal(ordinal)
    return datetime.fromordinal(ordinal // 24) + timedelta(hours=ordinal % 24)


def _moment(year: int, month: int = 1, day: int = 1, hour: int = 0) -> datetime:
    return datetime(year, month, day, hour)


def _text(moment: datetime, unit: str) -> str:
    # strftime does not pad years before 1000.
    return moment.isoformat()[: {"year": 4, "month": 7, "day": 10, "hour": 13}[unit]]


def _earlier(moment: datetime, count: int, unit: str) -> datetime:
    """Goes back by calendar units (forward for a negative count), as far as dates go."""
    try:
        if unit in ("hour", "day"):
            return moment - timedelta(**{f"{unit}s": count})
        months = _ordinal_of(moment, "month") - count * (12 if unit == "year" else 1)
        first = _moment_at(months, "month")
        return moment.replace(
            year=first.year, month=first.month, day=min(moment.day, calendar.monthrange(first.year, first.month)[1])
        )
    except (OverflowError, ValueError):
        return datetime.min if count > 0 else datetime.max
