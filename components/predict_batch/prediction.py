"""Predicting the rows of a dataset with an exported model, or with several side by side."""

import contextlib
import difflib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components import storage
from components.artifacts import MODEL_SPEC, REJECTED, Manifest, read_manifest, split_files, whole, write_manifest
from components.errors import InputError
from components.model_spec import ModelSpec
from components.parquet_files import open_parquet, read_batches
from components.predict_batch.readable import REMEDY, columns_of, readable, require_inputs
from components.predict_batch.top import DATA, INPUTS, PLACE, POSITION, TOP, TopRows, arrays_of
from components.reasons import REASONS, Reasoner, typical_of_rows, typical_of_statistics
from components.rows import Arrays, raw_arrays
from components.typical_row import STATISTICS

CHALLENGERS = "challengers"
"""Folder of their specs."""
TRAIN = "train"

_CHAMPION = ""
_BATCH_ROWS = 16_384
_TYPICAL_ROWS = 50_000


@dataclass(frozen=True)
class Request:
    """What is predicted, and what is told about it; as the component's arguments."""

    split: str
    keep_columns: Sequence[str] = ()
    reasons: int = 0
    top_rows: int = 0
    beam_args: Sequence[str] = ()
    scratch: str = ""

    def check(self) -> None:
        """Refuses counts below 0."""
        for name, value in (("reasons", self.reasons), ("top_rows", self.top_rows)):
            if value < 0:
                raise InputError(f"{name} is {value} (allowed: 0 or more); give how many")


def predict(
    examples: str,
    model: str,
    split: str,
    keep_columns: Sequence[str],
    predictions: str,
    reasons: int = 0,
    top_rows: int = 0,
    challengers: Mapping[str, str] | None = None,
    beam_args: Sequence[str] = (),
    scratch: str = "",
) -> Manifest:
    """Writes predictions beside the kept columns; the arguments are those of the component.

    Args:
        examples: dataset of raw rows.
        model: directory that train_model wrote, or URI of a published version; empty: no predictions.
        split: which split.
        keep_columns: raw columns to keep; empty: all.
        predictions: becomes a dataset: the split, `rejected` rows with a reason, and the model's spec.json.
        reasons: how many for each prediction, in the column `reasons`; 0: no such column.
        top_rows: only so many rows, those with the highest predictions, get reasons, in the folder `top`; 0: all.
        challengers: models, as `model`, by the name that begins their columns.
        beam_args: options of the Beam pipeline that predicts; empty: this process does.
        scratch: URI that Beam's workers reach, too; empty: a folder of this machine.

    Raises:
        InputError: a model cannot be loaded, or a kept column or the split is not there; a negative argument.
        DataRejectedError: the rows lack a column that a model takes.
        UnavailableError: a storage, or Beam's engine, does not answer.
    """
    request = Request(split, keep_columns, reasons, top_rows, beam_args, scratch)
    request.check()
    source = read_manifest(Path(examples))
    with whole(predictions) as folder:
        if not model:
            manifest = Manifest(splits={split: 0, REJECTED: 0}, digest=source.digest)
            print("predict_batch: no model is given, so there are no predictions", flush=True)
        else:
            manifest = _predict(Path(examples), source, {_CHAMPION: model, **(challengers or {})}, request, folder)
        write_manifest(folder, manifest)
    return manifest


def _predict(examples: Path, source: Manifest, uris: Mapping[str, str], request: Request, folder: Path) -> Manifest:
    files = split_files(examples, request.split)
    kept = _kept(files, request.keep_columns)
    with contextlib.ExitStack() as stack:
        folders = {name: stack.enter_context(_fetched(uri, request.reasons > 0)) for name, uri in uris.items()}
        # TensorFlow costs seconds to import: not for an empty prediction, nor for a mistake in the arguments
        from components.predict_batch.parts import predict_part, whole_files
        from components.predict_batch.scoring import Scorer, column_name, load

        _use_threads_of_ours()
        models = load(folders)
        specs = {name: model.spec for name, model in models.items()}
        added = [column_name(name, output.name) for name, spec in specs.items() for output in spec.outputs]
        _require_free_names(kept, [*added, REASONS] if request.reasons else added)
        for file in files:
            for spec in specs.values():
                require_inputs(open_parquet(file, REMEDY).schema_arrow.names, spec.inputs)
        _copy_specs(folders, folder)
        reasoner = _reasoner(models[_CHAMPION], folders[_CHAMPION], examples, source, request)
        top_rows = request.top_rows if reasoner else 0
        if request.beam_args:
            from components.predict_batch.engine import Job, predict_on_engine

            if reasoner and not top_rows:
                raise InputError("reasons for every row are not given on Beam: they cost too much; set top_rows")
            job = Job(folders, kept, request.split, top_rows)
            counts = predict_on_engine(job, files, folder, request.beam_args, request.scratch)
        else:
            scorer = Scorer(models, kept, None if top_rows else reasoner)
            parts = whole_files(files)
            counts = [predict_part(part, scorer, models[_CHAMPION], folder, request.split, top_rows) for part in parts]
        (folder / request.split).mkdir(exist_ok=True)
        splits = {
            request.split: sum(one.predicted for one in counts),
            REJECTED: sum(one.rejected for one in counts),
        }
        if reasoner and top_rows:
            splits[TOP] = _explain_top(folder / TOP, specs[_CHAMPION], reasoner, top_rows)
    digest = _digest(source, specs, kept, request)
    print(
        f"predict_batch: {request.split}: {splits[request.split]:,} rows predicted, {splits[REJECTED]:,} rejected",
        flush=True,
    )
    return Manifest(splits=splits, digest=digest, files=source.files)


def _use_threads_of_ours() -> None:
    """Lets each call of a model run in one thread: several calls at a time take half the CPU of one that is divided."""
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # TensorFlow is at work in this process already, e.g. in a test
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(len(os.sched_getaffinity(0)))


def _digest(source: Manifest, specs: Mapping[str, ModelSpec], kept: Sequence[str], request: Request) -> str:
    decides = f"{source.digest} {specs[_CHAMPION].weights_digest} {request.split} {kept}"
    decides += f" {request.reasons}" if request.reasons else ""
    decides += f" top {request.top_rows}" if request.top_rows else ""
    others = {name: spec.weights_digest for name, spec in specs.items() if name != _CHAMPION}
    decides += f" {json.dumps(others, sort_keys=True)}" if others else ""
    return hashlib.sha256(decides.encode()).hexdigest()


def _kept(files: Sequence[Path], keep_columns: Sequence[str]) -> list[str]:
    names = open_parquet(files[0], REMEDY).schema_arrow.names
    for name in keep_columns:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"it has: {', '.join(names)}"
            raise InputError(f"column '{name}' to keep is not in the dataset; {hint}")
    return list(keep_columns) or names


def _require_free_names(kept: Sequence[str], outputs: Sequence[str]) -> None:
    taken = [name for name in outputs if name in kept]
    if taken:
        raise InputError(
            f"column '{taken[0]}' has the name of an output; rename it in the source, or leave it out of keep_columns"
        )


@contextlib.contextmanager
def _fetched(model: str, with_statistics: bool) -> Iterator[Path]:
    """Gives the model's directory on the local disk; a published version holds it under `model/`."""
    if storage.is_remote(model):
        fs, path = storage.filesystem(model)
        with tempfile.TemporaryDirectory() as folder, storage.reaching(model):
            fs.get(f"{path.rstrip('/')}/model/", f"{folder}/", recursive=True)
            if with_statistics and fs.exists(f"{path.rstrip('/')}/{STATISTICS}"):
                fs.get(f"{path.rstrip('/')}/{STATISTICS}", f"{folder}/{STATISTICS}")
            yield Path(folder)
    else:
        directory = Path(model.removeprefix("file://"))
        if not directory.is_dir():
            raise InputError(f"model '{model}' is no directory; give what train_model wrote, or a published version")
        yield directory / "model" if (directory / "model").is_dir() else directory


def _copy_specs(folders: Mapping[str, Path], folder: Path) -> None:
    for name, directory in folders.items():
        target = folder / CHALLENGERS / f"{name}.json" if name else folder / MODEL_SPEC
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(directory / MODEL_SPEC, target)


# ------------------------------------------------------------------------------------------------ reasons


def _reasoner(model: Any, directory: Path, examples: Path, source: Manifest, request: Request) -> Reasoner | None:
    """Prepares reasons against the training data's typical row or, without its statistics, that of the dataset."""
    if not request.reasons:
        return None
    spec = model.spec
    reference = typical_of_statistics(directory, spec.inputs)
    compared = "the training data's statistics"
    if reference is None:
        usual = TRAIN if source.splits.get(TRAIN, 0) else request.split
        compared = f"split '{usual}'"
        reference = typical_of_rows(_some_rows(examples, usual, spec), spec.inputs)
    print(f"predict_batch: reasons are told against a typical row, from {compared}", flush=True)
    return Reasoner(spec, model.predict, reference, request.reasons)


def _some_rows(examples: Path, split: str, spec: ModelSpec) -> Arrays:
    """Reads rows at equal distances, so many that they tell what is typical."""
    columns, files = columns_of(spec), split_files(examples, split)
    names = [column.name for column in columns]
    step = max(1, sum(open_parquet(file, REMEDY).metadata.num_rows for file in files) // _TYPICAL_ROWS)
    parts = []
    for file in files:
        require_inputs(open_parquet(file, REMEDY).schema_arrow.names, spec.inputs)
        why = f"other parts of its split have; {REMEDY}"
        for batch in read_batches(file, names, _BATCH_ROWS, REMEDY, f"'{file}'", why):
            fitting, _ = readable(batch.take(pa.array(range(0, batch.num_rows, step))), columns)
            parts.append(raw_arrays(fitting, columns))
    return {column.name: np.concatenate([part[column.name] for part in parts]) for column in columns}


def _explain_top(folder: Path, spec: ModelSpec, reasoner: Reasoner, top_rows: int) -> int:
    """Makes of the parts' highest rows those of all, with their reasons; gives how many there are."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        return 0
    top = TopRows(top_rows)
    for file in files:
        top.add(pq.ParquetFile(file).read())
        file.unlink()
    table = top.table().combine_chunks()
    reasons = reasoner.reasons(arrays_of(table[INPUTS].combine_chunks(), spec))
    table = table.select([PLACE, POSITION, DATA]).append_column(REASONS, reasons)
    pq.write_table(table, folder / "part-00000.parquet", compression="lz4")
    return int(table.num_rows)
