"""The edge of a stage. Needs: the venv twin of the base image."""
# ruff: noqa: E501

import errno
from pathlib import Path

import pytest

from components.artifacts import whole, write_whole
from components.errors import DataRejectedError, InputError, LockgateError, UnavailableError
from components.stage import stage


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a\nb"), 2, "s: fix your input: a b\n"),
        (DataRejectedError("x"), 3, "s: data rejected: x\n"),
        (UnavailableError("x"), 4, "s: try again later: x\n"),
        (LockgateError("x"), 1, "s: error: x\n"),
        (ConnectionResetError("gone"), 4, "s: try again later: gone; the same run can be started again\n"),
        (TimeoutError("slow"), 4, "s: try again later: slow; the same run can be started again\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/x"), 2, "s: fix your input: No such file: '/x'; check the path and who may read it\n"),
        (PermissionError(errno.EACCES, "Denied", "/x"), 2, "s: fix your input: Denied: '/x'; check the path and who may read it\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 4, "s: try again later: [Errno 28] No space left on device; free the resource"),
    ],
)  # fmt: skip
def test_a_foreseen_failure_is_one_line(
    error: Exception, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, stage("s"):
        raise error
    assert ended.value.code == code
    printed = capsys.readouterr().err
    assert printed.startswith(line)
    assert printed.count("\n") == 1


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), stage("s"):
        1 / 0  # noqa: B018


def test_an_output_is_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "out"

    def fail_half_way() -> None:
        with whole(target) as folder:
            (folder / "half").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "left by a killed attempt").write_text("x")
    with whole(target) as folder:
        (folder / "file").write_text("first")
    with whole(target) as folder:
        (folder / "other").write_text("second")
    assert [p.name for p in target.iterdir()] == ["other"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_file_is_whole_or_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "new" / "page.html"
    write_whole(target, "größe\r\n")
    assert target.read_bytes() == "größe\r\n".encode()
    (target.parent / ".page.html.partial").write_text("left by a killed attempt")
    write_whole(str(target), b"\x00")
    assert [path.name for path in target.parent.iterdir()] == ["page.html"]

    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(target, "longer")
    assert target.read_bytes() == b"\x00"
    assert [path.name for path in target.parent.iterdir()] == ["page.html"]
