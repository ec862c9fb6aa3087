"""The programs that kind-up works with, and what it says where one is missing."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.errors import InputError, UnavailableError
from pipelines.environments import ROOT
from pipelines.kind import tools
from pipelines.kind.sources import Tool

CONTENT = b"#!/bin/sh\necho kind v9.9.9\n"
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
HERE = f"{platform.system().lower()}-{MACHINE}"


def tool(folder: Path, **changes: object) -> Tool:
    (folder / "kind-9.9.9").write_bytes(CONTENT)
    given = {
        "version": "9.9.9",
        "oldest": "0.30.0",
        "url": f"file://{folder}/kind-{{version}}",
        "sha256": {HERE: hashlib.sha256(CONTENT).hexdigest()},
    }
    return Tool.model_validate({**given, **changes})


def install(folder: Path, says: str) -> None:
    folder.mkdir()
    program = folder / "kind"
    program.write_text(f"#!/bin/sh\necho {says}\n")
    program.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH besides the shell's."""
    folder = tmp_path / "path"
    monkeypatch.setenv("PATH", f"{folder}:/bin")
    return folder


def test_what_path_has_is_taken(tmp_path: Path, path: Path) -> None:
    install(path, "kind v0.31.0 go1.25 linux/amd64")
    assert tools.require("kind", tool(tmp_path), tmp_path / "tools") == str(path / "kind")
    assert not (tmp_path / "tools").exists()


@pytest.mark.parametrize("says", ["kind v0.20.0 go1.20", "kind (devel)", None])
def test_else_the_pinned_one_is_fetched_once(tmp_path: Path, path: Path, says: str | None) -> None:
    if says:
        install(path, f"'{says}'")
    wanted = tool(tmp_path)
    found = tools.require("kind", wanted, tmp_path / "tools")
    assert subprocess.run([found], capture_output=True, text=True, check=True).stdout == "kind v9.9.9\n"
    (tmp_path / "kind-9.9.9").unlink()
    assert tools.require("kind", wanted, tmp_path / "tools") == found


def test_another_file_than_the_pinned_one_is_not_installed(tmp_path: Path, path: Path) -> None:
    wanted = tool(tmp_path, sha256={HERE: "0" * 64})
    with pytest.raises(InputError, match=r"has SHA-256 [0-9a-f]{64} \(pinned: 0{64}\); nothing was installed"):
        tools.require("kind", wanted, tmp_path / "tools")
    assert not (tmp_path / "tools").exists()


def test_no_network_says_what_to_install(tmp_path: Path, path: Path) -> None:
    wanted = tool(tmp_path, url=f"file://{tmp_path}/gone")
    with pytest.raises(UnavailableError, match=r"install kind 0\.30\.0 or later on PATH"):
        tools.require("kind", wanted, tmp_path / "tools")


def test_a_machine_that_nothing_is_pinned_for(tmp_path: Path, path: Path) -> None:
    with pytest.raises(InputError, match=r"install kind 0\.30\.0 or later: there is no pinned one for"):
        tools.require("kind", tool(tmp_path, sha256={"plan9-mips": "0" * 64}), tmp_path / "tools")


def kind(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "pipelines", "kind", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **variables},
    )


@pytest.mark.parametrize("command", ["up", "status", "load", "down"])
def test_without_docker_each_command_says_so(command: str, tmp_path: Path) -> None:
    ended = kind(command, PATH=str(tmp_path))
    assert ended.returncode == 2
    assert "there is no `docker` on PATH; install Docker Engine" in ended.stderr


@pytest.mark.skipif(not shutil.which("docker"), reason="there is no `docker` on PATH")
def test_a_daemon_that_does_not_run_is_told_apart(tmp_path: Path) -> None:
    ended = kind("up", DOCKER_HOST=f"unix://{tmp_path}/docker.sock")
    assert ended.returncode == 4
    assert ended.stderr.startswith("try again later: the Docker daemon does not answer; ")


@pytest.mark.parametrize("port", ["0", "70000", "http"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    ended = kind("up", UI_PORT=port)
    assert ended.returncode == 2
    assert "UI_PORT" in ended.stderr or "--ui-port" in ended.stderr
