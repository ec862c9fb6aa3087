"""Whether new data is a reason to train again."""

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from components.errors import DataRejectedError
from components.spans import listing_digest, pinned_window, resolve
from pipelines.project import LoadedProject

_WILDCARD = re.compile(r"[*?\[{]")
_KEY_DIGITS = 16


class Action(StrEnum):
    """What to do about an event."""

    START = "start"
    WAIT = "wait"
    IGNORE = "ignore"


@dataclass(frozen=True)
class Decision:
    """What to do, and why."""

    action: Action
    reason: str
    """One line for people."""
    window: str = ""
    """The spans to train on, pinned."""
    key: str = ""
    """Names what would be trained on: the same for the same project, spans and content."""


def decide(project: LoadedProject, written: Collection[str] | None = None, marker: str = "") -> Decision:
    """Looks at the source, as it is now.

    Args:
        project: whose `data.source` and `data.window` count.
        written: URIs of objects that were written; None: whatever is there.
        marker: name of the object that is written last, when a span is whole; empty: any object of the source counts.

    Raises:
        InputError: the source or the window makes no sense, or the storage refuses.
        UnavailableError: the storage does not answer.
    """
    data = project.settings.data
    source = project.resolve(data.source)
    fixed = _WILDCARD.split(source)[0]
    if written is not None:
        written = [uri for uri in written if uri.startswith(fixed)]
        if marker:
            written = [uri for uri in written if PurePosixPath(uri).name == marker]
        if not written:
            what = f"a '{marker}' under '{fixed}'" if marker else f"under '{fixed}'"
            return Decision(Action.IGNORE, f"nothing was written that is {what}")
    try:
        files = resolve(source, data.window)
    except DataRejectedError as missing:
        return Decision(Action.WAIT, str(missing))
    window = pinned_window(files)
    if written is not None and not marker and not {file.uri for file in files}.intersection(written):
        return Decision(Action.IGNORE, f"'{next(iter(written))}' is none of the files of '{source}' in window {window}")
    content = f"{project.settings.name}\0{window}\0{listing_digest(files)}"
    key = hashlib.sha256(content.encode()).hexdigest()[:_KEY_DIGITS]
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    return Decision(Action.START, f"window {window} is complete: {count}", window, key)
