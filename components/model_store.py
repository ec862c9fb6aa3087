"""The model store: immutable versions of a model, and which of them is in production.

    <store>/<name>/versions/v0007.json             the card; the version counts from when this file exists
    <store>/<name>/versions/v0007-1a2b3c4d/        the version's files: model/, schema.pbtxt, statistics/, …
    <store>/<name>/promotions/000012.json          the newest one names the version in production
    <store>/<name>/retired/v0003.json              the version's files are gone, or will be; its card stays

Cards and promotions are logs. A writer reads all entries, decides, and creates the next one with a request that
fails when somebody else was faster; then it reads on and decides again. So no entry is lost, numbers have no gaps,
and two publishers of one model cannot both miss each other. A folder without a card (a publisher was killed) is
seen by nobody and removed by the next publisher.
"""

import contextlib
import fcntl
import hashlib
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from components import storage
from components.artifacts import whole, write_whole
from components.errors import InputError
from components.json_files import Record, parse_record
from components.model_card import Change, ModelCard, ModelFacts, changes, to_markdown

MODEL = "model"
SCHEMA = "schema.pbtxt"
STATISTICS = "statistics"
EVALUATION = "evaluation.json"
CARD = "card.json"
CARD_TEXT = "card.md"

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
_CARD_FILE = re.compile(r"v(\d{4,})\.json")
_FOLDER = re.compile(r"v(\d{4,})-[0-9a-f]{8}")
_PROMOTION_FILE = re.compile(r"(\d{6,})\.json")
_RETIREMENT_FILE = re.compile(r"v\d{4,}\.json")


class Promotion(BaseModel):
    """One entry of the log that says what is in production."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    action: Literal["publish", "promote", "rollback"]
    at: AwareDatetime


class Retirement(BaseModel):
    """Says that a version's files are gone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    at: AwareDatetime


@dataclass(frozen=True)
class Published:
    """A version in the store."""

    uri: str
    version: str
    new: bool
    """False: the same model was there already."""


class ModelStore:
    """The versions of one model, in a folder on the local disk, gs:// or s3://.

    Every method raises:
        InputError: the store may not be used (path, permission), holds something else, or has no such version.
        UnavailableError: the storage does not answer or is full.
    """

    def __init__(self, uri: str, name: str) -> None:
        """Names a store and a model in it; neither needs to exist.

        Raises:
            InputError: the name or the URI's scheme is not allowed.
        """
        if not _NAME.fullmatch(name):
            raise InputError(f"model name '{name}': use up to 40 lower-case letters, digits and dashes, a letter first")
        self.name = name
        self._fs, root = storage.filesystem(uri)
        self._local = not storage.is_remote(uri)
        self.uri = root if self._local else uri.rstrip("/")
        self._root = f"{root.rstrip('/')}/{name}"
        self._versions = f"{self._root}/versions"
        self._promotions = f"{self._root}/promotions"
        self._retired = f"{self._root}/retired"

    def uri_of(self, version: str) -> str:
        """Gives the URI of a version's folder."""
        return f"{self.uri}/{self.name}/versions/{version}"

    # -------------------------------------------------------------------------------------------- reading

    def cards(self) -> list[ModelCard]:
        """Reads the cards of all versions, oldest first."""
        entries = self._entries(self._versions, _CARD_FILE)
        return [_parse(ModelCard, content, f"{self._versions}/{file}") for file, content in entries.items()]

    def versions(self) -> list[str]:
        """Lists the versions, oldest first."""
        return [card.version for card in self.cards()]

    def card(self, version: str) -> ModelCard:
        """Reads the card of a version, given as `v0007-1a2b3c4d`, `v0007`, `7` or `latest`."""
        cards = self.cards()
        wanted = self.latest() if version == "latest" else version
        number = re.fullmatch(r"v?0*(\d+)", wanted or "")
        for card in cards:
            if card.version == wanted or (number and _number(card.version) == int(number[1])):
                return card
        has = ", ".join(card.version for card in cards[-5:]) or "none"
        raise InputError(f"model '{self.name}' in '{self.uri}' has no version '{version}'; the newest are: {has}")

    def promotions(self) -> list[Promotion]:
        """Reads what was put into production, oldest first."""
        entries = self._entries(self._promotions, _PROMOTION_FILE)
        return [_parse(Promotion, content, f"{self._promotions}/{file}") for file, content in entries.items()]

    def retired(self) -> dict[str, Retirement]:
        """Reads which versions have no files any more, by version, oldest first."""
        entries = self._entries(self._retired, _RETIREMENT_FILE)
        found = [_parse(Retirement, content, f"{self._retired}/{file}") for file, content in entries.items()]
        return {one.version: one for one in found}

    def protected(self) -> list[str]:
        """Names the versions that stay whatever happens: the one in production, then the one that a rollback takes."""
        return _succession(self.promotions())[:-3:-1]

    def latest(self) -> str | None:
        """Names the version in production; None before the first."""
        with self._reaching():
            newest = self._list(self._promotions, _PROMOTION_FILE)[-1:]
            entries = self._read(self._promotions, newest)
        return next((_parse(Promotion, content, file).version for file, content in entries.items()), None)

    def diff(self, before: str, after: str) -> list[Change]:
        """Lists what differs between two versions: metrics, slices, checks, data, schema, config, code, model."""
        return changes(self.card(before), self.card(after))

    def download(self, version: str, target: Path) -> ModelCard:
        """Copies a version's files into a new folder and checks them against the card.

        Raises:
            InputError: the folder exists, a file is damaged, or the version was retired.
        """
        card = self.card(version)
        self._require_files(card.version)
        if target.exists():
            raise InputError(f"'{target}' exists; name a new folder")
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
        sources = [f"{self._versions}/{card.version}/{file}" for file in card.files]
        targets = [partial / file for file in card.files]
        try:
            for path in targets:
                path.parent.mkdir(parents=True, exist_ok=True)
            with self._reaching():
                self._fs.get(sources, [str(path) for path in targets])
            damaged = [
                file for file, path in zip(card.files, targets, strict=True) if _sha256(path) != card.files[file]
            ]
            if damaged:
                raise InputError(f"'{self.uri_of(card.version)}/{damaged[0]}' is damaged: its digest is not the card's")
            (partial / CARD).write_text(card.model_dump_json(indent=1), encoding="utf-8")
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return card

    # -------------------------------------------------------------------------------------------- writing

    def publish(self, files: Mapping[str, Path], facts: ModelFacts) -> Published:
        """Adds a version and puts it into production, unless the same model is there already.

        A model that is there already stays what it is: a version that was rolled back is not put into production
        again. But what a killed publisher left undone is done.

        Args:
            files: by path in the version's folder.
            facts: for the card.
        """
        digests = {path: _sha256(source) for path, source in sorted(files.items())}
        with self._reaching(), self._alone():
            card = self._find(facts.model_digest)
            new = card is None
            while card is None:
                card = self._try_publish(files, digests, facts)
            self._finish(card)
        return Published(uri=self.uri_of(card.version), version=card.version, new=new)

    def promote(self, version: str) -> Promotion:
        """Puts a version into production.

        Raises:
            InputError: it was retired.
        """
        chosen = self.card(version).version
        return self._append(lambda promotions: _promotion(chosen, "promote"))

    def retire(self, version: str) -> Retirement:
        """Removes a version's files; its card stays, so that lineage does.

        Raises:
            InputError: it is in production, or was before the one that is.
        """
        chosen = self.card(version).version
        entry = f"{self._retired}/{_without_digest(chosen)}.json"
        with self._reaching(), self._alone():
            self._require_unprotected(chosen)
            done = self.retired().get(chosen)
            retirement = done or Retirement(version=chosen, at=datetime.now(UTC))
            if not done:
                self._put(entry, retirement.model_dump_json().encode())
            try:
                # Somebody may have promoted it before the entry was there; from then on nobody can.
                self._require_unprotected(chosen)
            except InputError:
                self._fs.rm(entry)
                raise
            self._remove(chosen)
        return retirement

    def rollback(self, to: str | None = None) -> Promotion:
        """Puts an earlier version back into production.

        Args:
            to: which one; None: the one before the version in production. Twice goes back two.

        Raises:
            InputError: there is none.
        """
        chosen = None if to is None else self.card(to).version

        def decide(promotions: list[Promotion]) -> Promotion:
            line = _succession(promotions)
            if chosen is None and len(line) < 2:
                has = f"nothing was before '{line[0]}'" if line else "nothing was ever"
                raise InputError(f"model '{self.name}': {has} in production; name the version with --to")
            return _promotion(chosen or line[-2], "rollback")

        return self._append(decide)

    def _try_publish(self, files: Mapping[str, Path], digests: dict[str, str], facts: ModelFacts) -> ModelCard | None:
        """Takes the next number; None when somebody else has taken it meanwhile."""
        cards, retired = self.cards(), self.retired()
        for card in cards:
            if card.model_digest == facts.model_digest and card.version not in retired:
                return card
        number = _number(cards[-1].version) + 1 if cards else 1
        version = f"v{number:04d}-{_digest_of(digests)[:8]}"
        card = ModelCard(**dict(facts), name=self.name, version=version, created=datetime.now(UTC), files=digests)
        self._upload(files, f"{self._versions}/{version}")
        entry = f"{self._versions}/v{number:04d}.json"
        return card if storage.create(self._fs, entry, card.model_dump_json(indent=1).encode()) else None

    def _find(self, model_digest: str) -> ModelCard | None:
        retired = self.retired()
        found = (card for card in self.cards() if card.model_digest == model_digest)
        return next((card for card in found if card.version not in retired), None)

    def _finish(self, card: ModelCard) -> None:
        """Does what follows once a card exists; doing it again changes nothing."""
        folder = f"{self._versions}/{card.version}"
        if not self._fs.exists(f"{folder}/{CARD_TEXT}"):
            self._put(f"{folder}/{CARD}", card.model_dump_json(indent=1).encode())
            self._put(f"{folder}/{CARD_TEXT}", to_markdown(card).encode())
        self._sweep()

        def decide(promotions: list[Promotion]) -> Promotion | None:
            # A newer version, even one that was rolled back since, has overtaken this one.
            overtaken = any(_number(p.version) >= _number(card.version) for p in promotions)
            return None if overtaken else _promotion(card.version, "publish")

        self._append_if(decide)

    def _append(self, decide: Callable[[list[Promotion]], Promotion]) -> Promotion:
        with self._reaching(), self._alone():
            appended = self._append_if(lambda promotions: self._with_files(decide(promotions)))
            assert appended is not None
            try:
                self._require_files(appended.version)
            except InputError:
                # Who retires a version looks for promotions after its entry: one of both sees the other.
                self._append_if(lambda promotions: _promotion(_before(promotions, appended.version), "rollback"))
                raise
            return appended

    def _append_if(self, decide: Callable[[list[Promotion]], Promotion | None]) -> Promotion | None:
        """Appends what `decide` makes of the log, again and again until nobody was faster; None: nothing to append."""
        while True:
            entries = self._entries(self._promotions, _PROMOTION_FILE)
            promotion = decide([_parse(Promotion, content, file) for file, content in entries.items()])
            if promotion is None:
                return None
            number = int(next(reversed(entries)).removesuffix(".json")) + 1 if entries else 1
            entry = f"{self._promotions}/{number:06d}.json"
            if storage.create(self._fs, entry, promotion.model_dump_json().encode()):
                return promotion

    # -------------------------------------------------------------------------------------------- storage

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        with storage.reaching(f"{self.uri}/{self.name}"):
            yield

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Lets writers on one machine take turns, which spares them work; the logs are safe without it."""
        if not self._local:
            yield
            return
        Path(self._root).mkdir(parents=True, exist_ok=True)
        with Path(self._root, ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _list(self, folder: str, pattern: re.Pattern[str]) -> list[str]:
        """Lists the names in a folder that match, in order; none when it is not there."""
        try:
            names = [path.rstrip("/").rpartition("/")[2] for path in self._fs.ls(folder, detail=False)]
        except FileNotFoundError:
            return []
        return sorted((name for name in names if pattern.fullmatch(name)), key=lambda name: (len(name), name))

    def _read(self, folder: str, files: list[str]) -> dict[str, bytes]:
        paths = [f"{folder}/{file}" for file in files]
        return dict(zip(files, self._fs.cat_ranges(paths, None, None, on_error="raise"), strict=True)) if files else {}

    def _entries(self, folder: str, pattern: re.Pattern[str]) -> dict[str, bytes]:
        """Reads a log: the content of its files, by name, oldest first."""
        with self._reaching():
            return self._read(folder, self._list(folder, pattern))

    def _put(self, path: str, content: bytes) -> None:
        """Writes a file in place of any other; a reader sees the old or the new."""
        if not self._local:
            self._fs.pipe_file(path, content)
            return
        write_whole(path, content)

    def _upload(self, files: Mapping[str, Path], folder: str) -> None:
        """Writes a version's folder; one on the local disk appears whole."""
        if not self._local:
            self._fs.put([str(source) for source in files.values()], [f"{folder}/{path}" for path in files])
            return
        with whole(folder) as partial:
            for path, source in files.items():
                target = partial / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    def _sweep(self) -> None:
        """Removes folders that have no card and can get none any more, because their number is taken."""
        versions, retired = self.versions(), self.retired()
        for folder in self._list(self._versions, _FOLDER):
            if folder in retired or (folder not in versions and _number(folder) <= _number(versions[-1])):
                self._remove(folder)
        if self._local:  # nobody else writes: see _alone
            for partial in Path(self._root).glob("*/.*.partial"):
                shutil.rmtree(partial) if partial.is_dir() else partial.unlink()

    def _remove(self, folder: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # somebody else removes it, too
            self._fs.rm(f"{self._versions}/{folder}", recursive=True)

    def _with_files(self, promotion: Promotion) -> Promotion:
        self._require_files(promotion.version)
        return promotion

    def _require_files(self, version: str) -> None:
        if retirement := self.retired().get(version):
            raise InputError(
                f"model '{self.name}': {version} was retired on {retirement.at:%Y-%m-%d}, and its files are gone; name "
                "another version, or train it again"
            )

    def _require_unprotected(self, version: str) -> None:
        protected = self.protected()
        if version in protected:
            why = "is in production" if version == protected[0] else f"was in production before {protected[0]}"
            raise InputError(f"model '{self.name}': {version} {why}, and stays; promote another version first")


def _before(promotions: list[Promotion], version: str) -> str:
    """Gives what was in production before a version."""
    return next(one.version for one in reversed(promotions) if one.version != version)


def _without_digest(version: str) -> str:
    return version.partition("-")[0]


def _parse(model: type[Record], content: bytes, path: str) -> Record:
    return parse_record(model, content, path, "restore the file from a copy")


def _promotion(version: str, action: Literal["publish", "promote", "rollback"]) -> Promotion:
    return Promotion(version=version, action=action, at=datetime.now(UTC))


def _succession(promotions: list[Promotion]) -> list[str]:
    """Lists the versions that rolling back leads through; the last one is in production."""
    line: list[str] = []
    for promotion in promotions:
        if promotion.action == "rollback" and promotion.version in line:
            while line[-1] != promotion.version:
                line.pop()
        elif line[-1:] != [promotion.version]:
            line.append(promotion.version)
    return line


def _number(version: str) -> int:
    """Gives the number of a version or of its folder, e.g. 7 of v0007-1a2b3c4d."""
    match = re.match(r"v(\d+)", version)
    assert match is not None
    return int(match[1])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(digests: Mapping[str, str]) -> str:
    return hashlib.sha256("".join(f"{path} {digest}\n" for path, digest in digests.items()).encode()).hexdigest()
