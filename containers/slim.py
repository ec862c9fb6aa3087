"""Removes from an image's environment what no stage needs: headers, tests, debug symbols, unused services.

Runs in the build stage of every Dockerfile. Standard library only; needs `strip` (binutils). How we know
that nothing needs what is removed: tests/images loads every shared library, imports what every stage
imports, and runs the stages in the finished images.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Rule:
    """Paths below site-packages, and why nothing misses them."""

    reason: str
    patterns: tuple[str, ...]
    keep: tuple[str, ...] = ()
    """Names of matches that stay."""
    unless: str = ""
    """A package beside which all of them stay."""


RULES = (
    Rule("tests of the libraries", ("**/tests", "numpy/_core/_simd*.so", "numpy/_core/_*_tests*.so")),
    Rule(
        "KFP's compiler, clients and runners: a task runs its executor only",
        tuple(f"kfp/{part}" for part in ("cli", "client", "compiler", "kubeflow_client", "local", "registry")),
    ),
    Rule(
        "sources, stubs, headers and copies for compiling against a library",
        (
            *("**/*.pyx", "**/*.pxd", "**/*.pxi", "**/*.pyi", "**/*.h", "**/*.hpp", "**/*.a"),
            *("pyarrow/include", "pyarrow/src"),
            # Copies under the names that a linker looks for; what is loaded is `.so.<version>`.
            *("pyarrow/libarrow_python*.so", "pyarrow/libarrow_python*.so.*.*.*"),
        ),
    ),
    Rule("headers of TensorFlow: only custom C++ operations are built against them", ("tensorflow/include",)),
    Rule(
        "Arrow's RPC, and its own S3 client (we use s3fs)",
        (
            *("pyarrow/libarrow_flight.so*", "pyarrow/libarrow_python_flight.so*", "pyarrow/_flight*.so"),
            *("pyarrow/libarrow_s3.so*", "pyarrow/_s3fs*.so"),
        ),
    ),
    Rule(
        "of Kafka's package, what reads Avro in its old way, and test clients",
        ("confluent_kafka/avro", "confluent_kafka/kafkatest"),
    ),
    Rule(
        "of Kafka's package, clients of schema registries: components/event_formats.py asks these itself",
        ("confluent_kafka/schema_registry",),
        unless="quixstreams",  # which imports them, whatever it is used for
    ),
    Rule(
        "interfaces of Kubernetes that are not settled: we call none",
        tuple(
            f"lightkube/{part}/*_v[0-9]{kind}[0-9].py" for part in ("models", "resources") for kind in ("alpha", "beta")
        ),
    ),
    Rule("lists of installed files: only what installs packages reads them", ("*.dist-info/RECORD",)),
    Rule(
        "descriptions of the AWS services that s3fs never calls: it needs S3, and STS and SSO to sign in",
        ("botocore/data/*",),
        keep=(
            *("data/s3", "data/sts", "data/sso", "data/sso-oidc", "data/signin"),
            *("data/endpoints.json", "data/partitions.json", "data/_retry.json"),
            "data/sdk-default-configuration.json",
        ),
    ),
)


def main() -> None:
    """Argument: the site-packages folder. Prints what each rule saved."""
    root = Path(sys.argv[1])
    before = _size(root)
    for rule in RULES:
        saved = 0
        for path in list(_matches(root, rule)):
            saved += _size(path)
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        print(f"{saved / 1e6:8.1f} MB  {rule.reason}")
    print(f"{_strip(root) / 1e6:8.1f} MB  debug symbols")
    print(f"{before / 1e6:.0f} MB before, {_size(root) / 1e6:.0f} MB after")


def _matches(root: Path, rule: Rule) -> Iterator[Path]:
    if rule.unless and (root / rule.unless).exists():
        return
    kept = {keep.rpartition("/")[2]: keep for keep in rule.keep}
    for pattern in rule.patterns:
        for path in root.glob(pattern):
            keep = kept.get(path.name)
            if path.exists() and not (keep and path.relative_to(root).as_posix().endswith(keep)):
                yield path


def _strip(root: Path) -> int:
    libraries = [
        path
        for path in root.rglob("*.so*")
        # Wheels put the libraries that they bundle into `<name>.libs`, edited in a way that strip destroys.
        if path.is_file() and not path.is_symlink() and not path.parent.name.endswith(".libs")
    ]
    before = sum(path.stat().st_size for path in libraries)
    subprocess.run(["strip", "--strip-unneeded", *map(str, libraries)], check=True)
    return before - sum(path.stat().st_size for path in libraries)


def _size(path: Path) -> int:
    if path.is_dir() and not path.is_symlink():
        return sum(_size(child) for child in path.iterdir())
    return path.lstat().st_size


if __name__ == "__main__":
    main()
