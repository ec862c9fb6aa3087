"""The Python environments on this machine: the authoring one, and a venv twin of each image.

Standard library only: `make` runs this file with the system's Python before anything is installed.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENVS = ROOT / ".venvs"
UV = ROOT / ".tools" / "uv" / "bin" / "uv"

# TFDV 1.21's wheels are manylinux_2_39 and in fact need this libc (Debian 13, Ubuntu 24.04).
TFDV_LIBC = (2, 38)
# The stages that import TFDV: on an older libc they run in an environment of their own.
TFDV_STAGES = frozenset({"validate_data", "monitor_model"})


@dataclass(frozen=True)
class Environment:
    """A virtual environment that holds exactly what a lock says."""

    name: str
    lock: str
    """Path of the pip-format lock, from the root."""
    preload: tuple[str, ...] = ()
    """What a warm worker imports: what every stage of the image needs, or what takes long."""
    postponed: tuple[str, ...] = ()
    """What these would import where it is installed; a task that needs it imports it itself."""
    python: str = ""
    """A Python version; empty: the one that runs `make`."""

    @property
    def has_tensorflow(self) -> bool:
        """Whether its warm worker takes 600 MiB."""
        return self.name not in {"dev", "base"}

    @property
    def executable(self) -> Path:
        """Its interpreter."""
        return VENVS / self.name / "bin" / "python"

    @property
    def stamp(self) -> Path:
        """Holds the digest of what is installed."""
        return VENVS / self.name / ".installed"

    def digest(self) -> str:
        """Names what should be installed: the lock's content and the interpreter."""
        content = (ROOT / self.lock).read_bytes() + (self.python or platform.python_version()).encode()
        return hashlib.sha256(content).hexdigest()

    def is_ready(self) -> bool:
        """Tells whether the environment holds what its lock says."""
        return self.stamp.is_file() and self.stamp.read_text() == self.digest()


def has_new_libc() -> bool:
    """Tells whether the current TFDV line runs on this host."""
    name, version = platform.libc_ver()
    return name == "glibc" and tuple(int(part) for part in version.split(".")[:2]) >= TFDV_LIBC


# Keras wraps scikit-learn, 64 MiB and a second, where evaluate_model's libraries are beside it.
_POSTPONED = ("scipy", "sklearn")
_TENSORFLOW_PRELOAD = ("pyarrow.parquet", "pydantic", "tensorflow", "tensorflow_transform.beam", "keras")

DEV = Environment("dev", "requirements.txt")
BASE = Environment(
    "base",
    "containers/base/requirements.txt",
    ("pydantic", "pyarrow.parquet", "fsspec", "jinja2"),
)
if has_new_libc():
    TENSORFLOW = Environment(
        "tensorflow",
        "containers/tensorflow/requirements-tfdv.txt",
        (*_TENSORFLOW_PRELOAD, "tensorflow_data_validation"),
        _POSTPONED,
    )
    TFDV = TENSORFLOW
else:
    TENSORFLOW = Environment("tensorflow", "containers/tensorflow/requirements.txt", _TENSORFLOW_PRELOAD, _POSTPONED)
    TFDV = Environment(
        "tfdv-compat",
        "containers/tfdv-compat/requirements.txt",
        ("pyarrow.parquet", "pydantic", "tensorflow_data_validation"),
        python="3.11",
    )

PREDICTOR = Environment(
    "predictor",
    "containers/predictor/requirements.txt",
    # Not TensorFlow: it is the server's, which check_serving starts in a process of its own.
    ("jinja2", "psutil", "pyarrow.parquet", "pydantic", "urllib3"),
)

ALL = tuple(dict.fromkeys((DEV, BASE, TENSORFLOW, TFDV, PREDICTOR)))
GROUPS = {"run": (DEV, BASE, TENSORFLOW, TFDV, PREDICTOR), "serve": (DEV, PREDICTOR)}
"""What a command of the Makefile needs, by its name."""


def twin(image: str, stage: str) -> Environment:
    """Gives the environment in which a stage of an image runs on this machine.

    Args:
        image: as in the compiled pipeline, e.g. `registry/base:0.1.0`.
        stage: name of the stage.

    Raises:
        KeyError: no twin is known for the image.
    """
    name = image.rpartition("/")[2].partition(":")[0]
    if stage in TFDV_STAGES:
        return TFDV
    return {"base": BASE, "tensorflow": TENSORFLOW, "predictor": PREDICTOR}[name]


class SetUpError(Exception):
    """The environments cannot be made; the message says what to do."""


def bootstrap_uv() -> None:
    """Puts the pinned uv into `.tools/uv`, unless it is there.

    Raises:
        SetUpError: this Python has no pip, or pip could not install.
    """
    requirements = ROOT / "tools" / "uv" / "requirements.txt"
    stamp = UV.parent.parent / ".installed"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if UV.is_file() and stamp.is_file() and stamp.read_text() == wanted:
        return
    target = UV.parent.parent
    shutil.rmtree(target, ignore_errors=True)
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        raise SetUpError("this Python has no pip: install the packages python3-pip and python3-venv, then repeat")
    print("set-up: uv", flush=True)
    _run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--target", str(target)),
        *("--disable-pip-version-check", "-r", str(requirements)),
    )
    stamp.write_text(wanted)


def make(environment: Environment) -> None:
    """Makes one environment from its lock, unless it is ready; interrupted work is begun again.

    Raises:
        SetUpError: a package cannot be had or built.
    """
    if environment.is_ready():
        return
    if environment is TFDV and environment is not TENSORFLOW:
        _require_compiler()
    print(f"set-up: environment '{environment.name}' from {environment.lock}", flush=True)
    folder = VENVS / environment.name
    environment.stamp.unlink(missing_ok=True)
    # A venv of another interpreter would keep its old packages.
    _run(str(UV), "venv", "--quiet", "--clear", "--python", environment.python or sys.executable, str(folder))
    _run(
        *(str(UV), "pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode"),
        *("--python", str(environment.executable)),
        str(ROOT / environment.lock),
    )
    environment.stamp.write_text(environment.digest())


def _require_compiler() -> None:
    """TFDV 1.16's pyfarmhash has no wheel."""

    def has_compiler() -> bool:
        return bool(shutil.which("g++")) and (Path(sysconfig.get_path("include")) / "Python.h").is_file()

    if not has_compiler() and os.geteuid() == 0 and shutil.which("apt-get"):
        print("set-up: g++ and python3-dev", flush=True)
        _run("apt-get", "update", "--quiet=2")
        _run("apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends", "g++", "python3-dev")
    if not has_compiler():
        raise SetUpError(
            "the TFDV stages need a C++ compiler here (old libc): install g++ and python3-dev, then repeat"
        )


def _run(*command: str) -> None:
    # An index or certificate that pip is told about by its own variables holds for uv too.
    environment = {"PIP_ROOT_USER_ACTION": "ignore", **os.environ}  # as an option, pip before 22.1 refuses it
    for theirs, ours in (("PIP_INDEX_URL", "UV_DEFAULT_INDEX"), ("PIP_CERT", "SSL_CERT_FILE")):
        if theirs in environment:
            environment.setdefault(ours, environment[theirs])
    try:
        subprocess.run(command, check=True, env=environment)
    except subprocess.CalledProcessError as error:
        raise SetUpError(f"'{Path(command[0]).name}' ended with {error.returncode}; see above, then repeat") from error


def main() -> int:
    """Makes the environments, or groups of them, named in the arguments (default: all), unless they are ready."""
    choices = {environment.name: (environment,) for environment in ALL} | GROUPS
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", choices=[*choices, []], metavar="NAME", help=f"of {', '.join(choices)}")
    names = parser.parse_args().names
    wanted = dict.fromkeys(environment for name in names for environment in choices[name]) or ALL
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        print(
            f"set-up: Python {platform.python_version()} (wanted: 3.11 to 3.13); set PYTHON=python3.11", file=sys.stderr
        )
        return 2
    try:
        bootstrap_uv()
        for environment in wanted:
            make(environment)
    except SetUpError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
