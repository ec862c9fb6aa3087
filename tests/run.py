"""Runs the test suites, each in the environment that its code runs in, and sums them up.

A stage's tests run in the venv twin of its image, with pytest beside it on the path. Environment needed:
what `make setup` makes. Arguments: names of suites (default: all).
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipelines.environments import BASE, DEV, PREDICTOR, TENSORFLOW, TFDV, UV, Environment, bootstrap_uv  # noqa: E402

PYTEST = ROOT / ".tools" / "pytest"


@dataclass(frozen=True)
class Suite:
    """Tests that run together."""

    name: str
    environment: Environment
    paths: tuple[str, ...]
    options: tuple[str, ...] = ()


SUITES = (
    Suite(
        "pipelines",
        DEV,
        ("tests/pipelines", "tests/contract", "tests/examples"),
        ("-m", "not local"),
    ),
    Suite(
        "base",
        BASE,
        (
            "tests/shared",
            "tests/ingest_data",
            "tests/publish_model",
            "tests/deploy_model",
            "tests/monitoring",
            "tests/report_run",
            "tests/respond_to_verdict",
            "tests/gate",
            "tests/write_predictions",
        ),
    ),
    Suite(
        "tensorflow",
        TENSORFLOW,
        (
            "tests/transform_data",
            "tests/models",
            "tests/train_model",
            "tests/predict_batch",
            "tests/evaluate_model",
            "tests/explain_model",
            "tests/tune_model",
        ),
    ),
    Suite("tfdv", TFDV, ("tests/validate_data", "tests/monitor_model")),
    Suite("predictor", PREDICTOR, ("tests/predictor", "tests/check_serving", "tests/stream")),
    Suite("local", DEV, ("tests/local",)),
    Suite("registries", DEV, ("tests/registries",)),
    Suite("fuzz", DEV, ("tests/fuzz",)),
    Suite("images", DEV, ("tests/images",)),
    Suite("cluster", BASE, ("tests/cluster",)),
)

CHECKS = (
    ("ruff check", ("ruff", "check", "--quiet", ".")),
    ("ruff format", ("ruff", "format", "--quiet", "--check", ".")),
    ("import contracts", ("lint-imports", "--no-cache")),
    ("types", ("mypy",)),
    ("generated files", ("python", "-W", "ignore", "-m", "pipelines", "compile", "--check")),
)

_COUNT = re.compile(r"(\d+) (passed|failed|skipped|error|errors)\b")


def main() -> int:
    """Runs suites and checks, prints one closing line, and tells by the exit code whether all passed."""
    names = [suite.name for suite in SUITES] + ["checks"]
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", choices=[*names, []], metavar="SUITE", help=f"of {', '.join(names)}")
    chosen = parser.parse_args().names or names
    _install_pytest()
    counts: Counter[str] = Counter()
    for suite in SUITES:
        if suite.name in chosen:
            counts += _run_suite(suite)
    if "checks" in chosen:
        counts += _run_checks()
    print(f"\n{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped", flush=True)
    return 1 if counts["failed"] or not counts["passed"] else 0


def _install_pytest() -> None:
    lock = ROOT / "tools" / "pytest" / "requirements.txt"
    stamp = PYTEST / ".installed"
    if stamp.is_file() and stamp.read_text() == lock.read_text():
        return
    bootstrap_uv()
    command = [str(UV), "pip", "install", "--quiet", "--require-hashes", "--python", sys.executable]
    subprocess.run([*command, "--target", str(PYTEST), "-r", str(lock)], check=True)
    stamp.write_text(lock.read_text())


def _run_suite(suite: Suite) -> Counter[str]:
    paths = [path for path in suite.paths if (ROOT / path).is_dir()]
    print(f"\n── {suite.name}: {', '.join(paths)} in {suite.environment.name}", flush=True)
    started = time.monotonic()
    process = subprocess.Popen(
        [str(suite.environment.executable), "-m", "pytest", "-q", *suite.options, *paths],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{PYTEST}", "TF_CPP_MIN_LOG_LEVEL": "2"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    closing = ""
    for line in process.stdout:
        closing = line if _COUNT.search(line) and " in " in line else closing
        print(line, end="", flush=True)
    code = process.wait()
    counts: Counter[str] = Counter()
    for count, kind in _COUNT.findall(closing):
        counts["failed" if kind.startswith("error") else kind] += int(count)
    if code and not counts["failed"]:
        counts["failed"] += 1
    print(f"── {suite.name}: {time.monotonic() - started:.0f} s", flush=True)
    return counts


def _run_checks() -> Counter[str]:
    counts: Counter[str] = Counter()
    for name, (program, *arguments) in CHECKS:
        done = subprocess.run([str(DEV.executable.parent / program), *arguments], cwd=ROOT, check=False)
        counts["failed" if done.returncode else "passed"] += 1
        print(f"{'FAILED' if done.returncode else 'ok'}: {name}", flush=True)
    return counts


if __name__ == "__main__":
    sys.exit(main())
