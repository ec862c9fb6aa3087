"""What the image tests need: a Docker daemon, and the images. Built where they are not there (minutes)."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components import images
from pipelines import compiled
from pipelines.environments import ROOT

DEBIAN_PYTHON = "lockgate/python:3.13-trixie"


def answers() -> bool:
    """Tells whether a Docker daemon can be used."""
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="session")
def docker_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Docker daemon: the one that runs, or one of our own, which is stopped afterwards."""
    if not shutil.which("docker"):
        pytest.skip("no Docker: there is no `docker` on PATH")
    if answers():
        yield
        return
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        pytest.skip("no Docker: no daemon answers, and without root and `dockerd` none can be started")
    log = tmp_path_factory.mktemp("dockerd") / "dockerd.log"
    with log.open("wb") as file:
        daemon = subprocess.Popen(["dockerd"], stdout=file, stderr=file, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not answers():
            if daemon.poll() is not None or time.monotonic() > deadline:
                cause = log.read_text(errors="replace").strip().splitlines()[-1:]
                pytest.skip(f"no Docker: dockerd does not start here: {cause}")
            time.sleep(0.5)
        yield
    finally:
        daemon.terminate()
        daemon.wait(timeout=60)


@pytest.fixture(scope="session")
def built(docker_daemon: None) -> Callable[[str], str]:
    """Gives an image by its name, built from the code as it is."""
    environment = dict(os.environ)
    ready: dict[str, str] = {}

    def reference(name: str) -> str:
        if name not in ready:
            tag = compiled.content_tag()
            spelled = images.reference(name, tag=tag)
            if not exists(spelled):
                environment.setdefault("PYTHON_IMAGE", python_image())
                require_registries(environment["PYTHON_IMAGE"])
                command = [sys.executable, "-W", "ignore", "-m", "pipelines", "images", "build", name, "--tag", tag]
                done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
                assert done.returncode == 0, done.stdout + done.stderr
            ready[name] = spelled
        return ready[name]

    return reference


def python_image() -> str:
    """The official base where it can be pulled; else one from Debian's packages."""
    official = official_python_image()
    if exists(official) or subprocess.run(["docker", "pull", "--quiet", official], capture_output=True).returncode == 0:
        return official
    if not exists(DEBIAN_PYTHON):
        if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
            pytest.skip(f"no base image: '{official}' cannot be pulled, and without root and mmdebstrap none is made")
        subprocess.run(["sh", str(ROOT / "containers/python/build.sh"), DEBIAN_PYTHON], check=True)
    return DEBIAN_PYTHON


def require_registries(base: str) -> None:
    """Skips where containers do not run, or reach no package registry, so that no image can be built."""
    done = subprocess.run(["docker", "run", "--rm", base, "apt-get", "update"], capture_output=True, text=True)
    # apt goes on without the lists that it cannot get.
    faults = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:", "docker:"))]
    if done.returncode or faults:
        pytest.skip(f"no images: a container reaches no package registry here: {(faults or [done.returncode])[0]}")


def official_python_image() -> str:
    """The base that the Dockerfiles name."""
    lines = (ROOT / "containers/base/Dockerfile").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("ARG PYTHON_IMAGE="))


def exists(reference: str) -> bool:
    """Tells whether an image is on this machine."""
    return subprocess.run(["docker", "image", "inspect", reference], capture_output=True, check=False).returncode == 0


def in_container(reference: str, *command: str, mounts: tuple[Path, ...] = (), user: str = "12345:0") -> str:
    """Runs a command as another user, with a read-only root and no network, and gives what it printed."""
    confined = ["--read-only", "--tmpfs=/tmp", "--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    volumes = [part for mount in mounts for part in ("--volume", f"{mount}:{mount}:ro")]
    done = subprocess.run(
        ["docker", "run", "--rm", f"--user={user}", *confined, *volumes, reference, *command],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
