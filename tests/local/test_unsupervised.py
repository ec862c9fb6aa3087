"""Tasks without a label, whole, under kfp.local. Needs: the venv twins; a minute."""

import json
from pathlib import Path

import pytest

from tests.local.project import run, write_project

EVALUATION = "evaluation={bootstrap: {resamples: 20}}"


@pytest.mark.parametrize(
    ("task", "model", "outputs"),
    [
        ("anomaly_detection", "{kind: isolation_forest, trees: 20}", ["anomaly_score"]),
        ("clustering", "{kind: k_means, clusters: 3, starts: 1}", ["distances", "cluster"]),
    ],
)
def test_a_model_is_published_that_learned_from_no_label(
    task: str, model: str, outputs: list[str], tmp_path: Path
) -> None:
    project = write_project(tmp_path / "project", months=1)
    options = [f"task={{type: {task}}}", f"model={model}", "training={}", EVALUATION]
    ended = run(project, *(part for option in options for part in ("--set", option)))
    assert ended.code == 0, ended.stderr + ended.stdout
    version = Path(str(ended.records["publish-model"].parameters["uri"]))
    spec = json.loads((version / "model" / "spec.json").read_text())
    assert [output["name"] for output in spec["outputs"]] == outputs
    assert spec["label"]["name"] is None
    assert "bought" not in [one["name"] for one in spec["inputs"]]
