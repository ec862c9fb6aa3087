"""What was done about verdicts: each thing once for the same evidence, however often and concurrently it is asked for.

<history>/<project>/responses/<evidence>/<what>.claim-1.json     somebody does it
<history>/<project>/responses/<evidence>/<what>.done.json        it is done, and what came of it

Who creates the claim does the thing; others wait for the end. A claim that has no end after a while is of somebody who
was killed: the next one takes the next number, asks whether the thing was done all the same, and else does it.
"""

import contextlib
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict

from components import storage
from components.errors import LockgateError, UnavailableError
from components.json_files import parse_record

FOLDER = "responses"
ABANDONED_SECONDS = 180.0
"""A claim without an end that is so old is nobody's any more."""
ACTING_SECONDS = 90.0
"""So long after its claim may somebody begin what others must not do as well; clocks may differ by the rest."""
_POLL_SECONDS = 2.0
_CLAIM = re.compile(r"(.+)\.claim-(\d+)\.json")
_REMEDY = "remove the file, then run monitoring again"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Claim(_Record):
    """Somebody's word that they do it."""

    holder: str
    at: AwareDatetime


class Done(_Record):
    """What came of it."""

    result: str
    """E.g. the id of the run that was started."""
    detail: str = ""
    at: AwareDatetime


class StartedPerhapsError(UnavailableError):
    """It may be done or not: the claim stays, and the next one asks."""


@dataclass(frozen=True)
class Act:
    """Something to do once."""

    do: Callable[[Callable[[], None]], tuple[str, str]]
    """Does it, and gives result and detail. It calls what it is given right before what must not happen twice; that
    raises UnavailableError when it is too late."""
    find: Callable[[], tuple[str, str] | None] = lambda: None
    """Gives what came of it, where somebody has done it and could not say so."""


class Responses:
    """What was done about one verdict of a project.

    Every method raises:
        InputError: the storage refuses, or a file is damaged.
        UnavailableError: the storage does not answer or is full.
    """

    def __init__(self, history: str, project: str, evidence: str) -> None:
        """Names the place; it needs not exist.

        Args:
            history: URI, see `components.monitoring_history`.
            project: its name.
            evidence: names the verdict.
        """
        self._fs, root = storage.filesystem(history)
        self._folder = f"{root.rstrip('/')}/{project}/{FOLDER}/{evidence}"
        self.uri = f"{history.rstrip('/')}/{project}/{FOLDER}/{evidence}"

    def done(self, what: str) -> Done | None:
        """Tells what came of something; None: it is not done."""
        path = f"{self._folder}/{what}.done.json"
        with storage.reaching(self.uri):
            try:
                return parse_record(Done, self._fs.cat_file(path), path, _REMEDY)
            except FileNotFoundError:
                return None

    def once(self, what: str, act: Act, alone: bool = False) -> tuple[Done, bool]:
        """Does something unless it is done.

        Args:
            what: a name for it: letters, digits, dashes.
            act: what to do.
            alone: the caller holds a lock, so that claims without an end are of those who were killed.

        Returns:
            What came of it, and whether it was done here.
        """
        while True:
            if done := self.done(what):
                return done, False
            number, claim = self._newest(what)
            if claim and not alone and _age(claim) < ABANDONED_SECONDS:
                time.sleep(min(_POLL_SECONDS, ABANDONED_SECONDS))
                continue
            if mine := self._claim(what, number + 1):
                return self._act(what, act, mine)

    def _act(self, what: str, act: Act, claim: str) -> tuple[Done, bool]:
        end = time.monotonic() + ACTING_SECONDS

        def in_time() -> None:
            if time.monotonic() > end:
                raise UnavailableError(f"{what} took more than {ACTING_SECONDS:g} s to prepare; run monitoring again")

        try:
            found = act.find()
            result, detail = found or act.do(in_time)
        except StartedPerhapsError:
            raise
        except LockgateError:
            with contextlib.suppress(LockgateError, FileNotFoundError), storage.reaching(self.uri):
                self._fs.rm(claim)
            raise
        done = Done(result=result, detail=detail, at=datetime.now(UTC))
        path = f"{self._folder}/{what}.done.json"
        with storage.reaching(self.uri):
            if not storage.create(self._fs, path, done.model_dump_json().encode()):
                return parse_record(Done, self._fs.cat_file(path), path, _REMEDY), False
        return done, found is None

    def _claim(self, what: str, number: int) -> str:
        """Gives the path of the claim; empty: somebody else was faster."""
        path = f"{self._folder}/{what}.claim-{number}.json"
        claim = Claim(holder=uuid.uuid4().hex, at=datetime.now(UTC))
        with storage.reaching(self.uri):
            return path if storage.create(self._fs, path, claim.model_dump_json().encode()) else ""

    def _newest(self, what: str) -> tuple[int, Claim | None]:
        with storage.reaching(self.uri):
            try:
                names = [str(path).rpartition("/")[2] for path in self._fs.ls(self._folder, detail=False)]
            except FileNotFoundError:
                return 0, None
            matches = [match for match in map(_CLAIM.fullmatch, names) if match and match[1] == what]
            number = max((int(match[2]) for match in matches), default=0)
            path = f"{self._folder}/{what}.claim-{number}.json"
            try:
                return number, parse_record(Claim, self._fs.cat_file(path), path, _REMEDY) if number else None
            except FileNotFoundError:  # its holder has failed, and taken it back meanwhile
                return number - 1, None


def _age(claim: Claim) -> float:
    return (datetime.now(UTC) - claim.at).total_seconds()
