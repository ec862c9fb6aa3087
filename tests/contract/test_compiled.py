"""The compiled pipelines and components, as committed. Needs: the authoring environment."""

import ast
import importlib
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import images
from pipelines import compiled, reference
from pipelines.environments import ROOT, twin
from pipelines.generated import contents
from pipelines.workers import Program
from tests.run import SUITES

STAGES = sorted(path.parent.name for path in (ROOT / "components").glob("*/component.py"))


@pytest.mark.parametrize("stage", STAGES)
def test_every_list_of_stages_names_it(stage: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    listed = {contract["name"]: contract.get("modules") or contract["forbidden_modules"] for contract in contracts}
    assert f"components.{stage}" in listed["No stage imports another, nor the predictor"]
    assert f"components.{stage}" in listed["Shared modules import no stage"]
    assert stage in reference.STAGES
    assert any(f"tests/{stage}" in suite.paths for suite in SUITES)
    assert list((ROOT / "tests" / stage).glob("test_*.py"))


@pytest.mark.parametrize(
    ("path", "content"), list(contents()), ids=lambda value: value.name if isinstance(value, Path) else ""
)
def test_a_generated_file_is_up_to_date(path: Path, content: str) -> None:
    assert path.is_file(), "run `make generate` and commit"
    assert path.read_text() == content, "run `make generate` and commit"


def executors(text: str) -> dict[str, Any]:
    spec = next(iter(yaml.safe_load_all(text)))
    return {name: executor["container"] for name, executor in spec["deploymentSpec"]["executors"].items()}


@pytest.mark.parametrize("pipeline", compiled.names())
def test_every_task_starts_its_stage_in_an_image_of_ours(pipeline: str) -> None:
    for container in executors(compiled.read(pipeline)).values():
        program = Program.from_command([*container["command"], *container["args"]])
        assert program.function in STAGES
        assert container["image"] in (images.BASE, images.TENSORFLOW, images.PREDICTOR)
        assert twin(container["image"], program.function).lock.endswith(".txt")
        assert "pip install" not in " ".join(container["command"])


@pytest.mark.parametrize("pipeline", compiled.names())
def test_registry_and_tag_are_given_late(pipeline: str) -> None:
    for container in executors(compiled.read(pipeline, "registry.example:5000/team", "1.2-abc")).values():
        assert container["image"] in {
            f"registry.example:5000/team/{name}:1.2-abc" for name in ("base", "tensorflow", "predictor")
        }


@pytest.mark.parametrize("stage", STAGES)
def test_a_component_body_only_calls_its_stage(stage: str) -> None:
    tree = ast.parse((ROOT / "components" / stage / "component.py").read_text())
    imported = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imported}
    assert modules <= {"typing", "kfp", "components"}
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef))
    assert function.name == stage
    assert len(ast.unparse(function.body[-1]).splitlines()) <= 20
    assert (ROOT / "components" / stage / "README.md").is_file()
    assert importlib.import_module(f"components.{stage}").__doc__
