"""Gives events their window features: `python -m components.stream.windows --job <file>`, until SIGTERM."""

import functools
import json
import logging
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from components.errors import InputError, LockgateError
from components.kafka_clients import partitions
from components.stream.health import Health
from components.stream.job import Job, read_job
from components.stream.patience import LONGEST_WAIT, patiently, pause, waiting_times
from components.stream.process import begin_log, instance_name, options
from components.stream.windows.beginning import begin
from components.stream.windows.figures import Figures

_SILENCE_SECONDS = 600.0  # stores that are read from Kafka again, and a commit that waits for a broker

_logger = logging.getLogger("lockgate")


def main(arguments: list[str]) -> int:
    """Works until a signal comes; gives the exit code."""
    parser = options("components.stream.windows", __doc__)
    parser.add_argument(
        "--state", type=Path, default=Path("state"), help="folder of the stores; what is not there comes from Kafka"
    )
    given = parser.parse_args(arguments)
    begin_log(given.log_level)
    # While a broker is away it repeats itself many times a second; what ends a session is told below.
    logging.getLogger("quixstreams").setLevel("DEBUG" if given.log_level == "debug" else "CRITICAL")
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    try:
        job = read_job(given.job)
        figures = Figures()
        health = Health(given.port, _SILENCE_SECONDS, figures.summary)
        _run(job, instance_name(given.instance), given.state, health, figures, over)
    except LockgateError as error:
        print(f"stream: {error.label}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _run(job: Job, instance: str, folder: Path, health: Health, figures: Figures, over: threading.Event) -> None:
    stream, windows = job.named, job.window_features
    if windows is None:
        raise InputError("the job has no window_features; the stream decides without this process")
    for topic in (stream.input_topic, stream.features_topic):
        patiently(functools.partial(partitions, stream.servers, topic), over, health)
    if over.is_set():
        return
    from components.stream.windows.topology import build, group_of  # Quix Streams takes a second to import

    def alive(*_: Any) -> None:
        health.ready = True
        health.alive()

    def statistics(text: str) -> None:
        alive()
        figures.behind(json.loads(text))

    waits = waiting_times()
    while not over.is_set():
        began = time.monotonic()
        try:
            begin(stream, group_of(stream))
            app = build(
                stream,
                windows,
                job.window_columns,
                job.avro_schema,
                instance=instance,
                folder=folder,
                processed=figures.processed,
                statistics=statistics,
            )
            _logger.info(
                "window features of '%s' go to '%s', as '%s'; health and metrics on port %d",
                *(stream.input_topic, stream.features_topic, instance, health.port),
            )
            app.run()  # it ends by itself, without an error, only when a signal comes
            return
        except InputError:
            raise
        except Exception as error:  # whatever it is, what is committed stands: a new session goes on from there
            figures.lost()
            if time.monotonic() - began > LONGEST_WAIT:  # it was well meanwhile
                waits = waiting_times()
            wait = next(waits)
            says = str(error) or type(error).__name__
            _logger.warning("%s; beginning anew in %.1f s, where the last commit ended", says, wait)
            health.ready = False
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):  # Quix Streams has put its own in their place
                signal.signal(number, lambda *_: over.set())
        pause(wait, over, health)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
