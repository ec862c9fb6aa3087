"""What a deployment came to."""

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from components.deploy_model.canary import Step

DECISION = "decision.json"

Action = Literal["created", "promoted", "unchanged", "overtaken", "rolled back"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Happening(_Record):
    """One thing that was done or seen."""

    at: AwareDatetime
    text: str


class Golden(_Record):
    """A golden test."""

    service: str
    rows: int
    differing: int
    largest: float | None
    """Largest difference; None: none could be measured."""
    cause: str
    """Empty: passed."""


class Decision(_Record):
    """Verdict on one model, and how it came about."""

    verdict: Literal["pass", "fail"]
    reason: str
    action: Action
    namespace: str
    service: str
    version: str
    storage_uri: str
    previous_version: str
    """What was served before; empty: nothing."""
    previous_storage_uri: str
    url: str
    """From outside through the gateway; without one, inside the cluster."""
    cluster_url: str
    """Of the stable model, inside the cluster."""
    golden: list[Golden]
    steps: list[Step]
    happenings: list[Happening]
    events: list[str]
    """Last of the cluster, oldest first; none of a deployment that passed."""
    log: list[str]
    """End of the log of the container that failed."""
