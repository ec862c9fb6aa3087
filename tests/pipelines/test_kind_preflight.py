"""What is asked of the machine, and the line that says what to do."""

import socket
from pathlib import Path
from typing import Any

import pytest

from pipelines.kind import preflight


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc" / "sys" / "fs" / "inotify"
    folder.mkdir(parents=True)
    (folder / "max_user_instances").write_text("512\n")
    (folder / "max_user_watches").write_text("1048576\n")
    return tmp_path / "proc"


def info(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    good = {"MemTotal": 16 << 30, "NCPU": 4, "CgroupVersion": "2", "DockerRootDir": str(tmp_path / "not-here")}
    return {**good, **changes}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_good_machine_has_no_faults(proc: Path, tmp_path: Path) -> None:
    assert list(preflight.faults(info(tmp_path), {"UI_PORT": free_port()}, proc)) == []
    assert list(preflight.warnings(info(tmp_path))) == []


def test_what_another_system_keeps_elsewhere_is_not_asked_for(tmp_path: Path) -> None:
    assert list(preflight.faults(info(tmp_path), {}, tmp_path / "no-proc")) == []


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        (
            "max_user_instances",
            "128",
            "fs.inotify.max_user_instances is 128 (needed: 512); `sudo sysctl fs.inotify.max_user_instances=512`",
        ),
        (
            "max_user_watches",
            "8192",
            "fs.inotify.max_user_watches is 8192 (needed: 524288); `sudo sysctl fs.inotify.max_user_watches=524288`",
        ),
    ],
)
def test_a_low_limit_is_named_with_the_command(proc: Path, tmp_path: Path, name: str, value: str, line: str) -> None:
    (proc / "sys" / "fs" / "inotify" / name).write_text(f"{value}\n")
    assert list(preflight.faults(info(tmp_path), {}, proc)) == [line]


def test_too_little_memory_and_too_few_cores(proc: Path, tmp_path: Path) -> None:
    memory, cores = preflight.faults(info(tmp_path, MemTotal=4 << 30, NCPU=1), {}, proc)
    assert memory.startswith("Docker has 4.0 GiB of memory (needed: 6 GiB); ")
    assert cores.startswith("Docker has 1 core (needed: 2); ")


def test_a_full_disk(proc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "DISK", 1 << 62)
    (line,) = preflight.faults(info(tmp_path, DockerRootDir=str(tmp_path)), {}, proc)
    assert line.startswith(f"{tmp_path} has ")
    assert "`docker system prune`" in line


def test_a_port_that_is_taken_names_its_variable(proc: Path, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        (line,) = preflight.faults(info(tmp_path), {"API_PORT": port}, proc)
    assert line == f"port {port} of 127.0.0.1 is taken; set API_PORT to another one, or stop what listens there"


def test_two_variables_with_one_port(proc: Path, tmp_path: Path) -> None:
    port = free_port()
    (line,) = preflight.faults(info(tmp_path), {"UI_PORT": port, "API_PORT": port}, proc)
    assert line == f"UI_PORT and API_PORT are both {port}; set one of them to another port"


def test_an_old_cgroup_is_a_warning(tmp_path: Path) -> None:
    (line,) = preflight.warnings(info(tmp_path, CgroupVersion="1"))
    assert line.startswith("Docker uses cgroup v1, ")
