"""What profiles make of a compiled pipeline."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from confluent_kafka import KafkaException, Producer
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2
from lightkube.utils.quantity import parse_quantity

from components import kafka_clients
from components.settings import Cluster, StageName, StageProfile
from pipelines import compiled, profiles
from pipelines.project import ProjectError, load_project
from pipelines.submission import SECTIONS

FLIGHTS = Path("examples/flights")
TEXT = compiled.read("training")


def configured(**cluster: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The executors of the training pipeline with a profile, and their pods."""
    spec, platform = yaml.safe_load_all(profiles.configured(TEXT, Cluster.model_validate(cluster)))
    kubernetes = platform["platforms"]["kubernetes"]
    return spec["deploymentSpec"]["executors"], kubernetes["deploymentSpec"]["executors"]


def test_every_stage_has_a_profile_and_a_name_in_the_settings() -> None:
    folders = {path.parent.name for path in Path("components").glob("*/component.py")}
    assert folders == set(get_args(StageName)) == set(profiles.DEFAULTS.stages)
    for profile in profiles.DEFAULTS.stages.values():
        assert None not in (
            profile.cpu,
            profile.cpu_limit,
            profile.memory,
            profile.memory_limit,
            profile.timeout_seconds,
        )


def test_the_committed_pipeline_is_as_kfp_takes_it() -> None:
    spec, platform = yaml.safe_load_all(TEXT)
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert pods.keys() == spec["deploymentSpec"]["executors"].keys()
    run = json_format.ParseDict(
        platform["platforms"]["kubernetes"]["pipelineConfig"], pipeline_spec_pb2.PipelineConfig()
    )
    assert run.resource_ttl_on_success == run.resource_ttl_on_failure == profiles.DEFAULTS.ttl_seconds
    assert run.active_deadline_seconds == profiles.DEFAULTS.timeout_seconds
    for pod in pods.values():
        config = json_format.ParseDict(pod, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
        assert config.security_context.run_as_non_root
        assert config.active_deadline_seconds
        assert config.pod_metadata.labels["app.kubernetes.io/part-of"] == "lockgate"


def test_credentials_are_references_that_may_be_absent_and_only_where_storage_is_used() -> None:
    _, pods = configured()
    with_storage = {label for label, pod in pods.items() if "secretAsEnv" in pod}
    assert with_storage == {
        *("exec-ingest-data", "exec-validate-data", "exec-transform-data", "exec-predict-batch"),
        *("exec-predict-batch-2", "exec-tune-model", "exec-publish-model", "exec-deploy-model"),
    }
    for label in with_storage:
        for kind in ("secretAsEnv", "configMapAsEnv", "secretAsVolume"):
            assert all(reference["optional"] is True for reference in pods[label][kind])


def _secrets(pod: dict, kind: str = "secretAsEnv") -> dict[str, dict]:
    return {one["secretNameParameter"]["runtimeValue"]["constant"]: one for one in pod.get(kind, [])}


def test_who_logs_in_somewhere_gets_what_that_takes_and_nobody_else() -> None:
    _, pods = configured()
    beyond = {label: set(_secrets(pod)) - {profiles.STORAGE} for label, pod in pods.items()}
    assert {label: secrets for label, secrets in beyond.items() if secrets} == {
        "exec-ingest-data": {profiles.KAFKA},
        "exec-publish-model": {profiles.REGISTRIES},
    }
    kafka = {key["envVar"] for key in _secrets(pods["exec-ingest-data"])[profiles.KAFKA]["keyToEnv"]}
    assert {"LOCKGATE_KAFKA_SASL_PASSWORD", "LOCKGATE_KAFKA_SSL_CA_LOCATION"} <= kafka
    mounted = _secrets(pods["exec-ingest-data"], "secretAsVolume")
    assert mounted[profiles.KAFKA]["mountPath"] == profiles.KAFKA_FOLDER
    registries = {key["envVar"] for key in _secrets(pods["exec-publish-model"])[profiles.REGISTRIES]["keyToEnv"]}
    assert {"MLFLOW_TRACKING_TOKEN", "LOCKGATE_MODEL_REGISTRY_PASSWORD"} <= registries


def test_what_answers_verdicts_finds_windows_of_topics_too() -> None:
    _, platform = yaml.safe_load_all(compiled.read("monitoring"))
    pod = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-respond-to-verdict"]
    assert _secrets(pod).keys() == {profiles.STORAGE, profiles.KAFKA}
    assert _secrets(pod, "secretAsVolume").keys() == {profiles.STORAGE, profiles.KAFKA, profiles.NOTIFY}


@pytest.mark.parametrize("variable", [name for name in profiles.KAFKA_VARIABLES if "KAFKA" in name])
def test_every_variable_for_kafka_is_one_that_the_client_takes(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "x")
    refused = ""
    try:
        Producer({**kafka_clients.properties("localhost:1"), "log_level": 0})
    except KafkaException as error:  # of the value
        refused = str(error)
    assert "No such configuration property" not in refused


def test_nothing_given_changes_nothing() -> None:
    assert profiles.configured(TEXT, Cluster()) == TEXT


def test_a_stage_goes_before_all_stages_key_by_key() -> None:
    executors, pods = configured(
        all_stages={"cpu": "3", "node_selector": {"pool": "cheap"}, "tolerations": [{"key": "spot", "value": "true"}]},
        stages={"train_model": {"node_selector": {"pool": "gpu"}, "accelerator": {"count": 2}, "timeout_seconds": 60}},
    )
    trained, predicted = executors["exec-train-model"]["container"], executors["exec-predict-batch-2"]["container"]
    assert trained["resources"]["resourceCpuRequest"] == predicted["resources"]["resourceCpuRequest"] == "3"
    assert trained["resources"]["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert trained["resources"]["accelerator"]["resourceCount"] == "2"
    assert "accelerator" not in predicted["resources"]
    assert pods["exec-train-model"]["nodeSelector"] == {"labels": {"pool": "gpu"}}
    assert pods["exec-predict-batch-2"]["nodeSelector"] == {"labels": {"pool": "cheap"}}
    assert pods["exec-train-model"]["activeDeadlineSeconds"] == "60"
    assert pods["exec-train-model"]["tolerations"] == [{"key": "spot", "operator": "Equal", "value": "true"}]


def test_pods_get_labels_beside_ours_volumes_and_pull_secrets() -> None:
    volume = {"claim": "features", "path": "/features"}
    _, pods = configured(
        all_stages={
            "labels": {"team": "ml"},
            "annotations": {"sidecar.istio.io/inject": "false"},
            "volumes": [volume],
            "image_pull_secrets": ["registry"],
        },
    )
    config = kubernetes_executor_config_pb2.KubernetesExecutorConfig()
    json_format.ParseDict(pods["exec-gate"], config)
    assert dict(config.pod_metadata.labels) == {
        "app.kubernetes.io/part-of": "lockgate",
        "app.kubernetes.io/component": "gate",
        "team": "ml",
    }
    assert dict(config.pod_metadata.annotations) == {"sidecar.istio.io/inject": "false"}
    assert config.pvc_mount[0].pvc_name_parameter.runtime_value.constant.string_value == "features"
    assert config.image_pull_secret[0].secret_name_parameter.runtime_value.constant.string_value == "registry"


def test_a_run_has_a_time_and_its_pods_too() -> None:
    _, platform = yaml.safe_load_all(profiles.configured(TEXT, Cluster(ttl_seconds=60, timeout_seconds=3600)))
    assert platform["platforms"]["kubernetes"]["pipelineConfig"] == {
        "resourceTtlOnSuccess": 60,
        "resourceTtlOnFailure": 60,
        "activeDeadlineSeconds": 3600,
    }


def sizes(*quantities: str) -> st.SearchStrategy[str | None]:
    return st.sampled_from([None, *quantities])


@given(
    st.tuples(sizes("50m", "0.5", "2", "16"), sizes("64Mi", "1.5Gi", "20G")),
    st.tuples(sizes("100m", "1", "32"), sizes("100Mi", "3Gi", "1Ti")),
)
def test_no_stage_asks_for_more_than_it_may_have(
    asked: tuple[str | None, str | None], limits: tuple[str | None, str | None]
) -> None:
    cluster = Cluster(
        all_stages=StageProfile(cpu=asked[0], memory=asked[1]),
        stages={stage: StageProfile(cpu_limit=limits[0], memory_limit=limits[1]) for stage in get_args(StageName)},
    )
    spec = next(iter(yaml.load_all(profiles.configured(TEXT, cluster), Loader=yaml.CSafeLoader)))
    for executor in spec["deploymentSpec"]["executors"].values():
        resources = executor["container"]["resources"]
        for kind, limit in zip(("Cpu", "Memory"), limits, strict=True):
            request, upper = (
                float(parse_quantity(resources[f"resource{kind}{end}"]) or 0) for end in ("Request", "Limit")
            )
            assert 0 < request <= upper
            assert limit is None or resources[f"resource{kind}Limit"] == limit
            assert resources[f"{kind.lower()}Limit"] == pytest.approx(upper if kind == "Cpu" else upper / 1e9)


@pytest.mark.parametrize(
    ("cluster", "says"),
    [
        ("{stages: {trainmodel: {cpu: 2}}}", "cluster.stages.trainmodel: 'trainmodel' is not one of"),
        ("{stages: {trainmodel: {cpu: 2}}}", "did you mean 'train_model'?"),
        ("{stages: {train_model: {gpu: 1}}}", "cluster.stages.train_model.gpu: unknown key"),
        ("{all_stages: {memory: 8}}", "cluster.all_stages.memory"),
        ("{all_stages: {memory: 8GB}}", "cluster.all_stages.memory"),
        ("{all_stages: {cpu: two}}", "cluster.all_stages.cpu"),
        ("{all_stages: {cpu: 2, cpu_limit: 500m}}", "cpu is 2, more than it may have (cpu_limit: 500m)"),
        ("{all_stages: {memory: 2Gi, memory_limit: 2G}}", "memory is 2Gi, more than it may have (memory_limit: 2G)"),
        ("{all_stages: {tolerations: [{value: x}]}}", "say so with operator: Exists"),
        ("{all_stages: {timeout_seconds: 0}}", "cluster.all_stages.timeout_seconds"),
        ("{all_stages: {volumes: [{claim: x, path: data}]}}", "cluster.all_stages.volumes[0].path"),
        ("{all_stages: {labels: {team: 'a b'}}}", "cluster.all_stages.labels"),
        ("{all_stages: {labels: {'a b': team}}}", "cluster.all_stages.labels"),
        ("{all_stages: {node_selector: {-pool: large}}}", "cluster.all_stages.node_selector"),
        ("{all_stages: {image_pull_secrets: [My_Registry]}}", "cluster.all_stages.image_pull_secrets[0]"),
        ("{all_stages: {volumes: [{claim: Data, path: /data}]}}", "cluster.all_stages.volumes[0].claim"),
        ("{ttl_seconds: 3000000000}", "cluster.ttl_seconds: input should be less than 2147483648"),
        ("{timeout_seconds: 0}", "cluster.timeout_seconds"),
        ("{all_stages: {accelerator: {count: 0}}}", "cluster.all_stages.accelerator.count"),
    ],
)
def test_a_wrong_profile_is_said(cluster: str, says: str) -> None:
    with pytest.raises(ProjectError) as caught:
        load_project(FLIGHTS, [f"cluster={cluster}"])
    assert says in str(caught.value)


def test_where_a_run_goes_is_no_input_of_it() -> None:
    assert "cluster" not in SECTIONS
