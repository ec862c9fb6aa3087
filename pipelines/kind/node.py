"""The kind cluster: one node, a container of Docker's, with ports of this machine mapped to it."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from components.errors import UnavailableError

LABEL = "lockgate.dev/made-by"
_MADE_BY = "kind-up"
# kind's own file in the node, with the labels that we asked for.
_CONFIGURATION = "/kind/kubeadm.conf"
_READY_SECONDS = 240

NODE_PORTS = {"GATEWAY_PORT": 30080, "UI_PORT": 30380, "API_PORT": 30888, "STORE_PORT": 30900}
"""Of manifests/kind, by the variable that names the machine's port."""


def configuration(name: str, image: str, ports: Mapping[str, int]) -> dict[str, Any]:
    """Gives the configuration that kind makes the cluster from."""
    mappings = [
        {"containerPort": NODE_PORTS[variable], "hostPort": port, "listenAddress": "127.0.0.1", "protocol": "TCP"}
        for variable, port in ports.items()
    ]
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "name": name,
        "nodes": [
            {"role": "control-plane", "image": image, "labels": {LABEL: _MADE_BY}, "extraPortMappings": mappings}
        ],
    }


class Node:
    """The cluster's one node, there or not."""

    def __init__(self, kind: str, name: str, folder: Path) -> None:
        """Args: kind: its path; name: of the cluster; folder: where its state is kept."""
        self._kind = kind
        self.name = name
        self._folder = folder
        self.container = f"{name}-control-plane"

    @property
    def context(self) -> str:
        """How kubeconfig calls the cluster."""
        return f"kind-{self.name}"

    @property
    def _unfinished(self) -> Path:
        return self._folder / "unfinished"

    def state(self) -> str:
        """Gives Docker's word for how the container is, e.g. `running`; empty: there is none."""
        done = _docker("inspect", "--format", "{{.State.Status}}", self.container, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    def image(self) -> str:
        """Gives the image of the container."""
        return _docker("inspect", "--format", "{{.Config.Image}}", self.container).stdout.strip()

    def ports(self) -> dict[str, int]:
        """Gives the machine's ports, by their variables."""
        bound = json.loads(_docker("inspect", "--format", "{{json .HostConfig.PortBindings}}", self.container).stdout)
        return {
            variable: int(bound[f"{port}/tcp"][0]["HostPort"])
            for variable, port in NODE_PORTS.items()
            if bound.get(f"{port}/tcp")
        }

    def is_ours(self) -> bool:
        """Tells whether kind-up made it; also of a cluster that is stopped, or does not answer."""
        done = _docker("cp", f"{self.container}:{_CONFIGURATION}", "-", check=False)
        return f"{LABEL}={_MADE_BY}" in done.stdout

    def is_unfinished(self) -> bool:
        """Tells whether we began to make it, and were stopped."""
        return self._unfinished.is_file()

    def create(self, image: str, ports: Mapping[str, int]) -> None:
        """Makes the cluster.

        Raises:
            UnavailableError: kind could not; the line has its words.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "kind.yaml"
        config.write_text(yaml.safe_dump(configuration(self.name, image, ports), sort_keys=False), encoding="utf-8")
        self._unfinished.touch()
        log = self._folder / "create.log"
        done = self._run("create", "cluster", "--config", str(config), "--wait", f"{_READY_SECONDS}s")
        log.write_text(done.stdout + done.stderr, encoding="utf-8")
        if done.returncode:
            self._unfinished.unlink()  # kind removes what it made
            lines = [line.strip() for line in done.stderr.splitlines() if "ERROR" in line or "rror:" in line]
            raise UnavailableError(f"kind could not make the cluster: {(lines or ['no message'])[-1]}; see {log}")
        self._unfinished.unlink()

    def start(self) -> None:
        """Starts the container of a cluster that was stopped, e.g. with the machine."""
        _docker("unpause" if self.state() == "paused" else "start", self.container)

    def export(self) -> None:
        """Puts the cluster into the kubeconfig, where it may have got lost."""
        done = self._run("export", "kubeconfig", "--name", self.name)
        if done.returncode:
            raise UnavailableError(
                f"kind export kubeconfig: {done.stderr.strip().splitlines()[-1:]}; `make kind-down`?"
            )

    def delete(self) -> None:
        """Removes the cluster, whatever of it is there."""
        done = self._run("delete", "cluster", "--name", self.name)
        if done.returncode:
            raise UnavailableError(f"kind delete cluster: {done.stderr.strip()}")
        self._unfinished.unlink(missing_ok=True)

    def images(self) -> set[str]:
        """Names the images in the node, as Docker spells them with their registry."""
        done = _docker("exec", self.container, "ctr", "--namespace=k8s.io", "images", "list", "--quiet")
        return set(done.stdout.split())

    def load(self, images: Sequence[str]) -> str:
        """Copies images from Docker into the node; gives what went wrong, or nothing."""
        done = self._run("load", "docker-image", *images, "--name", self.name)
        return done.stderr.strip().splitlines()[-1] if done.returncode else ""

    def _run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([self._kind, *arguments], capture_output=True, text=True, check=False)


def full_name(image: str) -> str:
    """Spells an image as containerd does, with its registry."""
    host, slash, _ = image.partition("/")
    if not slash:
        return f"docker.io/library/{image}"
    return image if "." in host or ":" in host or host == "localhost" else f"docker.io/{image}"


def in_docker(image: str) -> bool:
    """Tells whether Docker has an image."""
    return _docker("image", "inspect", image, check=False).returncode == 0


def pull(image: str) -> None:
    """Gets an image into Docker.

    Raises:
        UnavailableError: it cannot be had.
    """
    _docker("pull", "--quiet", image)


def _docker(*arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode and check:
        raise UnavailableError(f"docker {' '.join(arguments)}: {done.stderr.strip()}")
    return done
