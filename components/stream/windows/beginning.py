"""Where a group begins that has committed nothing yet."""

from confluent_kafka import Consumer, TopicPartition

from components.kafka_clients import partitions, properties, reaching
from components.settings import Stream

_SECONDS = 30.0


def begin(stream: Stream, group: str) -> None:
    """Commits the end of the input topic, where the stream begins at the latest event and nothing is committed.

    A consumer's own `auto.offset.reset: latest` would hold for the topics between the steps, too, and skip what other
    members write to them before they are assigned.

    Raises:
        InputError: the broker refuses.
        UnavailableError: it does not answer.
    """
    if stream.start == "earliest":
        return
    told = properties(stream.servers) | {"group.id": group, "enable.auto.commit": False}
    with reaching(stream.servers):
        consumer = Consumer(told)
        try:
            topic = stream.input_topic
            places = [TopicPartition(topic, number) for number in partitions(stream.servers, topic)]
            new = [place for place in consumer.committed(places, _SECONDS) if place.offset < 0]
            for place in new:
                place.offset = consumer.get_watermark_offsets(place, timeout=_SECONDS)[1]
            if new:
                consumer.commit(offsets=new, asynchronous=False)
        finally:
            consumer.close()
