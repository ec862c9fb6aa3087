"""What check_serving found out about a model on its server: `serving.json`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

SERVING = "serving.json"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Check(_Record):
    """One condition that the model and its server must meet."""

    name: str
    ok: bool
    detail: str
    """What was found; of a failed check, its cause."""
    bound: str = ""
    """Empty: measured, and bound by nothing."""


class Hostile(_Record):
    """A request that must be refused, and what became of it."""

    protocol: Literal["v1", "v2", "grpc"]
    request: str
    ok: bool
    answer: str
    """Status and cause."""


class Figures(_Record):
    """What was measured."""

    start_seconds: float
    """From the start of the process until it was ready."""
    p50_ms: float
    """Of a request with one row over REST v1, on one connection, one after the other."""
    p99_ms: float
    memory_mib: float
    """Resident set of the server after all requests."""


class ServingResult(_Record):
    """Verdict on one model, and how it came about."""

    verdict: Literal["pass", "fail"]
    reason: str
    rows: int
    """Golden rows."""
    checks: list[Check]
    hostile: list[Hostile]
    figures: Figures | None
    """None: the server did not get as far."""
    log: list[str]
    """End of the server's log; none of one that passed."""

    def scalars(self) -> dict[str, float]:
        """The figures, by name."""
        return self.figures.model_dump() if self.figures else {}
