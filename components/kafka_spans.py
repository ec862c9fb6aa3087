"""Windows of a Kafka topic: which messages a run reads, told by offsets, so that a later run reads the same.

A source is kafka://SERVER[,SERVER…]/TOPIC. A window is the times at which messages were written (UTC), or offsets:
"offsets 0:100..200,1:50..80", by partition, the end excluded. Times are resolved to offsets once, when a run is
submitted. A topic that is compacted, or whose messages are deleted meanwhile, does not hold the same for ever.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from components.errors import DataRejectedError, InputError, UnavailableError
from components.kafka_clients import partitions, properties, reaching, told_as

_SOURCE = re.compile(r"kafka://(?P<servers>[^/?#\s]+)/(?P<topic>[A-Za-z0-9._-]{1,249})")
_LAST = re.compile(r"(?:the )?last (\d+) (span|hour|day|month|year)s?")
_FORMATS = {4: ("year", "%Y"), 7: ("month", "%Y-%m"), 10: ("day", "%Y-%m-%d"), 13: ("hour", "%Y-%m-%dT%H")}
_SECONDS = 30.0
_SILENCE_SECONDS = 60.0
_MESSAGES = 10_000
_SHOWN = 5


@dataclass(frozen=True)
class OffsetRange:
    """Messages of one partition."""

    partition: int
    start: int
    end: int
    """Excluded."""

    def __str__(self) -> str:
        return f"{self.partition}:{self.start}..{self.end}"


@dataclass(frozen=True)
class Message:
    """What a training row is made of."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int


def split_source(source: str) -> tuple[str, str]:
    """Gives bootstrap servers and topic of a source.

    Raises:
        InputError: it names none.
    """
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise InputError(f"data.source '{source}' names no topic; write kafka://SERVER:9092/TOPIC")
    return match["servers"], match["topic"]


def ranges_of(window: str) -> list[OffsetRange]:
    """Reads a window of offsets.

    Raises:
        InputError: a range ends before it begins, or a partition is named twice.
    """
    found = []
    for part in window.removeprefix("offsets ").split(","):
        partition, _, offsets = part.partition(":")
        start, _, end = offsets.partition("..")
        found.append(OffsetRange(int(partition), int(start), int(end)))
    for one in found:
        if one.end <= one.start:
            raise InputError(f"data.window: '{one}' holds no message; write PARTITION:FIRST..END, the end excluded")
        if sum(other.partition == one.partition for other in found) > 1:
            raise InputError(f"data.window: partition {one.partition} is named twice; give one range")
    return found


def window_of(ranges: Sequence[OffsetRange]) -> str:
    """Writes a window of offsets."""
    return "offsets " + ",".join(map(str, ranges))


def resolve(source: str, window: str) -> list[OffsetRange]:
    """Finds the messages in a window, partition by partition; partitions without any are left out.

    Raises:
        InputError: source or window make no sense, or the broker refuses.
        DataRejectedError: there are none, or some were deleted.
        UnavailableError: no broker answers.
    """
    servers, topic = split_source(source)
    numbers = partitions(servers, topic)
    with _consumer(servers) as consumer:
        held = _held(consumer, topic, numbers)
        if window.startswith("offsets "):
            found = ranges_of(window)
            _require_held(source, found, held)
            return found
        if window == "all":
            found = [OffsetRange(number, start, end) for number, (start, end) in held.items()]
        else:
            moments = _times(source, window, _newest(servers, topic, numbers))
            found = _between(consumer, topic, held, *moments)
            _require_old_enough(consumer, source, window, topic, found, held, moments[0])
    found = [one for one in found if one.end > one.start]
    if not found:
        raise DataRejectedError(f"'{source}' holds no message in window '{window}'; change data.window")
    return found


def before(source: str, ranges: Sequence[OffsetRange], length: timedelta) -> list[OffsetRange]:
    """Finds the messages that were written up to some time before the first of some ranges.

    Args:
        source: as of `resolve`.
        ranges: as `resolve` found them.
        length: how far back.

    Raises:
        InputError: the broker refuses.
        UnavailableError: no broker answers.
    """
    servers, topic = split_source(source)
    numbers = partitions(servers, topic)
    with _consumer(servers) as consumer:
        held = _held(consumer, topic, numbers)
        written = [_written(consumer, topic, one) for one in ranges]
        first = datetime.fromtimestamp(min(written) / 1000, UTC)
        starts = {one.partition: one.start for one in ranges}
        # Of a partition without messages in the window, those before it.
        found = _between(consumer, topic, held, first - length, first)
    found = [OffsetRange(one.partition, one.start, starts.get(one.partition, one.end)) for one in found]
    return [one for one in found if one.end > one.start]


def _written(consumer: Consumer, topic: str, of: OffsetRange) -> int:
    """Gives when the first message of a range was written, in milliseconds since 1970."""
    consumer.assign([TopicPartition(topic, of.partition, of.start)])
    message = consumer.poll(_SECONDS)
    if message is None or message.error():
        says = message.error().str() if message is not None else "no message came"
        raise UnavailableError(f"topic '{topic}' gives nothing from offset {of.partition}:{of.start} on: {says}")
    return int(message.timestamp()[1])


def periods(source: str, first: str, last: str, before: int = 0) -> list[str]:
    """Lists the hours, days, months or years from one to another, each of which must hold messages.

    Args:
        source: the topic.
        first: e.g. 2013-01, a month.
        last: as `first`, of the same length.
        before: so many more periods, before the first.

    Raises:
        InputError: these are no times, or the broker refuses.
        DataRejectedError: a period holds no message, or messages of the first were deleted.
        UnavailableError: no broker answers.
    """
    (start, _), (newest, _) = _period(first), _period(last)
    if len(first) != len(last) or newest < start:
        raise InputError(f"from '{first}' to '{last}': write both as hours, days, months or years, the earlier first")
    unit, form = _FORMATS[len(first)]
    moments = [_moved(start, unit, -before)]
    while moments[-1] <= newest:
        moments.append(_moved(moments[-1], unit, 1))
    names = [moment.strftime(form) for moment in moments[:-1]]
    servers, topic = split_source(source)
    numbers = partitions(servers, topic)
    with _consumer(servers) as consumer:
        held = _held(consumer, topic, numbers)
        places = [_offsets(consumer, topic, held, moment) for moment in moments]
        empty = [name for name, lower, upper in zip(names, places, places[1:], strict=False) if lower == upper]
        if empty:
            shown = ", ".join(empty[:_SHOWN]) + (", …" if len(empty) > _SHOWN else "")
            raise DataRejectedError(
                f"'{source}' holds no message in {len(empty)} of {len(names)} {unit}s: {shown}; supply them or leave "
                "them out"
            )
        found = [OffsetRange(number, places[0][number], places[1][number]) for number in numbers]
        _require_old_enough(consumer, source, names[0], topic, found, held, moments[0])
    return names


def read(source: str, of: OffsetRange) -> Iterator[list[Message]]:
    """Reads messages that are committed, some at a time, in their order.

    Raises:
        UnavailableError: the broker stops answering.
        InputError: it refuses.
    """
    servers, topic = split_source(source)
    with _consumer(servers) as consumer:
        place = TopicPartition(topic, of.partition, of.start)
        consumer.assign([place])
        position, silent = of.start, 0.0
        while position < of.end:
            found = consumer.consume(_MESSAGES, 1.0)
            errors = [message.error() for message in found if message.error()]
            if errors:
                raise told_as(errors[0], servers)
            # The last offsets may be marks of transactions, which are no messages.
            position = max([position, consumer.position([place])[0].offset, *(m.offset() + 1 for m in found)])
            silent = 0.0 if found else silent + 1.0
            if silent >= _SILENCE_SECONDS:
                raise UnavailableError(f"'{source}' gives nothing from offset {of.partition}:{position} on; try again")
            chosen = [
                Message(m.partition(), m.offset(), m.key(), m.value(), m.timestamp()[1])
                for m in found
                if m.offset() < of.end
            ]
            if chosen:
                yield chosen


@contextmanager
def _consumer(servers: str) -> Iterator[Consumer]:
    told = {
        "group.id": "lockgate-ingest",  # of a consumer that commits nothing, and belongs to none
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
        "error_cb": lambda error: None,
    }
    with reaching(servers):
        consumer = Consumer(properties(servers) | told)
        try:
            yield consumer
        finally:
            consumer.close()


def _newest(servers: str, topic: str, numbers: Sequence[int]) -> datetime | None:
    """Gives when the newest message was written; None: there is none."""
    admin = AdminClient(properties(servers))
    asked = admin.list_offsets({TopicPartition(topic, number): OffsetSpec.max_timestamp() for number in numbers})
    times = [future.result(_SECONDS).timestamp for future in asked.values()]
    newest = max((time for time in times if time is not None and time >= 0), default=None)
    return None if newest is None else datetime.fromtimestamp(newest / 1000, UTC)


def _held(consumer: Consumer, topic: str, numbers: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Gives by partition the first offset that is there, and the one behind the last."""
    return {
        number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_SECONDS) for number in numbers
    }


def _offsets(consumer: Consumer, topic: str, held: dict[int, tuple[int, int]], moment: datetime) -> dict[int, int]:
    """Gives by partition the first offset that was written at a moment or later."""
    milliseconds = int(moment.timestamp() * 1000)
    asked = [TopicPartition(topic, number, milliseconds) for number in held]
    # A negative one: no message is that young.
    return {
        place.partition: place.offset if place.offset >= 0 else held[place.partition][1]
        for place in consumer.offsets_for_times(asked, timeout=_SECONDS)
    }


def _between(
    consumer: Consumer, topic: str, held: dict[int, tuple[int, int]], start: datetime, end: datetime
) -> list[OffsetRange]:
    starts, ends = (_offsets(consumer, topic, held, moment) for moment in (start, end))
    return [OffsetRange(number, starts[number], ends[number]) for number in held]


def _require_held(source: str, wanted: Sequence[OffsetRange], held: dict[int, tuple[int, int]]) -> None:
    for one in wanted:
        if one.partition not in held:
            raise InputError(f"data.window: '{source}' has no partition {one.partition} (it has 0 to {len(held) - 1})")
        start, end = held[one.partition]
        if one.start < start:
            raise DataRejectedError(
                f"'{source}': offsets {one} begin before {start}, the first that is still there; lengthen the topic's "
                "retention, or change data.window"
            )
        if one.end > end:
            raise DataRejectedError(
                f"'{source}': offsets {one} end after {end}, the last there is; change data.window, or wait"
            )


def _require_old_enough(
    consumer: Consumer,
    source: str,
    window: str,
    topic: str,
    found: Sequence[OffsetRange],
    held: dict[int, tuple[int, int]],
    start: datetime,
) -> None:
    """Refuses a window of whose beginning messages were deleted."""
    for one in found:
        first = held[one.partition][0]
        if first == 0 or one.start > first or one.start == one.end:
            continue
        consumer.assign([TopicPartition(topic, one.partition, first)])
        message = consumer.poll(_SECONDS)
        written = message.timestamp()[1] if message is not None and not message.error() else -1
        if written > start.timestamp() * 1000:
            since = datetime.fromtimestamp(written / 1000, UTC)
            raise DataRejectedError(
                f"'{source}': window '{window}' begins before {since:%Y-%m-%dT%H:%M}, the first message of partition "
                f"{one.partition} that is still there; lengthen the topic's retention, or change data.window"
            )


def _times(source: str, window: str, newest: datetime | None) -> tuple[datetime, datetime]:
    """Gives the first moment of a window, and the first after it."""
    last = _LAST.fullmatch(window)
    if last is None:
        if "," in window:
            raise InputError(f"data.window '{window}' has several ranges; of a topic, name one")
        first, _, until = window.partition("..")
        start, end = _period(first)[0], _period(until or first)[1]
        if end <= start:
            raise InputError(f"data.window '{window}' ends before it begins; write the earlier time first")
        return start, end
    if last[2] == "span":
        raise InputError(f"data.window '{window}': a topic has no spans; count hours, days, months or years")
    if newest is None:
        raise DataRejectedError(f"'{source}' holds no message; supply some")
    unit = last[2]
    _, form = next(found for found in _FORMATS.values() if found[0] == unit)
    floor, end = _period(newest.strftime(form))
    return _moved(floor, unit, 1 - int(last[1])), end


def _period(text: str) -> tuple[datetime, datetime]:
    """Gives when the year, month, day or hour that a text names begins and ends."""
    unit, form = _FORMATS.get(len(text), ("", ""))
    try:
        start = datetime.strptime(text, form).replace(tzinfo=UTC)
    except ValueError:
        unit = ""
    if not unit:
        raise InputError(f"data.window: '{text}' is no time; write it like 2013, 2013-09, 2013-09-01 or 2013-09-01T05")
    return start, _moved(start, unit, 1)


def _moved(moment: datetime, unit: str, by: int) -> datetime:
    if unit in ("hour", "day"):
        return moment + timedelta(**{f"{unit}s": by})
    months = moment.year * 12 + moment.month - 1 + by * (12 if unit == "year" else 1)
    return moment.replace(year=months // 12, month=months % 12 + 1, day=1)
