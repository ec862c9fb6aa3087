"""Monitoring that trains, on this machine. Needs: the venv twins; a minute or two."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from components.model_store import ModelStore
from components.monitoring_history import MonitoringHistory
from tests.local.project import ROOT, newest_run, run, write_project

SETTINGS = """\
monitoring:
  log: {source: "log/*.csv", format: table, columns: {prediction: probability}}
  window: month
  confirmations: 1
  bootstrap: {resamples: 20}
  response: {window: last 1 month}
"""


def turn_the_world(project: Path) -> None:
    """Writes a month in which those buy who did not before, and what the model, which cannot know, predicted."""
    version = ModelStore(str(project / "models"), "shop").latest()
    (project / "log").mkdir()
    with (project / "data" / "visits-2025-02.csv").open(newline="") as before:
        rows = list(csv.DictReader(before))
    for number, row in enumerate(rows):
        row["visit"] = f"3-{number}"
        row["bought"] = str(1 - int(row["bought"]))
    with (project / "data" / "visits-2025-03.csv").open("w", newline="") as labels:
        writer = csv.DictWriter(labels, ["visit", "price", "age", "city", "bought"])
        writer.writeheader()
        writer.writerows(rows)
    with (project / "log" / "march.csv").open("w", newline="") as log:
        out = csv.writer(log)
        out.writerow(["visit", "price", "age", "city", "probability", "request_time", "model_version"])
        for number, row in enumerate(rows):
            likely = (float(row["price"]) < 40) != (row["city"] == "Oslo")
            probability = 0.8 + 0.1 * (number % 7) / 7 if likely else 0.2 - 0.1 * (number % 7) / 7
            moment = f"2025-03-{1 + number % 31:02d}T12:00:00"
            out.writerow([row["visit"], row["price"], row["age"], row["city"], probability, moment, version])


def monitor(project: Path, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-W", "ignore", "-m", "pipelines", "monitor", str(project), "--window", "2025-03"]
    return subprocess.Popen(
        [*command, "--runs", str(project / "runs"), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    printed, _ = process.communicate(timeout=300)
    return process.returncode, printed


def is_training(project: Path) -> bool:
    run_folder = newest_run(project)
    return run_folder is not None and (run_folder / "stages" / "validate-data.json").is_file()


def test_a_verdict_trains_once_and_the_new_model_goes_into_production(tmp_path: Path) -> None:
    project = write_project(tmp_path / "project")
    assert run(project).code == 0
    with (project / "pipeline.yaml").open("a") as file:
        file.write(SETTINGS)
    turn_the_world(project)
    time.sleep(1.1)  # runs are named by the second

    code, printed = ended(monitor(project))
    assert (code, "RETRAIN shop" in printed) == (0, True), printed
    assert "starts by hand (monitoring.response.retrain is false)" in printed

    before = newest_run(project)
    killed = monitor(project, "--respond")
    while newest_run(project) == before or not is_training(project):
        assert killed.poll() is None, ended(killed)
        time.sleep(0.2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()

    code, printed = ended(monitor(project, "--respond"))
    assert code == 0, printed
    assert "training is due on 2025-03..2025-03" in printed
    store = ModelStore(str(project / "models"), "shop")
    first, second = store.cards()
    assert (second.parent, second.data.spans, store.latest()) == (first.version, ["2025-03"], second.version)

    runs = sorted((project / "runs").glob("shop-*"))
    code, printed = ended(monitor(project, "--respond"))
    assert (code, "trained before on this evidence" in printed) == (0, True), printed
    assert len(sorted((project / "runs").glob("shop-*"))) == len(runs) + 1
    assert len(store.cards()) == 2
    (record,) = MonitoringHistory(str(project / "models" / "monitoring"), "shop").records()
    assert record.verdict == "retrain"
