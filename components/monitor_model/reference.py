"""What is known of a published version: what its training data were like, and how good it was."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tensorflow_metadata.proto.v0 import schema_pb2

from components import storage
from components.artifacts import MODEL_SPEC
from components.errors import InputError
from components.json_files import parse_record
from components.model_card import ModelCard
from components.model_spec import ModelSpec
from components.model_store import MODEL, SCHEMA, STATISTICS, ModelStore, Promotion
from components.monitoring_record import Estimate
from components.profiles import FILE, Profile
from components.schema import parse_schema

_REMEDY = "publish the model again"


@dataclass(frozen=True)
class Reference:
    """A version that rows are held against."""

    uri: str
    card: ModelCard
    spec: ModelSpec
    schema: schema_pb2.Schema
    profile: Profile | None
    """Of the train split; None: published before there were profiles."""

    @property
    def version(self) -> str:
        """Its name in the store."""
        return self.card.version

    def quality(self, metric: str) -> Estimate:
        """Gives a metric at evaluation."""
        evaluation = self.card.evaluation
        low, high = evaluation.intervals.get(metric, (None, None))
        return Estimate(value=evaluation.metrics.get(metric), low=low, high=high)

    def slice_quality(self, name: str, metric: str) -> float | None:
        """Gives a metric of a slice at evaluation; None: unknown."""
        found = (one for one in self.card.evaluation.slices if one.name == name)
        return next((one.metrics.get(metric) for one in found), None)


class References:
    """The versions of one model."""

    def __init__(self, store: ModelStore) -> None:
        """Reads the cards.

        Raises:
            InputError: the store may not be read, or no version was ever published.
            UnavailableError: the storage does not answer.
        """
        self._store = store
        self._cards = {card.version: card for card in store.cards()}
        if not self._cards:
            raise InputError(f"model '{store.name}' in '{store.uri}' has no version; publish one, then monitor it")
        self._promotions = store.promotions()
        self._read: dict[str, Reference] = {}

    def __contains__(self, version: str) -> bool:
        return version in self._cards

    def newer(self, versions: Sequence[str]) -> str:
        """Gives the newest of some versions."""
        order = list(self._cards)
        return max(versions, key=order.index)

    def served_at(self, time: datetime) -> str:
        """Names the version that was in production at a time; before the first one, the first that was."""
        before = [one for one in self._promotions if one.at <= time]
        found: Sequence[Promotion] = before[-1:] or self._promotions[-1:]
        return found[0].version if found else next(reversed(self._cards))

    def get(self, version: str) -> Reference:
        """Reads all about a version, once."""
        if version not in self._read:
            self._read[version] = self._fetch(version)
        return self._read[version]

    def _fetch(self, version: str) -> Reference:
        uri = self._store.uri_of(version)
        card = self._cards[version]
        spec = _content(f"{uri}/{MODEL}/{MODEL_SPEC}")
        profile = f"{STATISTICS}/{FILE}"
        return Reference(
            uri=uri,
            card=card,
            spec=parse_record(ModelSpec, spec, f"{uri}/{MODEL}/{MODEL_SPEC}", _REMEDY),
            schema=parse_schema(_content(f"{uri}/{SCHEMA}").decode(errors="replace")),
            profile=parse_record(Profile, _content(f"{uri}/{profile}"), f"{uri}/{profile}", _REMEDY)
            if profile in card.files
            else None,
        )


def _content(uri: str) -> bytes:
    fs, path = storage.filesystem(uri)
    with storage.reaching(uri):
        return bytes(fs.cat_file(path))
