"""What the model server must do with a model, and where it is deployed."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from components.settings.section import Name, Section


class Golden(Section):
    """Rows whose answers must be the ones that were evaluated."""

    rows: PositiveInt = 50
    """Taken at equal distances from the predicted rows."""
    tolerance: Annotated[float, Field(ge=0)] = 1e-4
    """Largest difference of a number; relative to it when it is above 1."""
    tolerances: dict[Name, Annotated[float, Field(ge=0)]] = {}
    """Others, by output column."""


class Serving(Section):
    """What the real model server must do with a model before it is published."""

    golden: Golden = Golden()
    requests: PositiveInt = 200
    """Requests of one row, one after the other, whose latency is measured."""
    start_seconds: Annotated[float, Field(gt=0)] = 120.0
    """How long the server may take until it is ready."""
    max_p50_ms: Annotated[float, Field(gt=0)] | None = None
    """Limit on the median latency. Set it only where runs have a machine for themselves; always measured."""
    max_p99_ms: Annotated[float, Field(gt=0)] | None = None
    """Limit on the 99th percentile."""
    max_memory_mib: Annotated[float, Field(gt=0)] | None = None
    """Limit on the server's resident set, after all requests."""


Percent = Annotated[int, Field(ge=1, le=99)]


class Resources(Section):
    """What a model server's container asks for and may have, in Kubernetes' notation."""

    cpu: Name = "250m"
    memory: Name = "1Gi"
    cpu_limit: str = ""
    """Empty: none; a limit makes the server wait although the node is idle."""
    memory_limit: Name = "2Gi"


class Canary(Section):
    """How traffic moves to a new model, and what stops it. Needs a gateway."""

    steps: list[Percent] = [10, 50]
    """Shares of the traffic, one after the other; then all of it."""
    hold_seconds: Annotated[float, Field(gt=0)] = 60.0
    """How long each step is watched."""
    min_requests: PositiveInt = 50
    """With fewer requests in a step, to the new or the old model, the step is not judged and passes."""
    max_error_increase: Annotated[float, Field(ge=0, le=1)] = 0.01
    """How much larger the share of requests may be that are not answered with 200; chance is allowed for."""
    max_latency_ratio: Annotated[float, Field(ge=1)] = 1.5
    """How many times longer the mean request may take."""
    latency_slack_ms: Annotated[float, Field(ge=0)] = 5.0
    """A mean that is longer by less is not judged."""
    max_prediction_shift: Annotated[float, Field(ge=0, le=1)] = 0.15
    """Largest distance between the distributions of the predictions (Kolmogorov-Smirnov; of classes: largest
    difference of one class's share); chance is allowed for."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if sorted(set(self.steps)) != self.steps:
            raise ValueError(f"steps must rise: {self.steps}")
        return self


class ServedRequestLog(Section):
    """What the model server logs of its requests."""

    uri: Annotated[str, Field(pattern=r"^$|^(gs|s3)://[^/]")] = ""
    """Folder, gs:// or s3://; empty: no log. Monitoring reads it where `monitoring.log.source` names nothing."""
    sample: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the requests that are logged."""
    redact: list[Annotated[str, Field(pattern="^[^,]+$")]] = []
    """Features that are left out, beside those annotated `pii` in the schema."""
    credentials: str = "lockgate-storage"
    """Secret and ConfigMap, where there are such, whose keys become variables of the server, e.g. AWS_ACCESS_KEY_ID and
    AWS_ENDPOINT_URL. Not needed where the service account may write."""


class Deployment(Section):
    """Where and how a published model is served."""

    target: Literal["local", "kserve"] = "local"
    """local: the run ends with the published model, which `make serve` serves."""
    namespace: Name = "lockgate"
    service: str = ""
    """Name of the InferenceService and of the model in URLs; empty: the project's."""
    runtime: Name = "lockgate-predictor"
    """The ServingRuntime."""
    model_format: Name = "tensorflow"
    """As the ServingRuntime names it."""
    min_replicas: PositiveInt = 1
    """At the gateway's full load, too: while traffic moves, old and new model have this many each."""
    max_replicas: PositiveInt | None = None
    autoscaler: Literal["none", "hpa", "keda", "external"] = "none"
    """none: always min_replicas."""
    resources: Resources = Resources()
    service_account: str = "lockgate-predictor"
    """Of the model server, which reads the model with it."""
    storage_secret: str = ""
    """Secret with the credentials of the model store; empty: what the service account has."""
    request_log: ServedRequestLog = ServedRequestLog()
    node_selector: dict[str, str] = {}
    gateway: Annotated[str, Field(pattern=r"^$|^[-a-z0-9.]+/[-a-z0-9.]+$")] = ""
    """Gateway (Gateway API) as namespace/name; empty: no traffic split and no URL outside of the cluster."""
    hostname: str = ""
    """Under which the gateway serves the model; needed with a gateway."""
    golden: Golden = Golden()
    canary: Canary = Canary()
    settle_seconds: Annotated[float, Field(ge=0)] = 5.0
    """How long gateway and cluster may take to follow a change of the traffic."""
    rollout_seconds: Annotated[float, Field(gt=0)] = 600.0
    """How long new pods may take to be ready."""
    scheduling_seconds: Annotated[float, Field(ge=0)] = 120.0
    """How long a pod may wait for room, e.g. for the cluster to grow."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 3600.0
    """For the whole stage; a later run goes on where it stood."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas is {self.max_replicas}, min_replicas {self.min_replicas}; raise the former")
        if bool(self.gateway) != bool(self.hostname):
            raise ValueError("give both gateway and hostname, or none of them")
        needed = len(self.canary.steps) * (self.canary.hold_seconds + self.settle_seconds) if self.gateway else 0
        if needed >= self.timeout_seconds:
            raise ValueError(
                f"the canary steps alone take {needed:g} s; raise timeout_seconds ({self.timeout_seconds:g})"
            )
        return self
