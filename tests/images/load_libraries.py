"""Runs inside an image: loads every shared library of its environment, each in a process of its own.

Prints JSON: how many loaded, and those that did not with the loader's message.
"""

import json
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LOAD = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"


def main() -> None:
    root = Path(sysconfig.get_path("purelib"))
    # What lies in `<name>.libs` is loaded by the libraries that need it, which know where to look.
    libraries = [p for p in root.rglob("*.so*") if p.is_file() and not p.parent.name.endswith(".libs")]
    with ThreadPoolExecutor() as pool:
        causes = list(pool.map(cause, libraries))
    failed = [f"{p.relative_to(root)}: {c}" for p, c in zip(libraries, causes, strict=True) if c]
    print(json.dumps({"loaded": len(libraries) - len(failed), "failed": failed}))


def cause(library: Path) -> str:
    done = subprocess.run([sys.executable, "-S", "-c", LOAD, str(library)], capture_output=True, text=True, check=False)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


if __name__ == "__main__":
    main()
