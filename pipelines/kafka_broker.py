"""A Kafka broker on this machine, in KRaft mode, for tests and demonstrations. It keeps nothing safe: one node, no TLS.

Standard library only, as java_archives.
"""

import base64
import contextlib
import os
import signal
import socket
import struct
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from components.errors import UnavailableError
from pipelines.java_archives import archives, java

JAVA_VERSION = 17
"""What Kafka 4 needs at least."""

_SECONDS_TO_START = 60
_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
"""The first request of every client: a broker that answers it takes others."""


class Broker:
    """One broker; its topics outlive a restart, as long as its folder does."""

    def __init__(self, folder: Path, long_running: bool = False) -> None:
        """Prepares the folder; starts nothing.

        Args:
            folder: for its configuration, data and log.
            long_running: compile its code as well as Java can, which takes longer to start.
        """
        self._folder = folder
        self._port, self._controller_port = _free_ports()
        self._java = [
            java("a local Kafka broker", JAVA_VERSION),
            *_options(long_running),
            "-cp",
            os.pathsep.join(map(str, archives("kafka"))),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._configuration = folder / "server.properties"
        folder.mkdir(parents=True, exist_ok=True)
        self._configuration.write_text(self._properties(), encoding="utf-8")
        self._format()

    @property
    def servers(self) -> str:
        """What clients are given as bootstrap servers."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Starts it, and waits until it answers.

        Raises:
            UnavailableError: it does not.
        """
        log = self._folder / "broker.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*self._java, "kafka.Kafka", str(self._configuration)],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for its clients; it ends after them
            )
        deadline = time.monotonic() + _SECONDS_TO_START
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = " ".join(log.read_text(errors="replace").split())[-400:]
                self.kill()
                raise UnavailableError(f"the Kafka broker does not start; it says: {said}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends it in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it as a lost machine does."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(number)
            self._process.wait(timeout=60)
            self._process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
                connection.sendall(_API_VERSIONS)
                return bool(connection.recv(4))
        except OSError:
            return False

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().strip("=").replace("-", "A")
        command = [*self._java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._configuration)]
        done = subprocess.run([*command, "--ignore-formatted"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError(f"the Kafka broker's folder cannot be made: {(done.stdout + done.stderr)[-400:]}")

    def _properties(self) -> str:
        properties = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "listeners": f"PLAINTEXT://127.0.0.1:{self._port},CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self._port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "log.dirs": self._folder / "data",
            "auto.create.topics.enable": "false",
            "num.partitions": 4,
            # One node holds the one copy of everything.
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            # A group that starts, or loses a member, is not held up.
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            # After a kill it may register anew as soon as the controller, itself, has given up its former life.
            "broker.heartbeat.interval.ms": 250,
            "broker.session.timeout.ms": 1000,
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
        }
        return "".join(f"{name}={value}\n" for name, value in properties.items())


@contextlib.contextmanager
def broker(folder: Path, long_running: bool = False) -> Iterator[Broker]:
    """Runs a broker for as long as the block goes on."""
    started = Broker(folder, long_running)
    started.start()
    try:
        yield started
    finally:
        started.kill()


def _options(long_running: bool) -> list[str]:
    # log4j's own default is errors on the console, which are the broker's log here.
    quick = [] if long_running else ["-XX:TieredStopAtLevel=1"]
    return ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-Xshare:auto", *quick]


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        for listener in (first, second):
            listener.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]
