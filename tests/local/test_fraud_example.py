"""examples/fraud under kfp.local, with few cards: windows are computed, the budget decides. Needs: the venv twins."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from components.model_store import ModelStore
from tests.local.project import ROOT, run

SMALL = (
    "model.trees=60",
    "evaluation.thresholds=[{metric: precision_at_budget, min: 0.1}]",  # of 33 alerts; by chance 0.004
    "evaluation.min_slice_rows=200",
    "explanation.rows=50",
)


def test_few_cards_are_enough_for_a_model_that_keeps_to_the_budget(tmp_path: Path) -> None:
    project = tmp_path / "fraud"
    shutil.copytree(
        ROOT / "examples" / "fraud", project, ignore=shutil.ignore_patterns("data", "models", "predictions")
    )
    prepare = [sys.executable, str(project / "prepare_data.py"), "--cards", "80"]
    subprocess.run(prepare, check=True, timeout=120, capture_output=True)
    ended = run(project, *(option for value in SMALL for option in ("--set", value)))
    assert ended.code == 0, ended.stderr + ended.stdout
    assert "precision_at_budget" in ended.stdout
    store = ModelStore(str(project / "models"), "fraud")
    (card,) = store.cards()
    spec = json.loads((Path(store.uri_of(card.version)) / "model" / "spec.json").read_text())
    assert {"card_count_2h", "merchant_cards_1h"} <= {one["name"] for one in spec["inputs"]}
    assert not {"card_id", "merchant_id", "transaction_id"} & {one["name"] for one in spec["inputs"]}
    assert 0 < spec["decision_threshold"] < 1
