"""What a gate lets through. Needs: the venv twin of the base image."""

import pytest

from components.errors import DataRejectedError
from components.gate.verdict import require_pass
from components.stage import stage


def test_pass_goes_through(capsys: pytest.CaptureFixture[str]) -> None:
    require_pass("pass", "auc 0.7")
    assert capsys.readouterr().out == "auc 0.7\n"


@pytest.mark.parametrize("verdict", ["fail", "", "PASS", "pass ", "true", "\U0001f600"])
def test_nothing_else_does(verdict: str) -> None:
    with pytest.raises(DataRejectedError, match="too bad"):
        require_pass(verdict, "too bad")


def test_a_missing_reason_is_made_up_for() -> None:
    with pytest.raises(DataRejectedError, match="verdict 'fail' \\(wanted: 'pass'\\)"):
        require_pass("fail", "")


def test_the_message_is_one_line_and_the_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, stage("data gate"):
        require_pass("fail", "line one\nline two")
    assert ended.value.code == 3
    assert capsys.readouterr().err == "data gate: data rejected: line one line two\n"
