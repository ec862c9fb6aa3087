"""Containers: each task of a run in its image, through kfp.local's DockerRunner.

kfp 2.17 removes a container before it asks how it ended, and takes a container that is gone for a success
(kubeflow/pipelines issue 13332). So the function that runs a container is replaced; the handler around it
(mounts, arguments) is kfp's.
"""

import contextlib
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from docker.models.containers import Container
from docker.types import Mount
from kfp import local
from kfp.local import docker_task_handler

from components.errors import InputError, UnavailableError
from components.storage import is_remote
from pipelines.execution import Ended, Execute, Seam

_RUN_LABEL = "lockgate.run"
_NO_NETWORK = "none"
_PATTERN = re.compile(r"[*?\[{]")
_KILLED = 128  # a shell's and Docker's way to report a signal


class Containers:
    """Runs tasks in containers: no network, nothing writable but the run's folders, no privilege."""

    def __init__(
        self,
        images: Sequence[str],
        run_name: str,
        reads: Sequence[str],
        writes: Sequence[str],
        network: str = _NO_NETWORK,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Finds the Docker daemon and the images.

        Args:
            images: that the tasks need.
            run_name: labels the containers.
            reads: URIs of files, or patterns; the folders that hold the local ones are mounted read-only, under their
                own paths.
            writes: URIs of folders; local ones are made where they are not there, and mounted writable.
            network: a Docker network; `none`: no network.
            variables: environment of every task, e.g. credentials of a bucket.

        Raises:
            InputError: an image is not on this machine, or a URI is remote and there is no network.
            UnavailableError: the Docker daemon does not answer.
        """
        self.name = "docker"
        self._label = {_RUN_LABEL: run_name}
        self._variables = dict(variables or {})
        self._network = network
        remote = next((uri for uri in (*reads, *writes) if is_remote(uri)), None)
        if remote and network == _NO_NETWORK:
            raise InputError(f"'{remote}' cannot be reached from a container without network; add --network bridge")
        folders = mounted(reads, writes)
        # A folder that is not there cannot be seen; the stage says what it misses.
        self._mounts = [_mount(folder, writable) for folder, writable in folders.items() if writable or folder.is_dir()]
        with _client() as client:
            for image in dict.fromkeys(images):
                try:
                    client.images.get(image)
                except ImageNotFound as error:
                    raise InputError(
                        f"image '{image}' is not on this machine; run `make images`, or `docker pull {image}`"
                    ) from error

    @property
    def kfp_runner(self) -> local.DockerRunner:
        """What kfp.local is initialised with."""
        return local.DockerRunner(
            network_mode=self._network,
            user=f"{os.getuid()}:{os.getgid()}",  # so that what a task writes belongs to who started it
            read_only=True,
            tmpfs={"/tmp": "mode=1777"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            init=True,  # the executor leaves children behind that somebody must reap
            labels=self._label,
            mounts=self._mounts,
        )

    def seam(self, execute: Execute) -> Seam:
        """Gives the function of kfp.local that runs a container, and ours in its place."""

        def run_docker_container(
            client: docker.DockerClient, image: str, command: list[str], volumes: dict[str, Any], **arguments: Any
        ) -> int:
            variables = self._variables | arguments.pop("environment", {})

            def run(task: str, log: Path) -> Ended:
                del task
                return _run(
                    client, log, image=image, command=command, volumes=volumes, environment=variables, **arguments
                )

            return execute(run)

        return docker_task_handler, "run_docker_container", run_docker_container

    def done(self, task: str) -> None:
        """Nothing outlives a task."""

    def stop(self) -> None:
        """Removes what an interrupted run left."""
        with contextlib.suppress(DockerException), _client() as client:
            for container in client.containers.list(all=True, filters={"label": _label(self._label)}):
                _remove(container)


def _label(label: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in label.items()]


def mounted(reads: Sequence[str], writes: Sequence[str]) -> dict[Path, bool]:
    """Gives the folders that tasks see, and whether they may write there.

    Each file's own folder is seen, not what several have in common, which may be all of the disk. What lies in a folder
    that is seen as well is left out, unless it is the one that is writable.

    Args:
        reads: as of `Containers`; where a pattern stands for folders, too, the last folder before it is seen.
        writes: as of `Containers`.

    Raises:
        InputError: a file lies in no folder.
    """
    writable = _outermost(_local(writes))
    readable = _outermost([_fixed(path).parent for path in _local(reads)])
    if Path("/") in (*readable, *writable):
        raise InputError("containers cannot see all of '/'; put what lies there directly into a folder")
    inside = [one for one in readable if not any(one.is_relative_to(other) for other in writable)]
    return {**dict.fromkeys(inside, False), **dict.fromkeys(writable, True)}


def _local(uris: Sequence[str]) -> list[Path]:
    return [Path(os.path.normpath(uri.removeprefix("file://"))) for uri in uris if not is_remote(uri)]


def _fixed(pattern: Path) -> Path:
    """Cuts a pattern behind its first part that stands for several names."""
    names = pattern.parts
    count = next((index for index, name in enumerate(names, 1) if _PATTERN.search(name)), len(names))
    return Path(*names[:count])


def _outermost(folders: Sequence[Path]) -> list[Path]:
    return [
        folder
        for folder in dict.fromkeys(folders)
        if not any(folder != other and folder.is_relative_to(other) for other in folders)
    ]


def _mount(folder: Path, writable: bool) -> Mount:
    if writable:
        folder.mkdir(parents=True, exist_ok=True)
    return Mount(str(folder), str(folder), type="bind", read_only=not writable)


@contextlib.contextmanager
def _client() -> Iterator[docker.DockerClient]:
    try:
        client = docker.from_env()
    except DockerException as error:
        raise UnavailableError(
            "the Docker daemon does not answer (is it running, and may you use it? try `docker info`); "
            "start it, or run without --runner docker"
        ) from error
    try:
        yield client
    finally:
        client.close()


def _run(client: docker.DockerClient, log: Path, **arguments: Any) -> Ended:
    """Runs a container to its end, whatever it takes, and removes it after its state is known."""
    try:
        container = client.containers.run(detach=True, **arguments)
    except APIError as error:
        log.write_text(f"docker: {error.explanation}\n", encoding="utf-8")
        return Ended(UnavailableError.exit_code, 0.0, 0)
    usage = _Usage(container)
    try:
        with log.open("ab") as file:
            for chunk in container.logs(stream=True, follow=True):
                file.write(chunk)
                file.flush()
        code = container.wait()["StatusCode"]
        # The stream of a container that ends fast may end before its last lines; the cause is among them.
        log.write_bytes(container.logs())
    finally:
        _remove(container)
    cpu_seconds, peak_bytes = usage.end()
    return Ended(_KILLED - code if code > _KILLED else code, cpu_seconds, peak_bytes)


def _remove(container: Container) -> None:
    with contextlib.suppress(APIError):  # it is gone, or about to be
        container.remove(force=True)


class _Usage:
    """What a container used, as Docker's statistics say once a second; a shorter task shows nothing."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._cpu_seconds = 0.0
        self._peak_bytes = 0
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        with contextlib.suppress(DockerException, OSError, ValueError):
            for sample in self._container.stats(stream=True, decode=True):
                memory = sample.get("memory_stats", {})
                if not memory.get("usage"):
                    return  # it has ended
                cache = memory.get("stats", {})
                used = memory["usage"] - cache.get("total_inactive_file", cache.get("inactive_file", 0))
                self._peak_bytes = max(self._peak_bytes, used)
                self._cpu_seconds = sample["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9

    def end(self) -> tuple[float, int]:
        """Gives CPU time in seconds, and the peak of memory in bytes."""
        self._thread.join(timeout=2)
        return self._cpu_seconds, self._peak_bytes
