"""Analysis results by what they depend on, so that unchanged data and code are not analyzed again."""

import hashlib
import json
import tempfile
import uuid
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam
import tensorflow as tf
import tensorflow_transform as tft

from components import storage

_SHARED_CODE = ("features.py", "rows.py", "schema.py", "transform_graph.py", "user_code.py")


class AnalysisCache:
    """Entries under a URI; without one, nothing is found and nothing is kept.

    An entry is one ZIP file, which appears whole or not at all and knows the checksums of what is in it.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")

    def fetch(self, key: str, target: Path) -> bool:
        """Copies the entry of a key to the directory `target`; tells whether there was a sound one."""
        if not self._uri:
            return False
        uri = self._entry(key)
        fs, path = storage.filesystem(uri)
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / "entry"
            with storage.reaching(uri):
                if not fs.exists(path):
                    return False
                fs.get_file(path, str(local))
            try:
                with zipfile.ZipFile(local) as archive:
                    if archive.testzip() is not None:
                        raise zipfile.BadZipFile
                    archive.extractall(target)
            except (zipfile.BadZipFile, zlib.error):
                print(f"transform_data: '{uri}' is damaged and will be replaced", flush=True)
                return False
        return True

    def keep(self, key: str, source: Path) -> None:
        """Keeps the files of a directory as the entry of a key."""
        if not self._uri:
            return
        uri = self._entry(key)
        fs, path = storage.filesystem(uri)
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / "entry"
            with zipfile.ZipFile(local, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                for file in sorted(path for path in source.rglob("*") if path.is_file()):
                    archive.write(file, file.relative_to(source))
            with storage.reaching(uri):
                if storage.is_remote(uri):
                    fs.put_file(str(local), path)
                    return
                # Beside its place first: only within a file system does a file appear whole.
                partial = Path(path).with_name(f".{key}.{uuid.uuid4().hex}")
                partial.parent.mkdir(parents=True, exist_ok=True)
                fs.put_file(str(local), str(partial))
                partial.replace(path)

    def _entry(self, key: str) -> str:
        return f"{self._uri}/{key}.zip"


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
