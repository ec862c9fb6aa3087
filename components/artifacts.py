"""The files inside the artifacts that stages hand to each other.

A dataset is a directory with one folder a split, Parquet parts in it, and `manifest.json`. A model is a
directory with `1/` (the SavedModel, where TensorFlow Serving looks for it) and `spec.json`.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from components.errors import InputError
from components.json_files import parse_record

MANIFEST = "manifest.json"
MODEL_VERSION = "1"
MODEL_SPEC = "spec.json"
REJECTED = "rejected"
"""Beside the splits of predictions: rows that a model refused, with the reason."""
BATCH = "batch"
"""The one split of rows that are only to be predicted: without a label, never learned from."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceFile(_Record):
    """One file that was read."""

    uri: str
    span: str
    """As in the file's name, e.g. 2013-09; empty for a pattern without spans."""
    rows: int
    bytes: int
    digest: str
    """SHA-256 of the content, in hex."""


class Manifest(_Record):
    """What a dataset holds and where it came from."""

    splits: dict[str, int]
    """Rows of each split."""
    digest: str
    """SHA-256 over the source files' digests and everything that decides what became of them."""
    files: list[SourceFile] = []

    @property
    def spans(self) -> list[str]:
        """The spans, each once, in order."""
        return sorted({file.span for file in self.files if file.span})


def write_manifest(dataset: Path, manifest: Manifest) -> None:
    """Writes `manifest` into the dataset's directory."""
    (dataset / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")


def read_manifest(dataset: Path) -> Manifest:
    """Reads the manifest of a dataset.

    Raises:
        InputError: the directory is no dataset of ours.
    """
    path = dataset / MANIFEST
    if not path.is_file():
        raise InputError(f"'{dataset}' has no {MANIFEST}; give the dataset that ingest_data or transform_data wrote")
    return parse_record(Manifest, path.read_bytes(), path, "run the stage that wrote it again")


def split_files(dataset: Path, split: str) -> list[Path]:
    """Lists the Parquet parts of one split, in order.

    Raises:
        InputError: the dataset has no such split.
    """
    files = sorted((dataset / split).glob("*.parquet"))
    if not files:
        has = (
            ", ".join(sorted(p.name for p in dataset.iterdir() if p.is_dir())) or "none" if dataset.is_dir() else "none"
        )
        raise InputError(f"dataset '{dataset}' has no split '{split}' (it has: {has})")
    return files


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Gives a directory to write into, which becomes `path` only when the block ends well.

    What an interrupted attempt left behind is removed first, so that a stage can be run again.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    partial.rename(target)


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Writes a file that appears whole or not at all, in place of any earlier one; makes its folder.

    Text becomes UTF-8. One writer at a time: what a killed one left behind is written over.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
