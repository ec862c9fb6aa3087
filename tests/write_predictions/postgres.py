"""A real PostgreSQL server for tests, as a process on a free port of this machine; it asks for a password."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests import servers

USER, PASSWORD = "tester", "a pass/word"
_SECONDS_TO_START = 60


class MissingError(Exception):
    """The server's programs are not here; the message says why."""


def programs() -> Path:
    """Finds the folder of initdb and postgres.

    Raises:
        MissingError: they are not there.
    """
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    places = [place for place in places if (place / "initdb").is_file() and (place / "postgres").is_file()]
    if not places:
        raise MissingError("initdb and postgres are neither on PATH nor below /usr/lib/postgresql; install postgresql")
    return places[-1]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """Runs a server, and gives its URL; PGUSER and PGPASSWORD of this process and its children lead in."""
    port = servers.free_port()
    # PostgreSQL does not run as root.
    owner = {"user": "nobody"} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="postgres-", dir="/tmp") as name:
        data, secret = Path(name, "data"), Path(name, "password")
        secret.write_text(PASSWORD)
        if owner:
            for path in (Path(name), secret):
                shutil.chown(path, "nobody")
        made = subprocess.run(
            [folder / "initdb", "-D", data, "-U", USER, "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"],
            capture_output=True,
            text=True,
            **owner,  # type: ignore[call-overload]
        )
        if made.returncode:
            raise MissingError(f"initdb failed: {made.stderr.strip()[-300:]}")
        command = [folder / "postgres", "-D", data, "-p", str(port), "-k", name, "-c", "listen_addresses=127.0.0.1"]
        command += ["-c", "fsync=off"]
        with Path(name, "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, **owner)  # type: ignore[call-overload]
        url = f"postgresql://127.0.0.1:{port}/postgres"
        try:
            with servers.environment(PGUSER=USER, PGPASSWORD=PASSWORD):
                _wait(url)
                yield url
        finally:
            process.terminate()
            process.wait(30)


def new_database(server: str) -> str:
    """Makes an empty database; gives its URL."""
    name = f"db{uuid.uuid4().hex}"
    execute(server, f"CREATE DATABASE {name}")
    return f"{server.rpartition('/')[0]}/{name}"


def execute(url: str, statement: str) -> None:
    """Runs a statement outside of any transaction."""
    import adbc_driver_postgresql.dbapi as postgresql

    with postgresql.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(statement)


def _wait(url: str) -> None:
    begun = time.monotonic()
    while True:
        try:
            execute(url, "SELECT 1")
        except Exception:
            if time.monotonic() - begun > _SECONDS_TO_START:
                raise
            time.sleep(0.1)
        else:
            return
