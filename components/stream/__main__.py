"""Decides a stream: `python -m components.stream --job <file>`, until SIGTERM."""

import functools
import gc
import logging
import signal
import sys
import tempfile
import threading
from pathlib import Path

from components.errors import LockgateError
from components.kafka_clients import partitions
from components.model_store import ModelStore
from components.stream.job import Job, read_job
from components.stream.process import begin_log, instance_name, options

_SILENCE_SECONDS = 600.0  # a commit may wait that long for a broker


def main(arguments: list[str]) -> int:
    """Decides until a signal comes; gives the exit code."""
    parser = options("components.stream", __doc__)
    parser.add_argument("--threads", type=int, default=1, help="inside one operation of TensorFlow; 0: one a core")
    given = parser.parse_args(arguments)
    begin_log(given.log_level)
    # A process with id 1, as in a container, has no default for this signal.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with tempfile.TemporaryDirectory(prefix="lockgate-stream-") as folder:
            _run(read_job(given.job), given.instance, given.port, given.threads, Path(folder))
    except LockgateError as error:
        print(f"stream: {error.label}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _run(job: Job, instance: str, port: int, threads: int, folder: Path) -> None:
    from components.stream.decisions import Decider
    from components.stream.health import Health
    from components.stream.metrics import Figures
    from components.stream.models import StoredModels
    from components.stream.patience import patiently
    from components.stream.running import Running
    from components.stream.scoring import EndpointScorer, Scorer

    over = threading.Event()
    stream = job.deciding
    figures = Figures(stream)
    health = Health(port, _SILENCE_SECONDS, figures.summary)
    models = StoredModels(ModelStore(job.store, job.name), stream, folder, threads)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())

    def first_scorer() -> Scorer:
        return EndpointScorer(stream.endpoint, stream.endpoint_seconds) if stream.endpoint else models.load()

    decider = Decider(stream, job.avro_schema, job.window_features)
    scorer = patiently(first_scorer, over, health)
    for topic in (stream.input_topic, stream.output_topic, stream.dead_letter_topic):
        patiently(functools.partial(partitions, stream.servers, topic), over, health)
    if scorer is None:
        return
    name = instance_name(instance)
    logging.getLogger("lockgate").info(
        "%s %s decides '%s' as '%s'; health and metrics on port %d",
        *(scorer.name, scorer.version, stream.input_topic, name, health.port),
    )
    # What lives now lives on; a full collection need not walk through TensorFlow's modules.
    gc.collect()
    gc.freeze()
    Running(stream, name, decider, scorer, models.take, health, figures, over).run()
    models.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
