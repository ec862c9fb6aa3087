"""Shows how a run goes: a live line a stage on a terminal, a plain line a finished stage elsewhere."""

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from components.run_records import StageRecord
from pipelines.execution import KFP_LINES

_MARKS = {"succeeded": ("✓", "green"), "cached": ("=", "cyan"), "failed": ("✗", "red"), "skipped": ("-", "dim")}
_TAIL_BYTES = 2000
# Columns left free on the right: the terminal writes ^C after the last line, and a line more would break the picture.
_MARGIN = 3
_TIME_WIDTH = 8
# How lines begin that a task did not print for people.
_NOISE = (*KFP_LINES, "WARNING:", "I0000", "W0000", "E0000")


class Progress:
    """A run's progress on a console (stderr by default, so that stdout holds results only)."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._labels: dict[str, str] = {}
        self._records: dict[str, StageRecord] = {}
        self._since: dict[str, float] = {}
        self._live = Live(self, console=self._console, refresh_per_second=8, transient=False)
        self._spinner = Spinner("dots")
        self._stopped = False

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = kind is not None
        if self._console.is_terminal:
            self._live.stop()
        if kind is KeyboardInterrupt:
            self._console.print("stopped; start the same run again, finished stages are reused", soft_wrap=True)

    def planned(self, tasks: Mapping[str, str]) -> None:
        """Notes the tasks of the run, in order: name to display name."""
        self._labels = dict(tasks)

    def changed(self, record: StageRecord) -> None:
        """Notes that a task started or ended."""
        self._records[record.task] = record
        if record.state == "running":
            self._since.setdefault(record.task, time.monotonic())
        elif not self._console.is_terminal:
            mark, _ = _MARKS[record.state]
            self._console.print(
                f"{mark} {self._label(record.task):<{self._name_width()}} {_duration(record):>{_TIME_WIDTH}}"
                f"  {self._note(record)}".rstrip(),
                soft_wrap=True,
                markup=False,
            )

    def _label(self, task: str) -> str:
        return self._labels.get(task, task)

    def _name_width(self) -> int:
        return max(map(len, self._labels.values()), default=0)

    def _note(self, record: StageRecord) -> str:
        """Gives what a reader wants to know of a task that is over."""
        if record.state == "skipped" and not any(one.state == "failed" for one in self._records.values()):
            return "its condition is not met"
        return record.error or str(record.parameters.get("reason") or record.parameters.get("uri") or "")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # Fixed widths: else a note that cannot be wrapped takes the room of the names.
        table = Table.grid(padding=(0, 1), expand=True)
        table.width = options.max_width - _MARGIN
        table.add_column(width=1)
        table.add_column(width=min(self._name_width(), options.max_width // 2), no_wrap=True, overflow="ellipsis")
        table.add_column(width=_TIME_WIDTH, justify="right", no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for task, label in self._labels.items():
            record = self._records.get(task)
            if record is None:
                table.add_row(" ", Text(label, style="dim"))
            elif record.state == "running":
                elapsed = f"{time.monotonic() - self._since[task]:.1f} s"
                if self._stopped:
                    table.add_row(Text("✗", style="red"), Text(label), elapsed, Text("stopped", style="red"))
                else:
                    table.add_row(self._spinner, Text(label), elapsed, Text(_last_line(record), style="dim"))
            else:
                mark, style = _MARKS[record.state]
                table.add_row(
                    Text(mark, style=style),
                    Text(label),
                    _duration(record),
                    Text(self._note(record), style=style if record.state == "failed" else "dim"),
                )
        yield table


def _duration(record: StageRecord) -> str:
    if record.state == "skipped":
        return ""
    return "cached" if record.state == "cached" else f"{record.wall_seconds:.1f} s"


def _last_line(record: StageRecord) -> str:
    """Gives the last line that a running task has printed of its own."""
    log = Path(record.log)
    if not record.log or not log.is_file():
        return "starting"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines()]
    return next((line for line in reversed(lines) if line and not line.startswith(_NOISE)), "")
