"""Fetching programs in Java: from a repository by HTTP, checked against the lock."""

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import InputError, UnavailableError
from pipelines import java_archives

ARCHIVE = "org/example/program/1.0/program-1.0.jar"
CONTENT = b"an archive"


@pytest.fixture(autouse=True)
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of one archive, and nothing fetched."""
    folder = tmp_path / "sources"
    (folder / "program").mkdir(parents=True)
    write_lock(folder, CONTENT)
    monkeypatch.setattr(java_archives, "_SOURCES", folder)
    monkeypatch.setattr(java_archives, "_FETCHED", tmp_path / "fetched")
    monkeypatch.delenv(java_archives.REPOSITORY_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", "")
    return folder


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository, and the variable that names it."""
    folder = tmp_path / "repository"
    (folder / ARCHIVE).parent.mkdir(parents=True)
    (folder / ARCHIVE).write_bytes(CONTENT)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv(java_archives.REPOSITORY_VARIABLE, f"http://127.0.0.1:{server.server_port}/")
        yield folder
        server.shutdown()


def write_lock(folder: Path, content: bytes) -> None:
    (folder / "program" / "jars.lock").write_text(f"{hashlib.sha256(content).hexdigest()}  {ARCHIVE}\n")


def test_archives_are_fetched_once(repository: Path) -> None:
    (path,) = java_archives.archives("program")
    assert (path.name, path.read_bytes()) == ("program-1.0.jar", CONTENT)
    (repository / ARCHIVE).unlink()
    assert java_archives.archives("program") == [path]


def test_another_archive_than_the_locks_is_refused_and_not_kept(
    sources: Path, repository: Path, tmp_path: Path
) -> None:
    write_lock(sources, b"another")
    with pytest.raises(InputError, match=r"'program-1\.0\.jar' is not the archive that .*jars\.lock names"):
        java_archives.archives("program")
    assert not list((tmp_path / "fetched").rglob("*.jar"))


def test_a_repository_that_lacks_it_is_told(repository: Path) -> None:
    (repository / ARCHIVE).unlink()
    with pytest.raises(
        UnavailableError, match=r"program-1\.0\.jar' cannot be fetched: .*404.*LOCKGATE_MAVEN_REPOSITORY"
    ):
        java_archives.archives("program")


def test_without_maven_and_repository_it_says_what_to_do() -> None:
    with pytest.raises(InputError, match="program comes from a Maven repository, and there is no mvn; install Maven"):
        java_archives.archives("program")
