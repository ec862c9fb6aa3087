"""A line a step."""

import io
import re

import pytest
from rich.console import Console

from pipelines.kind.kubectl import cause_in
from pipelines.kind.steps import Steps


def shown(terminal: bool, fails: bool) -> str:
    file = io.StringIO()
    steps = Steps(Console(file=file, force_terminal=terminal, highlight=False, width=60))
    try:
        with steps.step("model store") as step:
            step.say("waiting for http://127.0.0.1:9000")
            if fails:
                raise RuntimeError
            step.note = "s3://[models]"
    except RuntimeError:
        pass
    return file.getvalue()


def test_a_step_leaves_one_line_where_there_is_no_terminal() -> None:
    assert re.fullmatch(r"✓ model store +0\.\d s  s3://\[models\]\n", shown(terminal=False, fails=False))


def test_a_step_that_fails_says_what_it_was_at() -> None:
    assert re.fullmatch(r"✗ model store +0\.\d s  waiting for http://127\.0\.0\.1:9000\n", shown(False, fails=True))


def test_a_terminal_gets_the_same_line_at_the_end() -> None:
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown(terminal=True, fails=False))
    assert re.search(r"✓ model store +0\.\d s  s3://\[models\]\n", text)


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (
            "I1128 started\nF1128 12:40:17.0 1 config.go:88] Please specify flag\n\ngoroutine 112:\n main.go:371\n",
            "F1128",
        ),
        ('{"level":"info"}\n{"level":"error","error":"ingressGateway is required"}\nbye\n', '{"level":"error"'),
        ("panic: nil map\n\ngoroutine 1:\n", "panic: nil map"),
        ("one\ntwo\n", "two"),
        ("\n", ""),
    ],
)
def test_the_cause_of_a_crash_is_the_fatal_line(log: str, cause: str) -> None:
    assert cause_in(log).startswith(cause)
    assert bool(cause_in(log)) is bool(cause)
