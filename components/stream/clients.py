"""What the clients of all of a stream's processes are told alike."""

from typing import Any

from components.settings import Stream


def consuming(stream: Stream) -> dict[str, Any]:
    """Gives the properties of a member of a consumer group."""
    return {
        "isolation.level": "read_committed",
        "session.timeout.ms": int(stream.session_seconds * 1000),
        "heartbeat.interval.ms": int(stream.session_seconds * 1000 / 4),
        # Backpressure: so much is held here, and the rest stays with the broker.
        "queued.max.messages.kbytes": 16_384,
        "fetch.message.max.bytes": max(1_048_576, stream.max_event_bytes),
    }


def producing(stream: Stream, group: str, instance: str) -> dict[str, Any]:
    """Gives the properties of a producer whose transactions are those of a group's member."""
    return {
        "transactional.id": f"{group}-{instance}",
        "transaction.timeout.ms": int(stream.transaction_seconds * 1000),
        "linger.ms": 0,
        "compression.type": "lz4",
        # As Java's clients choose: the decisions of one key are where a Java program looks for them.
        "partitioner": "murmur2_random",
    }
