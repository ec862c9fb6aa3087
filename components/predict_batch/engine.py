"""Predicting on Beam: the parts of a split go to the workers of an engine, which do what this process would."""

import contextlib
import functools
import json
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import apache_beam as beam
import grpc
import tensorflow as tf

from components import storage
from components.beam_options import options_of
from components.errors import InputError, LockgateError, UnavailableError
from components.predict_batch.parts import Counts, Part, divided, predict_part
from components.predict_batch.scoring import CHAMPION, Scorer, load
from components.serving_model import ServingModel

COUNTS = "counts"

_PART_ROWS = 262_144
"""Four row groups of ingest_data; batches begin where they do in one process, so that predictions are the same."""


@dataclass(frozen=True)
class Job:
    """What is done with each part."""

    models: Mapping[str, Path]
    """Directories by name, the champion first."""
    kept: Sequence[str]
    split: str
    top_rows: int


def predict_on_engine(
    job: Job, files: Sequence[Path], folder: Path, beam_args: Sequence[str], scratch: str
) -> list[Counts]:
    """Predicts the rows of some files on the engine that `beam_args` name.

    Args:
        job: what to do.
        files: of the split.
        folder: of the dataset that is written.
        beam_args: options of the pipeline.
        scratch: URI that the workers reach; empty: they reach this machine's disk.

    Raises:
        InputError: Beam does not know an option, or refuses it.
        UnavailableError: the engine does not answer, or a worker failed.
    """
    options = options_of(beam_args)
    parts = divided(files, _PART_ROWS)
    with _placed(job, parts, folder, scratch) as (models, parts, output), _explained():
        worker = _PredictPart(models, list(job.kept), job.split, job.top_rows, output)
        with beam.Pipeline(options=options) as pipeline:
            # The reshuffle keeps the engine from handing all parts to one worker.
            pipeline | "parts" >> beam.Create(parts) | beam.Reshuffle() | "predict" >> beam.ParDo(worker)
        return _collected(parts, output, folder)


class _PredictPart(beam.DoFn):  # type: ignore[misc]
    """Predicts a part, writes it aside and hands it over whole: an engine may try a part twice."""

    def __init__(self, models: dict[str, str], kept: list[str], split: str, top_rows: int, output: str) -> None:
        super().__init__()
        self._models, self._kept, self._split, self._top_rows, self._output = models, kept, split, top_rows, output

    def process(self, part: Part) -> Iterator[int]:
        scorer, champion = _scorer(tuple(self._models.items()), tuple(self._kept))
        with tempfile.TemporaryDirectory(prefix="predict_batch-") as name:
            folder = Path(name)
            counts = predict_part(part, scorer, champion, folder, self._split, self._top_rows, threads=1)
            target = folder / COUNTS / f"part-{part.number:05d}.json"
            target.parent.mkdir()
            target.write_text(json.dumps(asdict(counts)), encoding="utf-8")
            # Its counts go last: they tell that a part is there.
            found = sorted(folder.rglob("*.*"), key=lambda path: path.parent.name == COUNTS)
            _hand_over([path for path in found if path.is_file()], folder, self._output)
        yield counts.predicted


@functools.cache
def _scorer(models: tuple[tuple[str, str], ...], kept: tuple[str, ...]) -> tuple[Scorer, ServingModel]:
    """Loads the models once a process."""
    with contextlib.suppress(RuntimeError):  # TensorFlow is at work in this process already
        tf.config.threading.set_intra_op_parallelism_threads(1)
    folders = {name: _local(uri) for name, uri in models}
    loaded = load(folders)
    return Scorer(loaded, kept), loaded[CHAMPION]


def _local(uri: str) -> Path:
    if not storage.is_remote(uri):
        return Path(uri)
    folder = tempfile.mkdtemp(prefix="predict_batch-model-")  # as long as the worker lives
    fs, path = storage.filesystem(uri)
    with storage.reaching(uri):
        fs.get(f"{path.rstrip('/')}/", f"{folder}/", recursive=True)
    return Path(folder)


def _hand_over(files: Sequence[Path], folder: Path, output: str) -> None:
    fs, root = storage.filesystem(output)
    for path in files:
        target = f"{root.rstrip('/')}/{path.relative_to(folder)}"
        with storage.reaching(output):
            if storage.is_remote(output):
                fs.put_file(str(path), target)
                continue
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            partial = Path(f"{target}.{uuid.uuid4().hex}.partial")
            fs.put_file(str(path), str(partial))
            partial.replace(target)


@contextlib.contextmanager
def _placed(
    job: Job, parts: list[Part], folder: Path, scratch: str
) -> Iterator[tuple[dict[str, str], list[Part], str]]:
    """Gives models, parts and the place of the output as workers reach them; removes afterwards what was put there."""
    if not scratch:
        yield {name: str(path) for name, path in job.models.items()}, parts, str(folder)
        return
    place = f"{scratch.rstrip('/')}/predict_batch-{uuid.uuid4().hex}"
    fs, root = storage.filesystem(place)
    try:
        with storage.reaching(place):
            models = {}
            for number, (name, path) in enumerate(job.models.items()):
                fs.put(f"{path}/", f"{root}/models/{number}/", recursive=True)
                models[name] = f"{place}/models/{number}"
            moved = {}
            for number, file in enumerate(dict.fromkeys(part.file for part in parts)):
                fs.put_file(file, f"{root}/rows/{number}.parquet")
                moved[file] = f"{place}/rows/{number}.parquet"
        yield models, [replace(part, file=moved[part.file]) for part in parts], f"{place}/output"
    finally:
        with contextlib.suppress(FileNotFoundError, LockgateError), storage.reaching(place):
            fs.rm(root, recursive=True)


def _collected(parts: Sequence[Part], output: str, folder: Path) -> list[Counts]:
    """Brings what the workers wrote into the dataset's folder, and gives the counts of each part."""
    fs, root = storage.filesystem(output)
    with storage.reaching(output):
        if storage.is_remote(output):
            fs.get(f"{root}/", f"{folder}/", recursive=True)
    counts = []
    for part in parts:
        file = folder / COUNTS / f"part-{part.number:05d}.json"
        if not file.is_file():
            raise UnavailableError(
                f"part {part.number} of {len(parts)} did not come back from the engine; its workers must reach "
                f"'{output}': set batch.scratch to a bucket, or start the same run again"
            )
        counts.append(Counts(**json.loads(file.read_bytes())))
        file.unlink()
    (folder / COUNTS).rmdir()
    return counts


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turns what Beam and its engine say into one line."""
    try:
        yield
    except (grpc.RpcError, grpc.FutureTimeoutError) as error:
        raise UnavailableError(
            "the engine of beam_args does not answer; check its endpoint, or leave beam_args out"
        ) from error
    except LockgateError:
        raise
    except ValueError as error:
        raise InputError(f"beam_args: {str(error).splitlines()[0]}; give options that Beam knows") from error
    except RuntimeError as error:  # a worker failed: Beam gives its traceback as text
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        cause = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "it said nothing")
        raise UnavailableError(f"the engine of beam_args gave up: {cause[:300]}; see its log") from error
