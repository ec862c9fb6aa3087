"""The training pipeline, whole, under kfp.local. Needs: the venv twins; some minutes."""

import csv
import json
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from components.model_store import ModelStore
from tests.local.project import ROOT, command, newest_records, newest_run, run, write_project, write_span

EXECUTED = (
    "ingest-data", "validate-data", "gate", "transform-data", "tune-model", "train-model", "predict-batch",
    "predict-batch-2", "evaluate-model", "explain-model", "gate-2", "publish-model",
)  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that ran once, from nothing to a published model."""
    project = write_project(tmp_path_factory.mktemp("undisturbed"))
    ended = run(project)
    assert ended.code == 0, ended.stderr + ended.stdout
    return project


def facts(project: Path) -> dict[str, object]:
    """What must not depend on how a model came about."""
    store = ModelStore(str(project / "models"), "shop")
    (card,) = store.cards()
    evaluation = card.evaluation
    return {
        "model": card.model_digest,
        "metrics": evaluation.metrics,
        "data": card.data.digest,
        "reason": evaluation.reason,
    }


def test_a_run_publishes_a_model_with_its_reports(undisturbed: Path) -> None:
    records = newest_records(undisturbed)
    assert {task: records[task].state for task in EXECUTED} == dict.fromkeys(EXECUTED, "succeeded")
    folder = newest_run(undisturbed)
    assert folder
    for page in ("index", "validation", "selection", "training", "evaluation", "explanation"):
        text = (folder / "report" / f"{page}.html").read_text()
        assert "<html" in text
        assert "http://" not in text.replace("http://www.w3.org", "")
    version = Path(str(records["publish-model"].parameters["uri"]))
    assert (version / "model" / "1" / "saved_model.pb").is_file()
    assert json.loads((version / "card.json").read_text())["evaluation"]["verdict"] == "pass"


def test_an_unchanged_rerun_does_nothing_twice(undisturbed: Path) -> None:
    before = facts(undisturbed)
    ended = run(undisturbed)
    assert ended.code == 0
    assert {ended.records[task].state for task in EXECUTED if task != "publish-model"} == {"cached"}
    assert facts(undisturbed) == before


def test_a_new_span_is_measured_against_production(undisturbed: Path, tmp_path: Path) -> None:
    project = write_project(tmp_path / "project")
    subprocess.run(["cp", "-r", undisturbed / "models", undisturbed / "runs", project], check=True)
    write_span(project, 3, 1500)
    ended = run(project)
    assert ended.code == 0, ended.stderr + ended.stdout
    assert ended.records["predict-batch"].artifacts["predictions"].metadata["eval"] > 0
    cards = ModelStore(str(project / "models"), "shop").cards()
    assert [card.parent for card in cards] == [None, cards[0].version]
    assert cards[1].data.spans == ["2025-01", "2025-02", "2025-03"]


def test_garbage_does_not_pass_the_data_gate(tmp_path: Path) -> None:
    project = write_project(tmp_path / "project", cities=("Paris", "Bitcoin"))
    ended = run(project)
    assert ended.code == 3
    assert ended.states()["validate-data"] == "succeeded"
    assert ended.states()["gate"] == "failed"
    assert ended.states()["train-model"] == "skipped"
    assert "Bitcoin" in ended.stdout
    assert "city" in ended.stdout
    assert not (project / "models").exists()
    folder = newest_run(project)
    assert folder
    assert "Bitcoin" in (folder / "report" / "validation.html").read_text()


def test_a_weak_model_does_not_pass_the_model_gate(undisturbed: Path, tmp_path: Path) -> None:
    project = write_project(tmp_path / "project")
    subprocess.run(["cp", "-r", undisturbed / "runs", project], check=True)
    ended = run(project, "--set", "evaluation.thresholds=[{metric: auc, min: 0.999}]")
    assert ended.code == 3
    assert ended.states()["gate-2"] == "failed"
    assert ended.states()["publish-model"] == "skipped"
    assert "auc" in ended.stdout
    assert "0.999" in ended.stdout
    assert not (project / "models").exists()


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (lambda p: (p / "data" / "visits-2025-01.csv").write_text(""), 3, "visits-2025-01.csv"),
        (lambda p: (p / "data" / "visits-2025-01.csv").write_text("visit,price,age,city\n1,2,3,Rome\n"), 3, "bought"),
        (lambda p: (p / "data" / "visits-2025-02.csv").unlink(), 3, "2025-02"),
        (lambda p: (p / "pipeline.yaml").write_text("name: shop"), 2, "pipeline.yaml:1:1: data.source: missing"),
        (lambda p: (p / "schema.pbtxt").unlink(), 2, "schema.pbtxt"),
    ],
    ids=["empty file", "no label", "span missing", "settings missing", "schema missing"],
)
def test_bad_input_ends_with_its_exit_code_and_one_line(tmp_path: Path, damage, code: int, message: str) -> None:  # type: ignore[no-untyped-def]
    project = write_project(tmp_path / "project", months=3 if message == "2025-02" else 2)
    damage(project)
    ended = run(project, "--set", "data.window=2025-01..2025-03" if message == "2025-02" else "data.window=all")
    assert ended.code == code, ended.stdout + ended.stderr
    assert message in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert not (project / "models").exists()


def test_a_kill_in_each_stage_changes_nothing(undisturbed: Path, tmp_path: Path) -> None:
    """One run after another is killed one stage further on; the last one ends like an undisturbed run."""
    project = write_project(tmp_path / "project")
    for task in (
        "ingest-data",
        "validate-data",
        "transform-data",
        "tune-model",
        "train-model",
        "predict-batch-2",
        "evaluate-model",  # not explain-model: it runs beside others, and may have ended before they are killed
        "publish-model",
    ):
        code = _run_until_killed_in(project, task)
        assert code == 4, task
        assert newest_records(project)[task].state == "failed"
    ended = run(project)
    assert ended.code == 0, ended.stdout + ended.stderr
    assert {ended.records[task].state for task in ("ingest-data", "train-model", "evaluate-model")} == {"cached"}
    assert facts(project) == facts(undisturbed)
    assert not list(project.glob("**/.*.partial"))


def _run_until_killed_in(project: Path, task: str) -> int:
    before = newest_run(project)
    with psutil.Popen(command(project), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            folder = newest_run(project)
            if folder != before and folder and (folder / "stages" / f"{task}.log").is_file():
                # workers are children of the command; the task is the child of a worker
                tasks = [child for worker in process.children() for child in worker.children()]
                for child in tasks:
                    child.kill()
                if tasks:
                    break
            time.sleep(0.005)
        return int(process.wait(timeout=60))


def test_the_published_model_predicts_a_span_into_its_place(undisturbed: Path) -> None:
    rows = list(csv.DictReader((undisturbed / "data" / "visits-2025-02.csv").open(encoding="utf-8")))
    options = ("--set", "data.window=2025-02", "--set", "batch.reasons=2", "--set", "batch.output.format=csv")
    ended = run(undisturbed, "--pipeline", "batch_prediction", *options)
    assert ended.code == 0, ended.stderr + ended.stdout
    place = undisturbed / "predictions" / "shop" / "span=2025-02"
    assert f"rows     {len(rows):,} rows predicted, 0 rejected\n  written  {place}\n" in ended.stdout
    written = list(csv.DictReader((place / "part-00000.csv").open(encoding="utf-8")))
    assert [row["visit"] for row in written] == [row["visit"] for row in rows]
    assert "bought" not in written[0]
    assert {row["decision"] for row in written} == {"true", "false"}
    assert sum(bool(row["reasons"]) for row in written) == 100
    folder = newest_run(undisturbed)
    assert folder
    assert "Highest predictions" in (folder / "report" / "predictions.html").read_text()
    assert str(place) in (folder / "report" / "index.html").read_text()

    # Rows that break the schema end at the data gate, and what was written stays.
    before = (place / "part-00000.csv").read_bytes()
    write_span(undisturbed, 3, 200, ("Paris", "Atlantis"))
    ended = run(undisturbed, "--pipeline", "batch_prediction", "--set", "data.window=2025-02..2025-03", *options[2:])
    assert ended.code == 3
    assert "Atlantis" in ended.stdout
    assert ended.states()["write-predictions"] == "skipped"
    assert (place / "part-00000.csv").read_bytes() == before
    (undisturbed / "data" / "visits-2025-03.csv").unlink()
