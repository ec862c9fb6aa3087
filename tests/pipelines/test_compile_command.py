"""`python -m pipelines compile --output`. Needs: the authoring environment."""

import subprocess
import sys
from pathlib import Path

import yaml

from components import images
from pipelines import compiled
from pipelines.environments import ROOT


def compile_to(output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "pipelines", "compile", "--output", str(output), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_copy_differs_from_the_committed_pipeline_only_in_its_images(tmp_path: Path) -> None:
    output = tmp_path / "new" / "training.yaml"
    done = compile_to(output, "--registry", "registry.example:5000/team", "--tag", "7")
    assert (done.returncode, done.stdout) == (0, f"wrote {output}\n")
    text = output.read_text()
    assert images.REGISTRY not in text
    for name in images.NAMES:
        text = text.replace(f"registry.example:5000/team/{name}:7", images.reference(name))
    assert list(yaml.safe_load_all(text)) == list(yaml.safe_load_all((compiled.FOLDER / "training.yaml").read_text()))


def test_the_tag_is_that_of_the_code(tmp_path: Path) -> None:
    assert compile_to(tmp_path / "training.yaml").returncode == 0
    assert images.reference("base", tag=compiled.content_tag()) in (tmp_path / "training.yaml").read_text()


def test_what_a_project_says_of_the_cluster_goes_in(tmp_path: Path) -> None:
    project = tmp_path / "pipeline.yaml"
    project.write_text(f"{(ROOT / 'examples/flights/pipeline.yaml').read_text()}\ncluster: {{ttl_seconds: 77}}\n")
    (tmp_path / "schema.pbtxt").write_text((ROOT / "examples/flights/schema.pbtxt").read_text())
    done = compile_to(tmp_path / "training.yaml", "--project", str(project))
    assert done.returncode == 0, done.stderr
    _, platform = yaml.safe_load_all((tmp_path / "training.yaml").read_text())
    assert platform["platforms"]["kubernetes"]["pipelineConfig"]["resourceTtlOnFailure"] == 77


def test_what_cannot_be_written_or_compiled_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = compile_to(tmp_path / "file" / "training.yaml")
    assert done.returncode != 0
    assert str(tmp_path / "file") in done.stderr
    assert "Traceback" not in done.stderr
    done = compile_to(tmp_path / "x.yaml", "--pipeline", "trainin")
    assert (done.returncode, done.stderr) == (
        2,
        "fix your input: no pipeline 'trainin' (there are: batch_prediction, monitoring, training, tuning)\n",
    )
