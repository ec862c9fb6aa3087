"""A part of a selection: which of its trials run here, where others run elsewhere."""

import re
from dataclasses import dataclass

from components.errors import InputError
from components.settings import Tuning

_FORM = re.compile(r"([1-9][0-9]*)/([1-9][0-9]*)")


@dataclass(frozen=True)
class Part:
    """Every `of`-th trial, from the `number`-th; trials are numbered from 1, candidates first."""

    number: int = 1
    of: int = 1

    def __contains__(self, trial: int) -> bool:
        return (trial - self.number) % self.of == 0

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def is_all(self) -> bool:
        """Whether no trial runs elsewhere."""
        return self.of == 1


def parse_part(text: str, tuning: Tuning, studies: str) -> Part:
    """Reads a part such as 2/4; an empty text is the whole.

    Raises:
        InputError: it is none, or trials that run here could not be drawn or found elsewhere.
    """
    if not text:
        return Part()
    match = _FORM.fullmatch(text)
    if not match or int(match[1]) > int(match[2]):
        raise InputError(f"part is '{text}'; write which one of how many, e.g. 2/4")
    if not studies:
        raise InputError(f"part is {text}, but studies is empty: give the URI under which all parts keep their trials")
    if tuning.trials and tuning.sampler != "random":
        raise InputError(
            f"part is {text}, but tuning.sampler is {tuning.sampler}, which learns from trials that may run "
            "elsewhere; set it to random"
        )
    return Part(int(match[1]), int(match[2]))
