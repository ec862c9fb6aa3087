"""How stages run on a cluster: resources, nodes, credentials, timeouts; put into a compiled pipeline.

A compiled pipeline is two documents: what any backend reads (resources are there), and what Kubernetes adds.
"""

from collections.abc import Mapping
from typing import Any

import yaml
from lightkube.utils.quantity import parse_quantity

from components.settings import Cluster, StageProfile
from pipelines.compiled import documents

STORAGE = "lockgate-storage"
"""Secret and ConfigMap with what the stages need to reach gs:// and s3://. Both are optional: a service account with an
identity of its cloud needs none."""
STORAGE_FOLDER = f"/var/run/secrets/{STORAGE}"
"""Where the Secret's keys are files, too: GOOGLE_APPLICATION_CREDENTIALS names one."""
MONITORING = "lockgate-monitoring"
"""Secret with what monitoring needs to log in at a Pushgateway; optional."""
MONITORING_VARIABLES = tuple(f"LOCKGATE_PUSHGATEWAY_{name}" for name in ("USERNAME", "PASSWORD", "TOKEN"))
NOTIFY = "lockgate-notify"
"""Secret with what receivers of verdicts need; its keys are files for the stage that tells them. It is optional."""
NOTIFY_FOLDER = f"/var/run/secrets/{NOTIFY}"
SECRET_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
DATABASE = "lockgate-database"
"""Secret with user and password of the database that predictions go into; optional."""
DATABASE_VARIABLES = ("PGUSER", "PGPASSWORD")
KAFKA = "lockgate-kafka"
"""Secret with how to log in at Kafka, and at the registry of its schemas; optional. It is the stream's, too."""
KAFKA_FOLDER = f"/var/run/secrets/{KAFKA}"
"""Where its keys are files, too: LOCKGATE_KAFKA_SSL_CA_LOCATION names one."""
KAFKA_VARIABLES = (
    *(f"LOCKGATE_KAFKA_{name}" for name in ("SECURITY_PROTOCOL", "SSL_ENDPOINT_IDENTIFICATION_ALGORITHM")),
    *(f"LOCKGATE_KAFKA_SASL_{name}" for name in ("MECHANISM", "USERNAME", "PASSWORD")),
    *(
        f"LOCKGATE_KAFKA_SASL_OAUTHBEARER_{name}"
        for name in ("METHOD", "CLIENT_ID", "CLIENT_SECRET", "SCOPE", "TOKEN_ENDPOINT_URL")
    ),
    *(f"LOCKGATE_KAFKA_SSL_{name}_{form}" for name in ("CA", "CERTIFICATE", "KEY") for form in ("LOCATION", "PEM")),
    "LOCKGATE_KAFKA_SSL_KEY_PASSWORD",
    *(f"LOCKGATE_SCHEMA_REGISTRY_{name}" for name in ("USERNAME", "PASSWORD")),
)
REGISTRIES = "lockgate-registries"
"""Secret with how to log in at model registries; optional."""
REGISTRIES_VARIABLES = tuple(
    f"{server}_{name}"
    for server in ("MLFLOW_TRACKING", "LOCKGATE_MODEL_REGISTRY")
    for name in ("USERNAME", "PASSWORD", "TOKEN")
)
VARIABLES = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE", "GOOGLE_APPLICATION_CREDENTIALS")

_USE_STORAGE = frozenset(
    {
        *("ingest_data", "validate_data", "transform_data", "tune_model", "predict_batch", "publish_model"),
        *("deploy_model", "monitor_model", "respond_to_verdict", "write_predictions"),
    }
)
_LOG_IN: Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "ingest_data": ((KAFKA, KAFKA_VARIABLES),),
    "respond_to_verdict": ((KAFKA, KAFKA_VARIABLES),),  # it finds the window that training reads
    "write_predictions": ((DATABASE, DATABASE_VARIABLES),),
    "monitor_model": ((MONITORING, MONITORING_VARIABLES),),
    "publish_model": ((REGISTRIES, REGISTRIES_VARIABLES),),
}
"""Secrets whose keys are variables of a stage, by its name."""
_FILES = {"ingest_data": {KAFKA: KAFKA_FOLDER}, "respond_to_verdict": {KAFKA: KAFKA_FOLDER, NOTIFY: NOTIFY_FOLDER}}
"""Secrets whose keys are files of a stage, and where, by its name."""


def _profile(cpu: str, cpu_limit: str, memory: str, memory_limit: str, hours: int) -> StageProfile:
    return StageProfile(
        cpu=cpu, cpu_limit=cpu_limit, memory=memory, memory_limit=memory_limit, timeout_seconds=hours * 3600
    )


DEFAULTS = Cluster(
    ttl_seconds=24 * 3600,
    timeout_seconds=72 * 3600,
    stages={
        # Asked for: the memory that the flights example (336,776 rows) takes; and little of the processors, so that two
        # stages fit beside all of Kubeflow Pipelines on a node with two. Limits leave room for ten times the rows.
        "ingest_data": _profile("100m", "2", "512Mi", "3Gi", 4),
        "validate_data": _profile("200m", "4", "768Mi", "4Gi", 4),
        "gate": _profile("20m", "1", "128Mi", "512Mi", 1),
        "transform_data": _profile("200m", "4", "1Gi", "4Gi", 8),
        "tune_model": _profile("250m", "8", "1Gi", "6Gi", 24),
        "train_model": _profile("250m", "8", "1Gi", "6Gi", 24),
        "predict_batch": _profile("200m", "4", "768Mi", "4Gi", 8),
        "evaluate_model": _profile("200m", "4", "768Mi", "4Gi", 4),
        "explain_model": _profile("200m", "4", "768Mi", "4Gi", 4),
        "check_serving": _profile("200m", "4", "1Gi", "3Gi", 1),
        "publish_model": _profile("50m", "2", "256Mi", "2Gi", 2),
        "deploy_model": _profile("50m", "1", "256Mi", "1Gi", 4),
        "monitor_model": _profile("200m", "4", "1Gi", "4Gi", 4),
        "write_predictions": _profile("100m", "2", "512Mi", "3Gi", 4),
        "respond_to_verdict": _profile("20m", "1", "128Mi", "512Mi", 1),
        "report_run": _profile("20m", "1", "128Mi", "512Mi", 1),
    },
)


def configured(text: str, cluster: Cluster) -> str:
    """Puts profiles into a compiled pipeline; what they leave out stays as it is.

    Args:
        text: of the compiled pipeline, YAML.
        cluster: section `cluster` of pipeline.yaml.
    """
    spec, *platforms = documents(text)
    kubernetes = platforms[0]["platforms"]["kubernetes"] if platforms else {}
    pods = kubernetes.setdefault("deploymentSpec", {}).setdefault("executors", {})
    for label, executor in spec["deploymentSpec"]["executors"].items():
        container = executor["container"]
        stage = _stage(container)
        profile = merged(cluster, stage)
        container["resources"] = _resources(container.get("resources", {}), profile)
        pods[label] = _pod(pods.get(label) or _every_pod(stage), profile)
    kubernetes["pipelineConfig"] = _run(kubernetes.get("pipelineConfig", {}), cluster)
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("# "))
    return header + yaml.dump_all([spec, {"platforms": {"kubernetes": kubernetes}}], Dumper=yaml.CSafeDumper)


def merged(cluster: Cluster, stage: str) -> StageProfile:
    """Gives the profile of a stage: its own keys go before those of all stages."""
    own = next((profile for name, profile in cluster.stages.items() if name == stage), StageProfile())
    return cluster.all_stages.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})


def _stage(container: Mapping[str, Any]) -> str:
    return str(container["args"][container["args"].index("--function_to_execute") + 1])


def _resources(before: Mapping[str, Any], profile: StageProfile) -> dict[str, Any]:
    resources = dict(before)
    for kind, request, limit in (
        ("Cpu", profile.cpu, profile.cpu_limit),
        ("Memory", profile.memory, profile.memory_limit),
    ):
        lower, upper = f"resource{kind}Request", f"resource{kind}Limit"
        resources |= {key: value for key, value in ((lower, request), (upper, limit)) if value}
        # Kubernetes refuses a pod that asks for more than it may have: what is given moves what is not.
        if lower in resources and upper in resources and _number(resources[lower]) > _number(resources[upper]):
            resources[lower if limit else upper] = limit or request
        for key in filter(resources.__contains__, (lower, upper)):
            # The older spelling, by which Vertex AI chooses machines: cores, and 10⁹ bytes.
            older = kind.lower() + key.removeprefix(f"resource{kind}")
            resources[older] = _number(resources[key]) / (1 if kind == "Cpu" else 1e9)
    if profile.accelerator:
        count, resource = str(profile.accelerator.count), profile.accelerator.type
        resources["accelerator"] = {"count": count, "resourceCount": count, "type": resource, "resourceType": resource}
    return resources


def _number(quantity: str) -> float:
    return float(parse_quantity(quantity) or 0)


def _every_pod(stage: str) -> dict[str, Any]:
    """Gives what the pods of a stage have, whatever the profile."""
    pod: dict[str, Any] = {
        "securityContext": {"runAsNonRoot": True},
        "podMetadata": {"labels": {"app.kubernetes.io/part-of": "lockgate", "app.kubernetes.io/component": stage}},
    }
    if stage in _USE_STORAGE:
        secrets = [{"envVar": name, "secretKey": name} for name in SECRET_VARIABLES]
        variables = [{"envVar": name, "configMapKey": name} for name in VARIABLES]
        pod |= {
            "secretAsEnv": [_optional("secret", keyToEnv=secrets)],
            "secretAsVolume": [_optional("secret", mountPath=STORAGE_FOLDER)],
            "configMapAsEnv": [_optional("configMap", keyToEnv=variables)],
        }
    for secret, names in _LOG_IN.get(stage, ()):
        keys = [{"envVar": name, "secretKey": name} for name in names]
        pod["secretAsEnv"] += [_optional("secret", secret, keyToEnv=keys)]
    for secret, folder in _FILES.get(stage, {}).items():
        pod["secretAsVolume"] += [_optional("secret", secret, mountPath=folder)]
    return pod


def _optional(kind: str, name: str = STORAGE, **fields: Any) -> dict[str, Any]:
    return {f"{kind}NameParameter": _constant(name), "optional": True, **fields}


def _pod(before: Mapping[str, Any], profile: StageProfile) -> dict[str, Any]:
    """Adds what a profile says of a stage's pod; fields as in KFP's KubernetesExecutorConfig."""
    metadata = before.get("podMetadata", {})
    for key, given in (("labels", profile.labels), ("annotations", profile.annotations)):
        if given:
            metadata = {**metadata, key: {**metadata.get(key, {}), **given}}
    pod = {**before, "podMetadata": metadata}
    if profile.node_selector is not None:
        pod["nodeSelector"] = {"labels": profile.node_selector}
    if profile.tolerations is not None:
        pod["tolerations"] = [_without_empty(toleration.model_dump()) for toleration in profile.tolerations]
    if profile.volumes is not None:
        pod["pvcMount"] = [
            {"pvcNameParameter": _constant(volume.claim), "mountPath": volume.path} for volume in profile.volumes
        ]
    if profile.image_pull_secrets is not None:
        pod["imagePullSecret"] = [{"secretNameParameter": _constant(name)} for name in profile.image_pull_secrets]
    if profile.timeout_seconds is not None:
        pod["activeDeadlineSeconds"] = str(profile.timeout_seconds)
    return pod


def _run(before: Mapping[str, Any], cluster: Cluster) -> dict[str, Any]:
    """Adds what holds for a run as a whole; fields as in KFP's PipelineConfig."""
    run = dict(before)
    if cluster.ttl_seconds is not None:
        # The field for both outcomes would be of no use: a default installation gives each of them an hour, which wins.
        run |= {"resourceTtlOnSuccess": cluster.ttl_seconds, "resourceTtlOnFailure": cluster.ttl_seconds}
    if cluster.timeout_seconds is not None:
        run["activeDeadlineSeconds"] = cluster.timeout_seconds
    return run


def _without_empty(values: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in values.items() if value}


def _constant(value: str) -> dict[str, Any]:
    return {"runtimeValue": {"constant": value}}
