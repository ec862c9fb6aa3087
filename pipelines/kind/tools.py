"""The programs that do the work: kind and kubectl, fetched where PATH does not have them."""

import hashlib
import platform
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path

from components.errors import InputError, UnavailableError
from pipelines.environments import ROOT
from pipelines.kind.sources import Tool

FOLDER = ROOT / ".tools" / "bin"

_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")
_ASK = {"kind": ("version",), "kubectl": ("version", "--client")}
_ANSWER_SECONDS = 60.0


def require(name: str, tool: Tool, folder: Path = FOLDER) -> str:
    """Gives the path of a program: that on PATH, else the pinned one, which is downloaded once.

    Raises:
        InputError: there is none for this machine; or what was downloaded is not what is pinned.
        UnavailableError: it cannot be downloaded.
    """
    on_path = shutil.which(name)
    if on_path and version_of(name, on_path) >= _parsed(tool.oldest):
        return on_path
    pinned = folder / f"{name}-{tool.version}"
    if not pinned.is_file():
        _download(name, tool, pinned)
    return str(pinned)


def version_of(name: str, path: str) -> tuple[int, ...]:
    """Asks a program for its version; all zeros: it did not tell."""
    done = subprocess.run([path, *_ASK[name]], capture_output=True, text=True, check=False)
    return _parsed(done.stdout) if done.returncode == 0 else (0, 0, 0)


def _parsed(text: str) -> tuple[int, ...]:
    found = _VERSION.search(text)
    return tuple(int(part) for part in found.groups()) if found else (0, 0, 0)


def _download(name: str, tool: Tool, target: Path) -> None:
    system, machine = platform.system().lower(), _MACHINES.get(platform.machine().lower(), platform.machine())
    wanted = tool.sha256.get(f"{system}-{machine}")
    if wanted is None:
        raise InputError(f"install {name} {tool.oldest} or later: there is no pinned one for {system}-{machine}")
    url = tool.url.format(version=tool.version, system=system, machine=machine)
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS) as answer:
            content = answer.read()
    except OSError as error:
        raise UnavailableError(
            f"{url} cannot be had ({error}); install {name} {tool.oldest} or later on PATH, then repeat"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        raise InputError(f"{url} has SHA-256 {found} (pinned: {wanted}); nothing was installed, see sources.toml")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    partial.write_bytes(content)
    partial.chmod(0o755)
    partial.rename(target)
