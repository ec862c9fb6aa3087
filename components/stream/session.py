"""A member of the consumer group: reads messages, and writes records and the progress in one transaction.

Exactly once rests on three things. Records and offsets are committed together (KIP-98). The broker takes them only from
a member of the group's present generation (KIP-447), so that one which lost its partitions unknowingly cannot commit.
And the transactional ids are those of the instance: when it starts again, what it left open is aborted.

Two producers take turns. A broker answers a commit before it has ended the transaction in every partition. Until then
the same producer's next one is refused, and the client tries again after 20 ms (partitions) and 100 ms (offsets).
"""

import functools
import itertools
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)

from components.kafka_clients import properties, reaching, told_as
from components.settings import Stream
from components.stream.clients import consuming, producing
from components.stream.decisions import Record

_SECONDS = 30.0
"""That one call of the client may take; while a broker is away, it is called again."""
_PATIENCE_SECONDS = 120.0
"""After which a commit whose outcome is unknown is left to a new session, which the committed offsets tell."""
_TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD}
_PRODUCERS = 2
_ROOM_BYTES = 1_000_000  # of a message, for its headers and what a decision adds

_logger = logging.getLogger("lockgate")


class LostError(Exception):
    """This session cannot go on; a new one begins where the last commit ended."""


class Listener(Protocol):
    """Who is told of partitions that come and go, between batches."""

    def assigned(self, partitions: Mapping[int, int]) -> None:
        """Partitions come, each with the offset of its first event to decide."""
        ...

    def revoked(self, partitions: Iterable[int]) -> None:
        """Partitions go."""
        ...

    def undeliverable(self, message: Any, says: str) -> None:
        """The broker does not take a record that comes from a message."""
        ...


class Session:
    """One consumer, and the producers of its transactions."""

    def __init__(self, stream: Stream, instance: str, look_back: int, listener: Listener) -> None:
        """Logs in.

        Args:
            stream: with every name filled in.
            instance: names this process among the group's; the same when it starts again.
            look_back: messages before the committed offset that are read again when a partition comes.
            listener: told of partitions.

        Raises:
            InputError: the broker refuses.
            UnavailableError: it does not answer.
        """
        self._stream = stream
        self._look_back = look_back
        self._listener = listener
        self._owned: set[int] = set()
        self._gone: set[int] = set()
        self._failed: dict[tuple[int, int], tuple[Any, str]] = {}
        self._alone = 0
        self._starts: dict[int, int] = {}
        self._complaint = ""
        common = properties(stream.servers) | {"error_cb": self._complain}
        with reaching(stream.servers):
            producers = [Producer(common | _producer_properties(stream, f"{instance}-{n}")) for n in range(_PRODUCERS)]
            for producer in producers:
                producer.init_transactions(_SECONDS)
            self._producers = itertools.cycle(producers)
            self._producer = producers[0]
            self._consumer = Consumer(common | _consumer_properties(stream))
            self._consumer.subscribe(
                [stream.input_topic], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke
            )

    @property
    def owned(self) -> frozenset[int]:
        """The partitions that this member has."""
        return frozenset(self._owned)

    def close(self) -> None:
        """Leaves the group, so that others take the partitions at once."""
        try:
            self._consumer.close()
        except (KafkaException, RuntimeError) as error:
            _logger.warning("the consumer group could not be left in order: %s", error)

    # ------------------------------------------------------------------------------------------------- reading

    def poll(self, seconds: float) -> list[Any]:
        """Waits for a message, and takes what else is there.

        Returns:
            Messages of partitions that are this member's, of each in the order of its offsets.

        Raises:
            LostError: the session cannot go on.
        """
        self._gone.clear()
        try:
            first = self._consumer.poll(seconds)
            if first is None:
                return []
            more = [] if self._alone else self._read_more()
        except KafkaException as error:
            raise self._lost(error.args[0]) from error
        messages = []
        for message in (first, *more):
            if message.error() is not None:
                self._read_error(message.error())
            elif message.partition() not in self._gone:
                messages.append(message)
        # Of a partition that went and came back meanwhile, some of these may have come twice.
        back = self._gone & self._owned
        if back:
            self.rewind(dict.fromkeys(back))
        return messages

    def _read_more(self) -> list[Any]:
        count = self._stream.max_batch_events - 1
        return list(self._consumer.consume(count, self._stream.linger_ms / 1000)) if count else []

    def lags(self) -> dict[int, int]:
        """Gives how many messages wait behind those that were read, by partition, as far as the client knows."""
        lags = {}
        for place in self._consumer.position(self._places(self._owned)) if self._owned else []:
            _, end = self._consumer.get_watermark_offsets(place, cached=True)
            read = place.offset if place.offset >= 0 else self._starts.get(place.partition, end)
            if end >= 0:
                lags[place.partition] = max(end - read, 0)
        return lags

    def idle(self, seconds: float) -> None:
        """Lets time go by without messages, as a member that is still there.

        Raises:
            LostError: the session cannot go on.
        """
        deadline = time.monotonic() + seconds
        places = self._places(self._owned)
        try:
            self._consumer.pause(places)
            while (left := deadline - time.monotonic()) > 0:
                self._consumer.poll(min(left, 0.2))
            self._consumer.resume(self._places(self._owned))
        except KafkaException as error:
            raise self._lost(error.args[0]) from error

    def rewind(self, offsets: Mapping[int, int | None]) -> None:
        """Reads partitions again, of those that are still this member's.

        Args:
            offsets: from which on, by partition; None: from what is committed.

        Raises:
            LostError: the session cannot go on.
        """
        try:
            places = self._places(self._owned & offsets.keys())
            unknown = [place for place in places if offsets[place.partition] is None]
            committed = self._consumer.committed(unknown, _SECONDS) if unknown else []
            starts = {told.partition: self._start(told) for told in committed}
            for place in places:
                known = offsets[place.partition]
                place.offset = starts[place.partition] if known is None else known
                self._consumer.seek(place)
        except KafkaException as error:
            raise self._lost(error.args[0]) from error

    def _places(self, partitions: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._stream.input_topic, partition) for partition in sorted(partitions)]

    def _assign(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        starts = {}
        for place, told in zip(places, consumer.committed(places, _SECONDS) if places else [], strict=True):
            starts[place.partition] = self._start(told)
            first, _ = consumer.get_watermark_offsets(place, timeout=_SECONDS)
            place.offset = max(first, starts[place.partition] - self._look_back)
        consumer.incremental_assign(places)
        self._owned |= starts.keys()
        self._starts |= starts
        _logger.info("partitions %s came; %s", _listed(starts), f"now {_listed(self._owned)}")
        self._listener.assigned(starts)

    def _revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        gone = {place.partition for place in places}
        consumer.incremental_unassign(places)
        self._owned -= gone
        self._gone |= gone
        _logger.info("partitions %s went; %s", _listed(gone), f"now {_listed(self._owned)}")
        self._listener.revoked(gone)

    def _start(self, committed: TopicPartition) -> int:
        """Gives the offset at which a partition begins, of what is committed."""
        if committed.error is not None:
            raise KafkaException(committed.error)
        if committed.offset != OFFSET_INVALID and committed.offset >= 0:
            return int(committed.offset)
        first, end = self._consumer.get_watermark_offsets(committed, timeout=_SECONDS)
        return int(first if self._stream.start == "earliest" else end)

    # ------------------------------------------------------------------------------------------------- writing

    def commit(self, messages: Sequence[Any], records: Sequence[Record]) -> bool:
        """Writes records and the progress over messages together.

        Args:
            messages: of one `poll`.
            records: what came of them.

        Returns:
            False: nothing was written, and the messages come again.

        Raises:
            LostError: the session cannot go on; which of the two it was, the committed offsets tell.
        """
        firsts: dict[int, int] = {}
        ends: dict[int, int] = {}
        for message in messages:
            firsts.setdefault(message.partition(), message.offset())
            ends[message.partition()] = message.offset() + 1
        if not ends.keys() <= self._owned:
            self.rewind(firsts)
            return False
        if all(ends[partition] <= self._starts[partition] for partition in ends):
            return True  # read again, and settled before
        # Progress never goes back: what was read again is behind it.
        ends = {partition: max(end, self._starts[partition]) for partition, end in ends.items()}
        offsets = [TopicPartition(self._stream.input_topic, partition, end) for partition, end in ends.items()]
        self._failed.clear()
        self._producer = next(self._producers)
        try:
            self._producer.begin_transaction()
            for record in records:
                self._produce(record)
            self._send(offsets)
            self._again(lambda: self._producer.commit_transaction(_SECONDS))
        except _AbortedError as aborted:
            self._abort(firsts, len(messages), str(aborted))
            return False
        except KafkaException as error:
            if not error.args[0].txn_requires_abort():
                raise self._lost(error.args[0]) from error
            self._abort(firsts, len(messages), error.args[0].str())
            return False
        self._alone = max(self._alone - 1, 0)
        return True

    def _produce(self, record: Record) -> None:
        options: dict[str, Any] = {
            "key": record.key,
            "headers": record.headers,
            "on_delivery": functools.partial(self._delivered, record.source),
        }
        while True:
            try:
                self._producer.produce(record.topic, record.value, **options)
                return
            except BufferError:
                self._producer.poll(0.05)
            except KafkaException as error:
                if error.args[0].code() not in _TOO_LARGE:
                    raise
                self._delivered(record.source, error.args[0], None)
                raise _AbortedError(error.args[0].str()) from error

    def _delivered(self, source: Any, error: KafkaError | None, message: Any) -> None:
        if error is not None and error.code() in _TOO_LARGE:
            self._failed[source.partition(), source.offset()] = source, error.str()

    def _send(self, offsets: list[TopicPartition]) -> None:
        self._again(
            lambda: self._producer.send_offsets_to_transaction(
                offsets, self._consumer.consumer_group_metadata(), _SECONDS
            )
        )

    def _again(self, call: Any) -> None:
        """Calls until it is done, as long as the client says that this makes sense."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                call()
                return
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise
                _logger.warning("%s; trying again", told_as(error.args[0], self._stream.servers))

    def _abort(self, firsts: Mapping[int, int], messages: int, says: str) -> None:
        _logger.warning("a batch was taken back (%s); its events come again", says)
        try:
            self._again(lambda: self._producer.abort_transaction(_SECONDS))
        except KafkaException as error:
            raise self._lost(error.args[0]) from error
        if len(self._failed) == 1:
            ((message, why),) = self._failed.values()
            self._listener.undeliverable(message, why)
        elif self._failed:
            # A broker refuses what was sent together for one that is too large, or for the sum: which one it is, each
            # tells alone.
            self._alone = messages
        self.rewind(firsts)

    # -------------------------------------------------------------------------------------------------- errors

    def _read_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            return
        if error.fatal() or not error.retriable():
            raise self._lost(error)
        self._complain(error)

    def _lost(self, error: KafkaError) -> LostError:
        return LostError(str(told_as(error, self._stream.servers)))

    def _complain(self, error: KafkaError) -> None:
        """Says once what keeps the client from its work; the client goes on trying."""
        says = str(told_as(error, self._stream.servers))
        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION, KafkaError._SSL) or error.fatal():
            if says != self._complaint:
                _logger.warning("%s; trying again", says)
            self._complaint = says


class _AbortedError(Exception):
    """The transaction must be taken back."""


def _listed(partitions: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(partitions))) or "none"


def _producer_properties(stream: Stream, instance: str) -> dict[str, Any]:
    return producing(stream, stream.group, instance) | {
        "delivery.report.only.error": True,
        "message.max.bytes": stream.max_event_bytes + _ROOM_BYTES,
        "queue.buffering.max.messages": max(100_000, 4 * stream.max_batch_events),
    }


def _consumer_properties(stream: Stream) -> dict[str, Any]:
    return consuming(stream) | {
        "group.id": stream.group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": stream.start,
        "partition.assignment.strategy": "cooperative-sticky",
        "fetch.wait.max.ms": 100,
        "queued.min.messages": max(10_000, 2 * stream.max_batch_events),
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 5_000,
    }
