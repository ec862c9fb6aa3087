"""Which model decides: the version in production, or one that stays, of the model store.

A new version is fetched, loaded and warmed up in a thread of its own, while the old one decides.
"""

import logging
import shutil
import threading
from pathlib import Path

from components.errors import InputError, LockgateError, UnavailableError
from components.model_store import ModelStore
from components.predictor.served_model import read_facts
from components.settings import Stream
from components.stream.scoring import LocalScorer, Scorer

LATEST = "latest"

_logger = logging.getLogger("lockgate")


class StoredModels:
    """The versions of one model, for one stream."""

    def __init__(self, store: ModelStore, stream: Stream, folder: Path, threads: int) -> None:
        """Names them; loads nothing.

        Args:
            store: where they are.
            stream: says which version.
            folder: where those of a bucket are kept while they are used.
            threads: inside one operation of TensorFlow.
        """
        self._store = store
        self._stream = stream
        self._folder = folder
        self._threads = threads
        self._refused: set[str] = set()
        self._next: LocalScorer | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch-models", daemon=True)
        self._current = ""
        self.failures = 0
        """Versions so far that could not be loaded, and polls that met no store."""

    def load(self) -> LocalScorer:
        """Loads the version that decides first, and watches for others.

        Raises:
            InputError: there is none, or it is damaged.
            UnavailableError: the store does not answer.
        """
        version = self._wanted()
        if version is None:
            raise InputError(
                f"model '{self._store.name}' in '{self._store.uri}' has no version in production; run the training "
                "pipeline, or promote one"
            )
        scorer = self._load(version)
        self._current = version
        if self._stream.version == LATEST:
            self._thread.start()
        return scorer

    def take(self) -> Scorer | None:
        """Gives a version that is ready to take over, once."""
        scorer, self._next = self._next, None
        return scorer

    def close(self) -> None:
        """Stops watching."""
        self._over.set()

    def _wanted(self) -> str | None:
        if self._stream.version == LATEST:
            return self._store.latest()
        return self._store.card(self._stream.version).version

    def _watch(self) -> None:
        while not self._over.wait(self._stream.store_poll_seconds):
            try:
                version = self._wanted()
            except LockgateError as error:
                self.failures += 1
                _logger.warning("%s; asking again in %g s", error, self._stream.store_poll_seconds)
                continue
            if version is not None and version != self._current and version not in self._refused:
                self._replace(version)

    def _replace(self, version: str) -> None:
        _logger.info("version %s is in production now; it is loaded", version)
        try:
            self._next = self._load(version)
        except UnavailableError as error:
            self.failures += 1
            _logger.warning("%s; asking again in %g s", error, self._stream.store_poll_seconds)
        except Exception as error:  # whatever is wrong with it, the stream goes on with the model that it has
            self.failures += 1
            self._refused.add(version)
            says = error if isinstance(error, LockgateError) else f"{type(error).__name__}: {error}"
            _logger.error("version %s does not take over, %s goes on: %s", version, self._current, says)
        else:
            old, self._current = self._current, version
            shutil.rmtree(self._folder / old, ignore_errors=True)

    def _load(self, version: str) -> LocalScorer:
        place = Path(self._store.uri_of(version))
        if not place.is_dir():
            place = self._folder / version
            if not place.is_dir():
                self._store.download(version, place)
        return LocalScorer(read_facts(str(place)), self._threads, self._stream.reasons)
