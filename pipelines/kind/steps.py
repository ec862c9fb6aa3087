"""Shows how work goes on, a line a step."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

_NAME_WIDTH = 20


@dataclass
class Step:
    """What one step tells."""

    say: Callable[[str], None]
    """While it runs."""
    note: str = ""
    """At its end."""


class Steps:
    """Steps on a console: a spinner while one runs, where it is a terminal, and a line when it ends."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def warn(self, text: str) -> None:
        """Tells something that stops nobody."""
        self._console.print(Text.assemble(("!", "yellow"), f" {text}"), soft_wrap=True)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Shows a step while the block runs."""
        started, doing = time.monotonic(), ""
        with self._console.status(Text(name)) as status:

            def say(text: str) -> None:
                nonlocal doing
                doing = text
                status.update(Text(f"{name:<{_NAME_WIDTH}} {text}", overflow="ellipsis", no_wrap=True))

            step = Step(say)
            try:
                yield step
            except BaseException:
                self._print("✗", "red", name, started, doing)
                raise
        self._print("✓", "green", name, started, step.note)

    def _print(self, mark: str, style: str, name: str, started: float, note: str) -> None:
        line = Text.assemble(
            (mark, style), f" {name:<{_NAME_WIDTH}} {time.monotonic() - started:6.1f} s  ", (note, "dim")
        )
        line.rstrip()
        self._console.print(line, soft_wrap=True)
