"""What the machine must have before a cluster is made; each message says what to do."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.errors import InputError, UnavailableError

GIB = 1 << 30
MEMORY = 6 * GIB
"""The platform idles at 2 GiB; a training step takes up to 3."""
DISK = 12 * GIB
"""Images of the platform and of the suite, in Docker and in the node."""
CORES = 2
# What kind's documentation recommends; Debian's 128 instances are gone with the first dozen of pods.
INOTIFY = {"max_user_instances": 512, "max_user_watches": 524288}


def docker_info() -> dict[str, Any]:
    """Asks Docker what it is.

    Raises:
        InputError: it is not installed, or this user may not use it.
        UnavailableError: its daemon does not run.
    """
    if not shutil.which("docker"):
        raise InputError(
            "there is no `docker` on PATH; install Docker Engine 24 or later (docs.docker.com/engine/install)"
        )
    done = subprocess.run(["docker", "info", "--format", "{{json .}}"], capture_output=True, text=True, check=False)
    info: dict[str, Any] = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    if info.get("ServerVersion"):
        return info
    said = " ".join([*(info.get("ServerErrors") or ()), done.stderr])
    if "permission denied" in said:
        raise InputError("you may not use Docker; `sudo usermod -aG docker $USER`, log in again, then repeat")
    raise UnavailableError("the Docker daemon does not answer; `sudo systemctl start docker`, or start Docker Desktop")


def faults(info: Mapping[str, Any], ports: Mapping[str, int], proc: Path = Path("/proc")) -> Iterator[str]:
    """Names what is missing, a line each.

    Args:
        info: what `docker info` says.
        ports: that must be free, by the name of their variable.
        proc: the kernel's folder; elsewhere in tests.
    """
    if info["MemTotal"] < MEMORY:
        yield (
            f"Docker has {info['MemTotal'] / GIB:.1f} GiB of memory (needed: {MEMORY // GIB} GiB); "
            "take a larger machine, or give Docker Desktop more (Settings, Resources)"
        )
    if info["NCPU"] < CORES:
        yield f"Docker has {info['NCPU']} core (needed: {CORES}); take a larger machine, or give Docker Desktop more"
    root = Path(info["DockerRootDir"])
    if root.is_dir() and (free := shutil.disk_usage(root).free) < DISK:
        yield f"{root} has {free / GIB:.1f} GiB free (needed: {DISK // GIB} GiB); `docker system prune` frees some"
    for name, needed in INOTIFY.items():
        limit = proc / "sys" / "fs" / "inotify" / name
        if limit.is_file() and (found := int(limit.read_text(encoding="utf-8"))) < needed:
            yield f"fs.inotify.{name} is {found} (needed: {needed}); `sudo sysctl fs.inotify.{name}={needed}`"
    names: dict[int, str] = {}
    for name, port in ports.items():
        if port in names:
            yield f"{names[port]} and {name} are both {port}; set one of them to another port"
        elif not _is_free(port):
            yield f"port {port} of 127.0.0.1 is taken; set {name} to another one, or stop what listens there"
        names[port] = name


def warnings(info: Mapping[str, Any]) -> Iterator[str]:
    """Names what works today and will not always."""
    if info["CgroupVersion"] != "2":
        yield (
            f"Docker uses cgroup v{info['CgroupVersion']}, which Kubernetes gives up after 1.34; boot with "
            "systemd.unified_cgroup_hierarchy=1, or take a newer distribution"
        )


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
