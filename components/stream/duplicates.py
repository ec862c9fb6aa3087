"""Which events were seen before: the ids of the events that are close behind in the same partition.

Whether an event is a duplicate follows from the partition's messages alone: when a partition comes, those before the
committed offset are read again. An id counts as seen once its event's transaction is committed.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from components.stream.events import Event


class Duplicates:
    """What was seen in the partitions that this member has."""

    def __init__(self, window: int) -> None:
        """Args: window: how many offsets behind an id still counts; 0: none does."""
        self._window = window
        self._seen: dict[int, OrderedDict[str, int]] = {}

    def forget(self, partitions: Iterable[int]) -> None:
        """Drops what was seen in partitions."""
        for partition in partitions:
            self._seen.pop(partition, None)

    def mark(self, events: Sequence[Event]) -> None:
        """Marks events whose id was seen before, or comes earlier among them in the same partition."""
        if not self._window:
            return
        new: dict[tuple[int, str], int] = {}
        for event in events:
            partition, offset = event.message.partition(), event.message.offset()
            seen = self._seen.get(partition)
            last = new.get((partition, event.id), seen.get(event.id) if seen else None)
            event.duplicate = last is not None and offset - last <= self._window
            new[partition, event.id] = offset

    def add(self, events: Sequence[Event]) -> None:
        """Takes the ids of events that are settled."""
        if not self._window:
            return
        for event in events:
            offset = event.message.offset()
            seen = self._seen.setdefault(event.message.partition(), OrderedDict())
            seen[event.id] = offset
            seen.move_to_end(event.id)
            while seen and offset - next(iter(seen.values())) > self._window:
                seen.popitem(last=False)
