"""One deployment at a time: a Lease that says who deploys a service, and remembers what was served."""

import contextlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from components.deploy_model.cluster import LEASE, Cluster, ConflictError, Object
from components.errors import UnavailableError

DURATION_SECONDS = 40
_RENEW_SECONDS = 8.0
_NOTICE_SECONDS = 15.0
"""How long somebody whose lease was taken over may need to see it."""
_LIVE, _PREVIOUS = "lockgate.dev/live", "lockgate.dev/previous"


class Served(BaseModel):
    """A model that was deployed to the end."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    storage_uri: str
    predictor: dict[str, Any]
    """Its `spec.predictor`."""
    annotations: dict[str, str] = {}
    """Ours on its InferenceService. KServe puts them on the pods, so that with others the same model gets new pods."""


class DeploymentLease:
    """The Lease of one service."""

    def __init__(self, cluster: Cluster, service: str, holder: str) -> None:
        """Names the lease.

        Args:
            cluster: with the service's namespace.
            service: its name.
            holder: who deploys; never the same twice.
        """
        self._cluster = cluster
        self._service = service
        self.name = f"{service}-deployment"
        self._holder = holder
        self._renewed = 0.0

    # ------------------------------------------------------------------------------------------------- lock

    @contextlib.contextmanager
    def held(self, take_over: bool = False) -> Iterator[None]:
        """Holds the lease while the block runs; waits for it first.

        Args:
            take_over: take it from who has it, who then stops at its next step.

        Raises:
            UnavailableError: others deploy until the deadline, or took the lease over.
        """
        if take_over and _is_held(self._cluster.get(LEASE, self.name)):
            while not self._write(self._cluster.get(LEASE, self.name), self._holder):
                self._cluster.pause(0.2, f"{self.name} is changed by others all the time")
            self._cluster.pause(_NOTICE_SECONDS, "the other deployment stops")
        while not self._take():
            self._cluster.pause(1.0, f"another deployment of service '{self._service}' is under way")
        self._cluster.on_pause = self._renew
        try:
            yield
        finally:
            self._cluster.on_pause = lambda: None
            with contextlib.suppress(Exception):  # it runs out by itself; the block's own fault matters
                self._release()

    def _take(self) -> bool:
        live = self._cluster.get(LEASE, self.name)
        if _holder_of(live) != self._holder and _is_held(live):
            return False
        return self._write(live, self._holder)

    def _renew(self) -> None:
        if time.monotonic() - self._renewed < _RENEW_SECONDS:
            return
        self._cluster.on_pause = lambda: None  # what is waited for in here must not lead here again
        try:
            if holder := self._rewrite(self._holder):
                raise UnavailableError(
                    f"service '{self._service}': {holder} has taken the deployment over; see what it did before you "
                    "start the run again"
                )
        finally:
            self._cluster.on_pause = self._renew

    def _release(self) -> None:
        self._rewrite(None)

    def _rewrite(self, holder: str | None) -> str:
        """Writes a lease that is ours, until nobody else writes it at the same time.

        Returns:
            Who has it; empty: it was ours.
        """
        while True:
            live = self._cluster.get(LEASE, self.name)
            if (other := _holder_of(live)) != self._holder:
                return other or "somebody"
            if self._write(live, holder):
                return ""
            self._cluster.pause(0.2, f"{self.name} is changed by others all the time")

    def _write(self, live: Object | None, holder: str | None) -> bool:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        metadata = live["metadata"] if live else {"name": self.name, "namespace": self._cluster.namespace}
        spec = {"leaseDurationSeconds": DURATION_SECONDS, "renewTime": now}
        if holder:
            spec["holderIdentity"] = holder
        try:
            self._cluster.write(LEASE, {"metadata": metadata, "spec": spec})
        except ConflictError:
            return False
        self._renewed = time.monotonic()
        return True

    # ----------------------------------------------------------------------------------------------- memory

    def live(self) -> Served | None:
        """Gives the model that was deployed last; None: none was."""
        return self._read(_LIVE)

    def previous(self) -> Served | None:
        """Gives the model that it replaced."""
        return self._read(_PREVIOUS)

    def remember(self, served: Served) -> None:
        """Makes a model the one that was deployed last."""
        before = self.live()

        def change(live: Object | None) -> Object:
            assert live is not None
            notes = dict(live["metadata"].get("annotations") or {})
            notes[_LIVE] = served.model_dump_json()
            if before and before.predictor != served.predictor:
                notes[_PREVIOUS] = before.model_dump_json()
            return {**live, "metadata": {**live["metadata"], "annotations": notes}}

        self._cluster.apply(LEASE, self.name, change)

    def _read(self, note: str) -> Served | None:
        live = self._cluster.get(LEASE, self.name)
        text = ((live or {}).get("metadata", {}).get("annotations") or {}).get(note)
        return Served.model_validate(json.loads(text)) if text else None


def _holder_of(live: Object | None) -> str:
    return str((live or {}).get("spec", {}).get("holderIdentity") or "")


def _is_held(live: Object | None) -> bool:
    spec = (live or {}).get("spec", {})
    if not spec.get("holderIdentity") or not spec.get("renewTime"):
        return False
    renewed = datetime.fromisoformat(str(spec["renewTime"]))
    return (datetime.now(UTC) - renewed).total_seconds() < spec.get("leaseDurationSeconds", DURATION_SECONDS)
