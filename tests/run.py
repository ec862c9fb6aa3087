"""Runs the test suites, each in the environment that its code runs in, and sums them up.

A stage's tests run in the venv twin of its image, with pytest beside it on the path. Environment needed:
what `make setup` makes. Arguments: names of suites (default: all).
"""

import argparse
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
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


# Those that compute stand beside those that wait: suites run two at one time.
SUITES = (
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
            "tests/write_predictions",
        ),
    ),
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
            "tests/window_features",
            "tests/ingest_data",
            "tests/publish_model",
            "tests/deploy_model",
            "tests/monitoring",
            "tests/report_run",
            "tests/respond_to_verdict",
            "tests/gate",
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

_JOBS = min(2, os.cpu_count() or 1)
_PRINTING = threading.Lock()
_WIDTH = max(len(suite.name) for suite in SUITES)
_COUNT = re.compile(r"(\d+) (passed|failed|skipped|error|errors)\b")
_FAILURE = re.compile(r"(FAILED|ERROR) tests/")


def main() -> int:
    """Runs suites and checks, prints one closing line, and tells by the exit code whether all passed."""
    names = [suite.name for suite in SUITES] + ["checks"]
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", choices=[*names, []], metavar="SUITE", help=f"of {', '.join(names)}")
    parser.add_argument("--jobs", type=int, default=_JOBS, help="suites at one time (default: %(default)s)")
    options = parser.parse_args()
    chosen = options.names or names
    _install_pytest()
    suites = [suite for suite in SUITES if suite.name in chosen]
    counts: Counter[str] = Counter()
    failures: list[str] = []
    if options.jobs > 1 and len(suites) > 1:
        with ThreadPoolExecutor(options.jobs) as pool:
            counts = sum(pool.map(lambda suite: _run_suite(suite, failures, beside_others=True), suites), counts)
    else:
        for suite in suites:
            counts += _run_suite(suite, failures)
    if "checks" in chosen:
        counts += _run_checks(failures)
    if failures:
        print("", *failures, sep="\n")
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


def _run_suite(suite: Suite, failures: list[str], beside_others: bool = False) -> Counter[str]:
    """Runs a suite, shows what it prints (beside others, each line with the suite's name), and notes what failed."""
    began = time.monotonic()
    prefix = f"{suite.name:<{_WIDTH}} " if beside_others else ""
    _say(f"\n── {suite.name}: {', '.join(_paths(suite))} in {suite.environment.name}\n")
    closing = ""
    with subprocess.Popen(
        [str(suite.environment.executable), "-m", "pytest", "-q", *suite.options, *_paths(suite)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{PYTEST}", "TF_CPP_MIN_LOG_LEVEL": "2"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            closing = line if _COUNT.search(line) and " in " in line else closing
            if _FAILURE.match(line):
                failures.append(line.rstrip())
            _say(f"{prefix}{line}")
    counts: Counter[str] = Counter()
    for count, kind in _COUNT.findall(closing):
        counts["failed" if kind.startswith("error") else kind] += int(count)
    if process.returncode and not counts["failed"]:
        counts["failed"] += 1
        failures.append(f"FAILED suite {suite.name}: exit code {process.returncode}")
    _say(f"── {suite.name}: {time.monotonic() - began:.0f} s\n")
    return counts


def _say(text: str) -> None:
    with _PRINTING:
        print(text, end="", flush=True)


def _paths(suite: Suite) -> list[str]:
    return [path for path in suite.paths if (ROOT / path).is_dir()]


def _run_checks(failures: list[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name, (program, *arguments) in CHECKS:
        done = subprocess.run([str(DEV.executable.parent / program), *arguments], cwd=ROOT, check=False)
        counts["failed" if done.returncode else "passed"] += 1
        print(f"{'FAILED' if done.returncode else 'ok'}: {name}", flush=True)
        if done.returncode:
            failures.append(f"FAILED check {name}")
    return counts


if __name__ == "__main__":
    sys.exit(main())
