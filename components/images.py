"""The images of the suite, each spelled once."""

import os

VERSION = "0.1.0"

REGISTRY = os.environ.get("LOCKGATE_REGISTRY", "ghcr.io/lockgate")
TAG = os.environ.get("LOCKGATE_TAG", VERSION)


def _image(name: str) -> str:
    return f"{REGISTRY}/{name}:{TAG}"


BASE = _image("base")
TENSORFLOW = _image("tensorflow")
PREDICTOR = _image("predictor")
