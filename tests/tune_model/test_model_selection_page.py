"""The kind of model that docs/model-selection.md adds, added as it says."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from components.artifacts import MODEL_VERSION
from components.settings import Model, Tuning
from components.tune_model.selection import LEADERBOARD
from tests.train_model.projects import project
from tests.tune_model.selecting import environment

KINDS = ("binary", "multiclass", "regression")
ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "model-selection.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SELECT = """
import sys
from components.settings import Task, Training, Tuning
from components.train_model.training import parse_model, train
from components.tune_model.selection import select
output, *folders = sys.argv[1:]
candidates = [{"kind": "linear", "l2": 10.0}, {"kind": "nearest"}]
tuning = Tuning.model_validate({"candidates": candidates, "trials": 1, "stack": False})
for kind, folder in zip(("binary", "multiclass", "regression"), folders):
    given, made = (f"{folder}/transformed", f"{folder}/graph"), f"{output}/{kind}"
    task, training = Task(type=kind, label="label"), Training(epochs=2)
    board = select(*given, task, tuning, training, "", "", f"{made}/leaderboard", f"{made}/report.html")
    model = parse_model(board.model.model_dump(mode="json"))
    train(*given, f"{folder}/schema", task, model, training, "", f"{made}/model", f"{made}/trained.html")
"""


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def with_the_kind(root: Path) -> None:
    """Makes a copy of the code, in which the steps of the page are done."""
    shutil.copytree(ROOT / "components", root / "components")
    settings, module, line = PYTHON
    union = "\nSupervisedModel = "
    replaced(root / "components/settings/models.py", union, f"\n{settings}\n{union}NearestModel | ")
    (root / "components/models/nearest.py").write_text(module)
    kinds = root / "components/models/kinds.py"
    replaced(kinds, '    "custom": Custom(),\n', f'{line}    "custom": Custom(),\n')
    imported = "from components.models.trees import"
    replaced(kinds, imported, f"from components.models.nearest import Nearest\n{imported}")


def test_the_kind_is_selected_searched_and_exported(tmp_path: Path) -> None:
    with_the_kind(tmp_path / "code")
    folders = [str(project(kind).folder) for kind in KINDS]
    done = subprocess.run(
        [sys.executable, "-c", SELECT, str(tmp_path), *folders],
        env=environment() | {"PYTHONPATH": f"{tmp_path / 'code'}:{environment()['PYTHONPATH']}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("nearest was chosen") == len(KINDS)
    for kind in KINDS:
        states = [
            row["state"] for row in json.loads((tmp_path / kind / "leaderboard" / LEADERBOARD).read_text())["rows"]
        ]
        assert sorted(states) == ["baseline", *["complete"] * 3]
        assert (tmp_path / kind / "model" / MODEL_VERSION / "saved_model.pb").is_file()


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_the_settings_of_the_page_are_allowed(block: str) -> None:
    search = yaml.safe_load(block)
    if "tuning" in search:
        Tuning.model_validate(search["tuning"])
    else:
        Tuning.model_validate({"candidates": [{"kind": "boosted_trees"}, {"kind": "mlp"}], **search})


@pytest.mark.parametrize("line", re.findall(r"\| `((?:model|tuning): \{.*?\})`", PAGE))
def test_the_lines_of_the_page_are_allowed(line: str) -> None:
    ((section, value),) = yaml.safe_load(line).items()
    if section == "tuning":
        Tuning.model_validate(value)
    else:
        TypeAdapter(Model).validate_python(value)
