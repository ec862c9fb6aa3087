"""The object store of Kubeflow Pipelines, from this machine: buckets, and the data of projects."""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path

import fsspec
from fsspec.spec import AbstractFileSystem

from components import spans, storage
from components.errors import UnavailableError
from pipelines.project import LoadedProject

MODELS, DATA = "models", "data"
"""The buckets of the suite."""
REGION = "us-east-1"  # any: the store has none

_PAUSE_SECONDS = 1.0
_PLACEHOLDER = re.compile(r"[*?\[{]")


@dataclass(frozen=True)
class Store:
    """An S3 store, and who asks."""

    endpoint: str
    key: str
    secret: str

    @property
    def variables(self) -> dict[str, str]:
        """The environment in which every S3 client reaches it."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": REGION,
        }

    def make_buckets(self, seconds: float, say: Callable[[str], None]) -> None:
        """Makes the suite's buckets, as soon as the store answers.

        Raises:
            UnavailableError: it does not, in time.
        """
        end = time.monotonic() + seconds
        for bucket in (MODELS, DATA):
            while True:
                try:
                    if not self._fs.exists(bucket):
                        self._fs.mkdir(bucket)
                    break
                except Exception as error:  # the client's errors have no class in common
                    if time.monotonic() > end:
                        raise UnavailableError(f"the object store at {self.endpoint}: {error}") from error
                say(f"waiting for {self.endpoint}")
                time.sleep(_PAUSE_SECONDS)

    def put(self, project: LoadedProject, say: Callable[[str], None]) -> str:
        """Copies a project's files, those that are not there yet, and gives the source that has them.

        Raises:
            DataRejectedError: there are no files.
            UnavailableError: the store does not take them.
        """
        source = project.resolve(project.settings.data.source)
        if storage.is_remote(source):
            return source
        root = _fixed_folder(source)
        target = f"{DATA}/{project.settings.name}"
        files = spans.resolve(source, "all")
        with storage.reaching(self.endpoint):
            for number, file in enumerate(files, 1):
                say(f"{number} of {len(files)} files")
                self._put_file(Path(file.uri), f"{target}/{os.path.relpath(file.uri, root)}")
        return f"s3://{target}/{os.path.relpath(source, root)}"

    def _put_file(self, file: Path, target: str) -> None:
        here = file.stat()
        if self._fs.exists(target):
            there = self._fs.info(target)
            if there["size"] == here.st_size and there["LastModified"].timestamp() >= here.st_mtime:
                return
        self._fs.put_file(str(file), target)

    @cached_property
    def _fs(self) -> AbstractFileSystem:
        # Without a region, which s3fs would make a bucket's location constraint.
        client = {"endpoint_url": self.endpoint}
        return fsspec.filesystem("s3", key=self.key, secret=self.secret, client_kwargs=client, use_listings_cache=False)


def _fixed_folder(source: str) -> Path:
    """Gives the folder under which all files of a pattern lie."""
    return Path(*takewhile(lambda part: not _PLACEHOLDER.search(part), Path(source).parent.parts))
