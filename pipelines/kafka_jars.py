"""The Kafka broker's program: Java archives that a lock names with their digests, fetched once into `.tools/kafka`.

With Maven on the machine it fetches them, by its own settings; else they come by HTTPS from the repository that Maven
would ask, or from that of LOCKGATE_MAVEN_REPOSITORY. Standard library only: tests of every environment start brokers.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from components.errors import InputError, UnavailableError
from pipelines.environments import ROOT

SOURCES = ROOT / "tools" / "kafka"
LOCK = SOURCES / "jars.lock"
JARS = ROOT / ".tools" / "kafka"
REPOSITORY = "https://repo.maven.apache.org/maven2"  # Maven's own default
REPOSITORY_VARIABLE = "LOCKGATE_MAVEN_REPOSITORY"

_SECONDS = 60
_CONCURRENT_FILES = 8


def jars() -> list[Path]:
    """Gives the broker's archives; fetches them the first time.

    Raises:
        UnavailableError: they cannot be fetched.
        InputError: one is not what the lock says.
    """
    wanted = _lock()
    folder = JARS / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    if not folder.is_dir():
        JARS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=JARS, prefix=".partial-") as partial:
            _fetch(wanted, Path(partial))
            flat = Path(partial) / "flat"
            flat.mkdir()
            for path, digest in wanted.items():
                _check(Path(partial) / path, digest)
                Path(partial, path).rename(flat / Path(path).name)
            if not folder.is_dir():  # another process may have been faster
                flat.rename(folder)
    return [folder / Path(path).name for path in wanted]


def main() -> None:
    """Writes the lock anew, of what Maven makes of pom.xml."""
    with tempfile.TemporaryDirectory() as folder:
        _by_maven(Path(folder))
        found = sorted(path.relative_to(folder) for path in Path(folder).rglob("*.jar"))
        LOCK.write_text("".join(f"{_sha256(Path(folder) / path)}  {path}\n" for path in found), encoding="utf-8")
    print(f"{LOCK}: {len(found)} archives")


def _lock() -> dict[str, str]:
    """Gives the SHA-256, in hex, of each archive by its path in a repository."""
    lines = (line.split() for line in LOCK.read_text(encoding="utf-8").splitlines())
    return {path: digest for digest, path in lines}


def _fetch(wanted: dict[str, str], folder: Path) -> None:
    if REPOSITORY_VARIABLE not in os.environ and shutil.which("mvn"):
        _by_maven(folder)
        return
    with ThreadPoolExecutor(_CONCURRENT_FILES) as pool:
        list(pool.map(lambda path: _download(path, folder), wanted))


def _by_maven(folder: Path) -> None:
    command = [
        *("mvn", "--quiet", "--batch-mode", "--file", str(SOURCES / "pom.xml"), "dependency:copy-dependencies"),
        *(f"-DoutputDirectory={folder}", "-DincludeScope=runtime", "-Dmdep.useRepositoryLayout=true"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())[-400:]
        raise UnavailableError(f"Maven could not fetch the Kafka broker: {said}")


def _download(path: str, folder: Path) -> None:
    url = f"{os.environ.get(REPOSITORY_VARIABLE, REPOSITORY).rstrip('/')}/{path}"
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as response, target.open("wb") as file:
            shutil.copyfileobj(response, file)
    except (urllib.error.URLError, OSError) as error:
        raise UnavailableError(
            f"'{url}' cannot be fetched: {error}; set {REPOSITORY_VARIABLE} to a Maven repository within reach, or "
            "install Maven with settings that lead to one"
        ) from error


def _check(path: Path, digest: str) -> None:
    if not path.is_file() or _sha256(path) != digest:
        raise InputError(f"'{path.name}' is not the archive that {LOCK} names; ask a repository that can be trusted")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
