"""Resolves every lock anew. Locks are pip-format with hashes: they name no index, so that any mirror serves."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipelines.environments import ROOT, UV


@dataclass(frozen=True)
class Lock:
    """One lock and what it is resolved from."""

    output: str
    source: str
    options: tuple[str, ...] = ("--universal",)


LOCKS = (
    Lock("tools/uv/requirements.txt", "requirements.in"),
    Lock("tools/mlflow/requirements.txt", "requirements.in"),
    Lock("tools/pytest/requirements.txt", "requirements.in"),
    Lock("requirements.txt", "pyproject.toml", ("--universal", "--group", "dev")),
    Lock("containers/base/requirements.txt", "pyproject.toml"),
    Lock("containers/tensorflow/requirements-tfdv.txt", "pyproject.toml", ("--universal", "--extra", "tfdv")),
    Lock("containers/tensorflow/requirements.txt", "pyproject.toml", ("--universal", "-c", "requirements-tfdv.txt")),
    Lock("containers/predictor/requirements.txt", "pyproject.toml"),
    # TFDV 1.16's set resolves for one Python and one platform only.
    Lock("containers/tfdv-compat/requirements.txt", "pyproject.toml", ("--python-platform", "x86_64-manylinux_2_28")),
)


def main() -> None:
    """Resolves all locks."""
    for lock in LOCKS:
        output = Path(lock.output)
        print(f"lock: {lock.output}", flush=True)
        # Run where the source is: uv reads overrides and metadata from the pyproject.toml of the folder.
        subprocess.run(
            [
                *(str(UV), "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--upgrade"),
                *("--python-version", "3.11", *lock.options, lock.source, "-o", output.name),
            ],
            cwd=ROOT / output.parent,
            check=True,
        )


if __name__ == "__main__":
    main()
