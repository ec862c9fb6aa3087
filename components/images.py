"""The images of the suite, each spelled once."""

import os

VERSION = "0.1.0"

REGISTRY = os.environ.get("LOCKGATE_REGISTRY", "ghcr.io/lockgate")
TAG = os.environ.get("LOCKGATE_TAG", VERSION)


NAMES = ("base", "tensorflow", "predictor")


def reference(name: str, registry: str = REGISTRY, tag: str = TAG) -> str:
    """Spells an image."""
    return f"{registry}/{name}:{tag}"


BASE, TENSORFLOW, PREDICTOR = map(reference, NAMES)
