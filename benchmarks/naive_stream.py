"""What stream.py compares with: one event, one prediction, one commit.

`python benchmarks/naive_stream.py SERVERS INPUT OUTPUT MODEL EVENTS` prints how many events it did in a second, by the
clock and of the processor.
"""

import sys
import time

import orjson
from confluent_kafka import Consumer, Producer

from components.predictor.requests import from_rows
from components.predictor.served_model import ServedModel, read_facts


def main(servers: str, source: str, target: str, model: str, events: int) -> None:
    served = ServedModel(read_facts(model))
    producer = Producer({"bootstrap.servers": servers})
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": f"naive-{source}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([source])
    began, processor, done = 0.0, 0.0, 0
    while done < events:
        message = consumer.poll(1)
        if message is None or message.error():
            continue
        if not done:
            began, processor = time.perf_counter(), time.process_time()
        event = orjson.loads(message.value())
        number = event.pop("n")
        outputs = served.predict(from_rows({"instances": [event]}, served.facts.spec, 1))
        decision = {"event_id": str(number), "probability": float(outputs["probability"][0])}
        producer.produce(target, orjson.dumps(decision), key=message.key())
        producer.flush()
        consumer.commit(message, asynchronous=False)
        done += 1
    print(done / (time.perf_counter() - began), done / (time.process_time() - processor))
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:5], int(sys.argv[5]))
