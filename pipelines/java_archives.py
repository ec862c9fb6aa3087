"""Programs in Java: archives that the lock of a folder of `tools` names with their digests, fetched once into `.tools`.

Maven fetches them, by its own settings, or they come by HTTPS from the repository that LOCKGATE_MAVEN_REPOSITORY names.
Standard library only: tests of every environment start brokers.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from components.errors import InputError, UnavailableError
from pipelines.environments import ROOT

REPOSITORY_VARIABLE = "LOCKGATE_MAVEN_REPOSITORY"

_SOURCES = ROOT / "tools"
_FETCHED = ROOT / ".tools"
_SECONDS = 60
_CONCURRENT_FILES = 8


def archives(program: str) -> list[Path]:
    """Gives the archives of a program; fetches them the first time.

    Args:
        program: a folder of `tools/` with a pom.xml and a jars.lock.

    Raises:
        UnavailableError: they cannot be fetched.
        InputError: nothing is there to fetch them, or one is not what the lock says.
    """
    lock, fetched = _SOURCES / program / "jars.lock", _FETCHED / program
    wanted = _read(lock)
    folder = fetched / hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    if not folder.is_dir():
        fetched.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=fetched, prefix=".partial-") as partial:
            _fetch(program, wanted, Path(partial))
            flat = Path(partial) / "flat"
            flat.mkdir()
            for path, digest in wanted.items():
                _check(Path(partial) / path, digest, lock)
                Path(partial, path).rename(flat / Path(path).name)
            if not folder.is_dir():  # another process may have been faster
                flat.rename(folder)
    return [folder / Path(path).name for path in wanted]


def java(purpose: str, least: int) -> str:
    """Finds a Java.

    Args:
        purpose: what it is for, e.g. "a local Kafka broker".
        least: version that this needs.

    Raises:
        InputError: there is none, or an older one.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home, "bin")) if home else None) or shutil.which("java")
    if found is None:
        raise InputError(f"{purpose} needs Java {least} or newer, and there is no java; install it")
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(\d+)', said.stderr + said.stdout)
    if version is None or int(version[1]) < least:
        raise InputError(f"{purpose} needs Java {least} or newer; '{found}' is {version[1] if version else 'none'}")
    return found


def main() -> None:
    """Writes locks anew, of what Maven makes of the pom.xml of programs that the command line names."""
    for program in sys.argv[1:]:
        lock = _SOURCES / program / "jars.lock"
        with tempfile.TemporaryDirectory() as folder:
            _by_maven(program, Path(folder))
            found = sorted(path.relative_to(folder) for path in Path(folder).rglob("*.jar"))
            lock.write_text("".join(f"{_sha256(Path(folder) / path)}  {path}\n" for path in found), encoding="utf-8")
        print(f"{lock}: {len(found)} archives")


def _read(lock: Path) -> dict[str, str]:
    """Gives the SHA-256, in hex, of each archive by its path in a repository."""
    lines = (line.split() for line in lock.read_text(encoding="utf-8").splitlines())
    return {path: digest for digest, path in lines}


def _fetch(program: str, wanted: dict[str, str], folder: Path) -> None:
    if repository := os.environ.get(REPOSITORY_VARIABLE, ""):
        with ThreadPoolExecutor(_CONCURRENT_FILES) as pool:
            list(pool.map(lambda path: _download(repository, path, folder), wanted))
    elif shutil.which("mvn"):
        _by_maven(program, folder)
    else:
        raise InputError(
            f"{program} comes from a Maven repository, and there is no mvn; install Maven, or set "
            f"{REPOSITORY_VARIABLE} to the URL of a repository, e.g. that of Maven Central"
        )


def _by_maven(program: str, folder: Path) -> None:
    pom = _SOURCES / program / "pom.xml"
    command = [
        *("mvn", "--quiet", "--batch-mode", "--file", str(pom), "dependency:copy-dependencies"),
        *(f"-DoutputDirectory={folder}", "-DincludeScope=runtime", "-Dmdep.useRepositoryLayout=true"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())[-400:]
        raise UnavailableError(f"Maven could not fetch {program}: {said}")


def _download(repository: str, path: str, folder: Path) -> None:
    url = f"{repository.rstrip('/')}/{path}"
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as response, target.open("wb") as file:
            shutil.copyfileobj(response, file)
    except (urllib.error.URLError, OSError) as error:
        raise UnavailableError(
            f"'{url}' cannot be fetched: {error}; set {REPOSITORY_VARIABLE} to a Maven repository within reach, or "
            "leave it out where Maven is installed"
        ) from error


def _check(path: Path, digest: str, lock: Path) -> None:
    if not path.is_file() or _sha256(path) != digest:
        raise InputError(f"'{path.name}' is not the archive that {lock} names; ask a repository that can be trusted")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
