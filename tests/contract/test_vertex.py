"""Compiled pipelines, held against what Vertex AI Pipelines documents. Needs: the authoring environment.

Nothing here runs on Vertex: docs/kubeflow.md says what was tried.
"""

import re
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from components import images
from pipelines import compiled
from tests.pipelines.test_compile_command import compile_to

# google-cloud-aiplatform 1.165.1, constants/pipeline.py: the id of a job, which is made of the pipeline's name.
JOB_ID = re.compile(r"[a-z][-a-z0-9]{0,127}", re.IGNORECASE)
TIMESTAMP = "-20261128120000"
# The same, pipeline_jobs.py: a template is a PipelineSpec when it has these keys.
KEYS = {"pipelineInfo", "root", "schemaVersion", "sdkVersion", "components", "deploymentSpec"}
# "Specify the machine configuration for a pipeline step": the largest limits.
MAX_CORES, MAX_GB = 96, 624
# "Migrate to Kubeflow Pipelines v2": what is compiled by kfp 2.
SCHEMA_VERSION = "2.1.0"
# The types of parameters in that schema. A run's input artifacts would have to be in Vertex ML Metadata before.
TYPES = {"STRING", "NUMBER_INTEGER", "NUMBER_DOUBLE", "BOOLEAN", "LIST", "STRUCT"}


@pytest.fixture(scope="module", params=compiled.names())
def text(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pipeline as the command writes it for Vertex."""
    output = tmp_path_factory.mktemp("vertex") / "pipeline.yaml"
    registry = "europe-west4-docker.pkg.dev/team/ml"
    done = compile_to(output, "--vertex", "--pipeline", request.param, "--registry", registry, "--tag", "1.2")
    assert done.returncode == 0, done.stderr
    return output.read_text()


@pytest.fixture
def spec(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text))  # the client's own call: a second document is an error


def test_it_is_the_whole_pipeline_and_nothing_of_kubernetes(spec: dict[str, Any]) -> None:
    whole = next(iter(yaml.safe_load_all(compiled.read(spec["pipelineInfo"]["name"]))))
    registry = "europe-west4-docker.pkg.dev/team/ml"
    for label, executor in spec["deploymentSpec"]["executors"].items():
        image = executor["container"].pop("image")
        assert image in {images.reference(name, registry, "1.2") for name in images.NAMES}
        del whole["deploymentSpec"]["executors"][label]["container"]["image"]
    assert spec == whole
    assert spec.keys() == KEYS


def test_it_is_a_pipeline_spec_of_the_version_that_vertex_takes(spec: dict[str, Any]) -> None:
    assert spec["schemaVersion"] == SCHEMA_VERSION
    parsed = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    assert parsed.pipeline_info.name == spec["pipelineInfo"]["name"]
    with pytest.raises(json_format.ParseError):
        json_format.ParseDict({**spec, "platforms": {}}, pipeline_spec_pb2.PipelineSpec())


def test_a_job_can_have_its_name(spec: dict[str, Any]) -> None:
    assert JOB_ID.fullmatch(spec["pipelineInfo"]["name"] + TIMESTAMP)


def test_every_stage_fits_on_a_machine(spec: dict[str, Any]) -> None:
    for label, executor in spec["deploymentSpec"]["executors"].items():
        resources = executor["container"]["resources"]
        assert 0 < resources["cpuRequest"] <= resources["cpuLimit"] <= MAX_CORES, label
        assert 0 < resources["memoryRequest"] <= resources["memoryLimit"] <= MAX_GB, label


def test_a_run_is_started_with_parameters_only(spec: dict[str, Any]) -> None:
    inputs = spec["root"]["inputDefinitions"]
    assert inputs.keys() == {"parameters"}
    assert {parameter["parameterType"] for parameter in inputs["parameters"].values()} <= TYPES


def test_the_exit_task_is_the_only_one_that_asks_how_the_run_ended(spec: dict[str, Any]) -> None:
    asking = {
        name
        for name, component in spec["components"].items()
        for parameter in component.get("inputDefinitions", {}).get("parameters", {}).values()
        if parameter["parameterType"] == "TASK_FINAL_STATUS"
    }
    exits = {
        task["componentRef"]["name"]
        for task in spec["root"]["dag"]["tasks"].values()
        if task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
    }
    assert asking == exits
    assert len(exits) == 1
