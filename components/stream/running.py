"""The loop: read what has arrived, decide it, commit; and again with a new session when one is lost."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from components.errors import UnavailableError
from components.settings import Stream
from components.stream import metrics
from components.stream.decisions import Batch, Decider
from components.stream.duplicates import Duplicates
from components.stream.events import Event
from components.stream.health import Health
from components.stream.metrics import Figures
from components.stream.patience import LONGEST_WAIT, pause, waiting_times
from components.stream.scoring import Scorer
from components.stream.session import LostError, Session

_POLL_SECONDS = 0.2
_LAG_SECONDS = 1.0

_logger = logging.getLogger("lockgate")


class Running:
    """One stream, from its start to its end."""

    def __init__(
        self,
        stream: Stream,
        instance: str,
        decider: Decider,
        scorer: Scorer,
        next_scorer: Callable[[], Scorer | None],
        health: Health,
        figures: Figures,
        over: threading.Event,
    ) -> None:
        """Takes its parts.

        Args:
            stream: with every name filled in.
            instance: names this process among the group's.
            decider: of events.
            scorer: that decides first.
            next_scorer: gives another one that takes over.
            health: told of signs of life.
            figures: told of what is committed.
            over: once it is set, the batch at hand ends, and then all.
        """
        self._stream = stream
        self._instance = instance
        self._decider = decider
        self._scorer = scorer
        self._next_scorer = next_scorer
        self._health = health
        self._figures = figures
        self._duplicates = Duplicates(stream.duplicate_window)
        self._starts: dict[int, int] = {}
        self._lag_at = 0.0
        self._over = over

    def run(self) -> None:
        """Decides events until it is over.

        Raises:
            InputError: the broker or the model server refuses for good.
        """
        waits = waiting_times()
        while not self._over.is_set():
            session, began = None, time.monotonic()
            try:
                session = Session(self._stream, self._instance, self._stream.duplicate_window, self)
                _logger.info("in group '%s', waiting for '%s'", self._stream.group, self._stream.input_topic)
                self._serve(session)
            except (LostError, UnavailableError) as error:
                metrics.LOST.inc()
                if time.monotonic() - began > LONGEST_WAIT:  # it was well meanwhile
                    waits = waiting_times()
                wait = next(waits)
                _logger.warning("%s; beginning anew in %.1f s, where the last commit ended", error, wait)
                pause(wait, self._over, self._health)
            finally:
                self._health.ready = False
                if session is not None:
                    session.close()
                self.revoked(list(self._starts))

    def _serve(self, session: Session) -> None:
        self._health.ready = True
        while not self._over.is_set():
            self._health.alive()
            self._swap()
            began = time.perf_counter()
            messages = session.poll(_POLL_SECONDS)
            if messages:
                self._run_batch(session, messages, time.perf_counter() - began)
            if time.monotonic() - self._lag_at >= _LAG_SECONDS:
                self._lag_at = time.monotonic()
                self._figures.behind(session.lags())

    def _swap(self) -> None:
        scorer = self._next_scorer()
        if scorer is not None:
            self._scorer = scorer
            metrics.SWAPS.inc()
            _logger.info("%s %s decides from now on", scorer.name, scorer.version)
        self._figures.deciding(self._scorer)

    def _run_batch(self, session: Session, messages: list[Any], read_seconds: float) -> None:
        read = time.perf_counter()
        decided = self._decided(session, messages)
        if decided is None:
            return
        batch, settled, unknown_fields = decided
        ready = time.perf_counter()
        if not session.commit(messages, batch.records):
            metrics.ABORTED.inc()
            return
        self._decider.settled()
        self._duplicates.add(settled)
        seconds = {"read": read_seconds, "decide": ready - read, "commit": time.perf_counter() - ready}
        self._figures.committed(batch, unknown_fields, seconds)

    def _decided(self, session: Session, messages: list[Any]) -> tuple[Batch, list[Event], int] | None:
        """Decides messages, however long the model server is away; None: their partitions went meanwhile."""
        waits = waiting_times()
        firsts = {message.partition(): message.offset() for message in reversed(messages)}
        while True:
            before = self._decider.unknown_fields
            try:
                events, rejections = self._decider.read(messages)
                self._duplicates.mark(events)
                due, dropped = self._due(events)
                rejections = [rejection for rejection in rejections if not self._is_old(rejection.message)]
                batch = self._decider.decide(due, rejections, self._scorer)
                batch.dropped = dropped
                return batch, events, self._decider.unknown_fields - before
            except UnavailableError as error:
                metrics.RETRIES.inc()
                wait = next(waits)
                _logger.warning("%s; trying again in %.1f s", error, wait)
                self._health.alive()
                session.idle(wait)
                if self._over.is_set() or not firsts.keys() <= session.owned:
                    session.rewind(firsts)
                    return None

    def _due(self, events: list[Event]) -> tuple[list[Event], list[Event]]:
        """Gives the events to decide, and those that are dropped."""
        if not self._stream.duplicate_window:
            return events, []
        new = [event for event in events if not self._is_old(event.message)]
        if self._stream.duplicates == "count":
            return new, []
        return [event for event in new if not event.duplicate], [event for event in new if event.duplicate]

    def _is_old(self, message: Any) -> bool:
        """Tells whether a message was settled before: it is read again for its id only."""
        return bool(message.offset() < self._starts.get(message.partition(), -1))

    # ------------------------------------------------------------------------------------------ told by the session

    def assigned(self, partitions: Mapping[int, int]) -> None:
        """Takes over partitions."""
        self._starts |= partitions

    def revoked(self, partitions: Iterable[int]) -> None:
        """Gives up partitions."""
        gone = list(partitions)
        for partition in gone:
            self._starts.pop(partition, None)
        self._duplicates.forget(gone)

    def undeliverable(self, message: Any, says: str) -> None:
        """Notes that the broker does not take what comes of a message."""
        self._decider.undeliverable(message, says)
