"""Analysis results by what they depend on, so that unchanged data and code are not analyzed again."""

import hashlib
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import apache_beam
import tensorflow as tf
import tensorflow_transform as tft

from components import storage

# Written last: an entry without it is not finished.
_COMPLETE = "complete"


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
    """Gives a name for what an analysis depends on: the given facts, this code, and the libraries' versions."""
    own_code = b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))
    versions = [tf.__version__, tft.__version__, apache_beam.__version__]
    content = json.dumps([facts, versions, hashlib.sha256(own_code).hexdigest()], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()
