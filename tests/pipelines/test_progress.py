"""What a run looks like on a terminal and in a pipe. Needs: the authoring environment."""

import io
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from components.run_records import StageRecord
from pipelines.progress import Progress

LABELS = {"validate-data": "validate-data", "predict-batch": "predict (production)", "publish-model": "publish-model"}
LONG = "/a/path/that/is/longer/than/any/terminal/" + "x" * 200


def record(task: str, state: Any, **values: Any) -> StageRecord:
    return StageRecord(task=task, stage=task, state=state, started=datetime.now(UTC), wall_seconds=5.44, **values)


def shown(console: Console, *records: StageRecord) -> list[str]:
    """Gives the lines of the last picture on a terminal, or what a pipe got."""
    assert isinstance(console.file, io.StringIO)
    progress = Progress(console)
    progress.planned(LABELS)
    for one in records:
        progress.changed(one)
    if console.is_terminal:
        console.print(progress)
    return console.file.getvalue().splitlines()


def terminal(width: int) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=24, color_system=None)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_long_note_is_cut_and_no_name_is(width: int) -> None:
    done = [
        record("validate-data", "succeeded", parameters={"reason": "0 anomalies, " * 20}),
        record("predict-batch", "failed", error="[no] markup " + LONG),
        record("publish-model", "succeeded", parameters={"uri": LONG}),
    ]
    lines = shown(terminal(width), *done)
    assert len(lines) == 3
    assert all(len(line) <= width - 3 for line in lines)  # ^C fits in
    assert lines == [line.ljust(width - 3) for line in lines]
    assert [line[2:22].strip() for line in lines] == list(LABELS.values())
    assert all(line.rstrip().endswith("…") for line in lines)
    assert "5.4 s" in lines[0]
    assert "[no] m" in lines[1]


def test_a_running_stage_shows_the_last_line_that_is_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    running = record("validate-data", "running", log=str(log))
    assert "starting" in shown(terminal(80), running)[0]
    log.write_text("train_model: epoch 3 of 20\nWARNING:tensorflow:noise\n[KFP Executor] noise\n{\n")
    assert "train_model: epoch 3 of 20" in shown(terminal(80), running)[0]


def test_a_pipe_gets_whole_plain_lines() -> None:
    lines = shown(
        Console(file=io.StringIO(), width=80),
        record("validate-data", "running"),
        record("validate-data", "succeeded", parameters={"reason": f"[bold]{LONG}"}),
        record("predict-batch", "skipped"),
        record("train-model", "failed", error="train_model: fix your input: nothing to train on"),
        record("publish-model", "skipped"),
    )
    assert lines == [
        f"✓ validate-data           5.4 s  [bold]{LONG}",
        "- predict (production)           its condition is not met",
        "✗ train-model             5.4 s  train_model: fix your input: nothing to train on",
        "- publish-model",
    ]


@pytest.mark.parametrize("console", [terminal(80), Console(file=io.StringIO(), width=80)], ids=["terminal", "pipe"])
def test_an_interrupt_leaves_what_was_done_and_says_how_to_go_on(console: Console) -> None:
    assert isinstance(console.file, io.StringIO)
    progress = Progress(console)

    def interrupted() -> None:
        with progress:
            progress.planned(LABELS)
            progress.changed(record("validate-data", "succeeded"))
            progress.changed(record("predict-batch", "running"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    lines = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", console.file.getvalue()).splitlines()
    assert lines[-1] == "stopped; start the same run again, finished stages are reused"
    if console.is_terminal:
        assert [line.split()[0] for line in lines[-4:-2]] == ["✓", "✗"]
        assert lines[-3].rstrip().endswith("stopped")
