"""Why a request is not answered with a prediction."""

import reprlib
from collections.abc import Iterable
from difflib import get_close_matches

NOTHING_IS_LOADED = "this server has one model, for as long as it runs: nothing is loaded or unloaded"


class RequestError(Exception):
    """The client's fault, or a lack of room; the message names row, feature, value and what would be right."""

    def __init__(self, message: str, status: int = 400, retry_after: int | None = None) -> None:
        """Args: status: of HTTP. retry_after: seconds."""
        super().__init__(" ".join(message.splitlines()))  # names of features and models may hold anything
        self.status = status
        self.retry_after = retry_after


class RowError(RequestError):
    """One row's fault."""

    def __init__(self, row: int, says: str) -> None:
        """Args: row: its index. says: what is wrong with it, without saying which it is."""
        super().__init__(f"row {row}{', ' if says.startswith('feature ') else ': '}{says}")
        self.row = row
        self.says = " ".join(says.splitlines())


def overloaded(what: str) -> RequestError:
    """The answer when there is no room for a request."""
    return RequestError(f"overloaded: {what}; try again in a second, or add replicas", 503, retry_after=1)


def no_version(name: str, version: str, served: str) -> str:
    """Says that the model is served in another version."""
    return f"model '{name}' has no version '{version[:60]}' here, but '{served}'"


def hint(name: str, known: Iterable[str]) -> str:
    """Names what was probably meant, or all that there is."""
    names = list(known)
    close = get_close_matches(name, names, 1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    shown = ", ".join(names[:40])
    return f"there are: {shown}{' …' if len(names) > 40 else ''}"


_MOST_SHOWN = 60
_SHORT = reprlib.Repr()
_SHORT.maxlevel = _SHORT.maxlist = _SHORT.maxdict = _SHORT.maxstring = _SHORT.maxlong = 2 * _MOST_SHOWN


def shown(value: object) -> str:
    """Gives a value for a message, in JSON's spelling and cut short, however long or deep it is."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value[: _MOST_SHOWN + 1]) if isinstance(value, str | bytes) else _SHORT.repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
