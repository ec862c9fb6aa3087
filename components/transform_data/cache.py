"""Analysis results by what they depend on, so that unchanged data and code are not analyzed again."""

import hashlib
import json
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam
import tensorflow as tf
import tensorflow_transform as tft

from components import storage

# Written last: an entry without it is not finished.
_COMPLETE = "complete"
_SHARED_CODE = ("features.py", "rows.py", "schema.py", "transform_graph.py", "user_code.py")


class AnalysisCache:
    """Entries under a URI; without one, nothing is found and nothing is kept."""

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")

    def fetch(self, key: str, target: Path) -> bool:
        """Copies the entry of a key to `target`; tells whether there was one."""
        if not self._uri:
            return False
        uri = f"{self._uri}/{key}"
        fs, path = storage.filesystem(uri)
        with storage.reaching(uri):
            if not fs.exists(f"{path}/{_COMPLETE}"):
                return False
            fs.get(f"{path}/content/", f"{target}/", recursive=True)
        return True

    def keep(self, key: str, source: Path) -> None:
        """Keeps a directory as the entry of a key; a reader sees all of it or nothing."""
        if not self._uri:
            return
        uri = f"{self._uri}/{key}"
        fs, path = storage.filesystem(uri)
        with storage.reaching(uri):
            if storage.is_remote(uri):
                fs.put(f"{source}/", f"{path}/content/", recursive=True)
                fs.pipe_file(f"{path}/{_COMPLETE}", b"")
                return
            partial = Path(path).with_name(f".{key}.{uuid.uuid4().hex}")
            shutil.copytree(source, partial / "content")
            (partial / _COMPLETE).touch()
            try:
                partial.rename(path)
            except OSError:  # another run was faster, and its entry is the same
                shutil.rmtree(partial)


def cache_key(**facts: Any) -> str:
    """Gives a name for what an analysis depends on: the given facts, our code, and the libraries' versions."""
    folder = Path(__file__).parent
    code = [*sorted(folder.glob("*.py")), *(folder.parent / name for name in _SHARED_CODE)]
    versions = [tf.__version__, tft.__version__, apache_beam.__version__]
    content = json.dumps([facts, versions, digest_of(code)], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def digest_of(files: Sequence[Path]) -> str:
    """Gives the SHA-256 over the contents of files, in hex."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
