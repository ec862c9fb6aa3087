"""A judged window with labelled spans beside it, and real servers on this machine that are told: HTTP and SMTP."""

import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from components.monitoring_record import Finding, LogFacts, MonitoringRecord, Verdict
from components.respond_to_verdict.response import Answer, respond
from components.settings import Data, Monitoring, Publication

EVIDENCE = "0123456789abcdef"


def record(verdict: Verdict = "retrain", evidence: str = EVIDENCE, **changes: Any) -> MonitoringRecord:
    finding = Finding(
        kind="quality", detail="auc 0.61 <0.68 & falling>", rule="retrain", verdict=verdict, value=0.61, limit=0.66
    )
    other = Finding(kind="skew", subject="dep_time", detail="0.2 (limit: 0.1)", rule="watch", verdict="watch")
    log = dict.fromkeys(LogFacts.model_fields, 0) | {"unreadable": [], "unfit": {}, "unlogged": []}
    values = {
        "project": "shop",
        "window": "2025-03",
        "start": datetime(2025, 3, 1, tzinfo=UTC),
        "end": datetime(2025, 4, 1, tzinfo=UTC),
        "created": datetime(2025, 4, 1, 3, tzinfo=UTC),
        "verdict": verdict,
        "reason": "quality: auc 0.61 <0.68 & falling>",
        "evidence": evidence,
        "model": "models/shop/versions/v0001-1a2b3c4d",
        "version": "v0001-1a2b3c4d",
        "log": LogFacts.model_validate(log | {"first": None, "last": None}),
        "labels": None,
        "features": {},
        "versions": [],
        "metric": "auc",
        "quality": None,
        "calibration": None,
        "slices": [],
        "findings": [finding, other],
        "notes": [],
    }
    return MonitoringRecord.model_validate(values | changes)


@dataclass
class World:
    """A project's folder."""

    folder: Path
    window: str = "last 2 months"

    def __post_init__(self) -> None:
        (self.folder / "data").mkdir()
        for month in range(1, 6):
            (self.folder / "data" / f"visits-2025-{month:02d}.csv").write_text("visit\n1\n")

    @property
    def data(self) -> Data:
        source = str(self.folder / "data" / "visits-{YYYY}-{MM}.csv")
        split = {"by": "time", "column": "visited", "eval_last": "1 month"}
        return Data.model_validate({"source": source, "window": self.window, "split": split})

    def respond(self, found: MonitoringRecord, retrain_on: str = "kubeflow", **response: Any) -> Answer:
        """Runs the stage."""
        place = self.folder / "record"
        place.mkdir(exist_ok=True)
        (place / "record.json").write_text(found.model_dump_json())
        monitoring = Monitoring.model_validate({"response": response})
        return respond(
            "shop", monitoring, self.data, Publication(store=str(self.folder / "models")), str(place), retrain_on
        )

    @property
    def markers(self) -> list[str]:
        """What lies in the folder of the responses."""
        folder = self.folder / "models" / "monitoring" / "shop" / "responses"
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.json"))


@dataclass
class Told:
    """What an HTTP server was told, and how it answers."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    """Of the next answers; then 200."""
    headers: dict[str, str] = field(default_factory=dict)
    """Of its answers."""
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    """Path, headers, JSON."""


@contextlib.contextmanager
def told_by_http() -> Iterator[Told]:
    told = Told()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            told.requests.append((self.path, headers, json.loads(content)))
            self.send_response(told.statuses.pop(0) if told.statuses else 200)
            for name, value in {**told.headers, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Mailbox:
    """What an SMTP server took, and how it answers."""

    port: int = 0
    mails: list[bytes] = field(default_factory=list)
    refusals: dict[str, list[str]] = field(default_factory=dict)
    """By command, the next answers in place of a good one."""


@contextlib.contextmanager
def told_by_mail() -> Iterator[Mailbox]:
    """An SMTP server (RFC 5321, without extensions) on a free port."""
    box = Mailbox()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._say("220 mail.test")
            while line := self.rfile.readline().decode().strip():
                command = line.split(" ")[0].upper()
                if box.refusals.get(command):
                    self._say(box.refusals[command].pop(0))
                elif command == "DATA":
                    self._say("354 go on")
                    lines = []
                    while (one := self.rfile.readline()) != b".\r\n":
                        lines.append(one[1:] if one.startswith(b"..") else one)
                    box.mails.append(b"".join(lines))
                    self._say("250 taken")
                elif command == "QUIT":
                    return self._say("221 bye")
                else:
                    self._say("250 mail.test")
            return None

        def _say(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    box.port = server.server_address[1]
    try:
        yield box
    finally:
        server.shutdown()
        server.server_close()
