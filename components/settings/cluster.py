"""How stages run on a cluster."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from components.settings.section import Name, Section

StageName = Literal[
    "ingest_data",
    "validate_data",
    "gate",
    "transform_data",
    "tune_model",
    "train_model",
    "predict_batch",
    "evaluate_model",
    "explain_model",
    "check_serving",
    "publish_model",
    "deploy_model",
    "monitor_model",
    "write_predictions",
    "respond_to_verdict",
    "report_run",
]

Cpu = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?$|^[0-9]+m$", coerce_numbers_to_str=True)]

Memory = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?[KMGT]i?$")]

LabelKey = Annotated[str, Field(pattern=r"^([a-z0-9][-a-z0-9.]*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")]

LabelValue = Annotated[str, Field(max_length=63, pattern=r"^$|^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")]

ObjectName = Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]

Seconds = Annotated[PositiveInt, Field(lt=2**31)]


class Accelerator(Section):
    """What a stage gets beside processors, e.g. GPUs."""

    type: Name = "nvidia.com/gpu"
    """The resource, as its device plugin names it."""
    count: PositiveInt = 1


class Toleration(Section):
    """A taint of nodes that does not keep a stage away, as in a pod's specification."""

    key: str = ""
    """Empty: all taints; operator must then be Exists."""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Empty: all."""

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if self.operator == "Equal" and not self.key:
            raise ValueError("a toleration without a key tolerates all taints; say so with operator: Exists")
        return self


class Volume(Section):
    """A claim (PersistentVolumeClaim) that is there already, mounted into a stage."""

    claim: ObjectName
    path: Annotated[str, Field(pattern=r"^/.+")]
    """Where."""


class StageProfile(Section):
    """How stages run on a cluster. What is left out is as for all stages, or as the compiled pipeline has it."""

    cpu: Cpu | None = None
    """Asked for, e.g. 500m or 2."""
    cpu_limit: Cpu | None = None
    memory: Memory | None = None
    """Asked for, e.g. 2Gi; the limit is raised to it."""
    memory_limit: Memory | None = None
    """A stage that takes more is killed."""
    accelerator: Accelerator | None = None
    node_selector: dict[LabelKey, LabelValue] | None = None
    """Labels that a node must have."""
    tolerations: list[Toleration] | None = None
    """E.g. for spot nodes."""
    labels: dict[LabelKey, LabelValue] | None = None
    """Of the pod, beside ours."""
    annotations: dict[LabelKey, str] | None = None
    """Of the pod."""
    volumes: list[Volume] | None = None
    timeout_seconds: Seconds | None = None
    """After which the pod is stopped, and the run fails; waiting for a node does not count."""
    image_pull_secrets: list[ObjectName] | None = None
    """For a registry that asks who pulls."""

    @model_validator(mode="after")
    def _within_limits(self) -> Self:
        pairs = [(name, getattr(self, name), getattr(self, f"{name}_limit")) for name in ("cpu", "memory")]
        for name, asked, limit in pairs:
            if asked and limit:
                from lightkube.utils.quantity import parse_quantity  # stages, which read other sections, do without

                if (parse_quantity(asked) or 0) > (parse_quantity(limit) or 0):
                    raise ValueError(f"{name} is {asked}, more than it may have ({name}_limit: {limit})")
        return self


class Cluster(Section):
    """How a run goes on a cluster; a local run does not look at it. It does not change the result."""

    service_account: str = ""
    """Of the pods; empty: the cluster's default for pipelines."""
    ttl_seconds: Seconds | None = None
    """How long finished pods stay, for looking at them; none: as the compiled pipeline has it."""
    timeout_seconds: Seconds | None = None
    """After which a run is stopped, whatever it waits for; none: as the compiled pipeline has it."""
    all_stages: StageProfile = StageProfile()
    stages: dict[StageName, StageProfile] = {}
    """By the stage's name; goes before all_stages, key by key."""
