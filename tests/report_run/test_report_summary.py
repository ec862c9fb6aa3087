"""The page of a run: what it shows, and that it is written whatever happened."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from components.model_spec import write_spec
from components.report_run.summary import summarize
from components.run_records import ArtifactRecord, StageRecord, State, write_record
from components.settings import Prices
from tests.publish_model.blessed import model_spec

RUN = "shop-1"
RUN_ID = "689e9531-4a94-4ff2-b777-00f7c640790e"
SPEC = model_spec("a")
START = datetime(2025, 3, 1, 12, tzinfo=UTC)
PRICES = Prices(cpu_hour=3600.0, gib_hour=3600.0, currency="EUR")
TASKS = ("ingest-data", "validate-data", "gate", "transform-data", "train-model", "evaluate-model", "publish-model")
PAGES = {"validate-data": "validation", "train-model": "training", "evaluate-model": "evaluation"}


class Text(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.words += data.split() if self.tags[-1:] != ["style"] else []

    @property
    def text(self) -> str:
        """All text, its spaces reduced."""
        return " ".join(self.words)


def record(root: Path, task: str, index: int, state: State = "succeeded", **values: Any) -> None:
    """Writes the record of a task that ran for 2 s, with 1 s of CPU and 0.5 GiB."""
    started = None if state == "skipped" else START + timedelta(seconds=2 * index)
    known: dict[str, Any] = {
        "started": started,
        "ended": started and started + timedelta(seconds=2),
        "wall_seconds": 2.0 if started else 0.0,
        "cpu_seconds": 1.0 if started else 0.0,
        "peak_rss_bytes": 2**29 if started else 0,
        "artifacts": artifacts(root, task) if started else {},
    }
    stage = task.replace("-", "_")
    write_record(root, RUN, StageRecord(task=task, stage=stage, state=state, **{**known, **values}))


def artifacts(root: Path, task: str) -> dict[str, ArtifactRecord]:
    """Writes what a stage writes."""
    folder = root / RUN / task
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    if task in PAGES:
        (folder / "report").write_text(f"<html>{PAGES[task]}</html>")
        found["report"] = ArtifactRecord(uri=str(folder / "report"), type="system.HTML")
    if task == "ingest-data":
        data = {"train": 8000.0, "eval": 2000.0, "spans": "2025-01, 2025-02, 2025-03", "digest": "da7a" * 16}
        found["examples"] = ArtifactRecord(uri=str(folder / "examples"), metadata=data)
    if task == "train-model":
        write_spec(folder, SPEC)
        found["trained"] = ArtifactRecord(uri=str(folder))
    if task == "evaluate-model":
        found["metrics"] = ArtifactRecord(uri="", metadata={"auc": 0.7123, "rows": 2000.0})
    return found


@pytest.fixture
def passed(tmp_path: Path) -> Path:
    """The folder of all runs, with one that passed."""
    for index, task in enumerate(TASKS):
        record(tmp_path, task, index)
    judged = {"verdict": "pass", "reason": "auc 0.7123 ≥ 0.66"}
    record(tmp_path, "evaluate-model", 5, parameters=judged)
    told = {"registries": "mlflow was not told: it is away; later: python -m pipelines models export"}
    version = {"version": "v0003-1a2b3c4d", "uri": "/m/shop/v0003-1a2b3c4d"}
    record(tmp_path, "publish-model", 6, parameters=version | told)
    record(tmp_path, "report-run", 7, "running", ended=None)
    return tmp_path


def summary(root: Path, state: str = "SUCCEEDED") -> Text:
    """Writes the page of the run, and reads the one in the run's folder."""
    summarize(state, RUN, RUN_ID, str(root), PRICES, root / RUN / "report-run" / "page")
    assert not [path for path in root.rglob("*") if ".partial" in path.name]
    return Text(root / RUN / "report" / "index.html")


def test_a_passed_run_is_told_from_data_to_model(passed: Path) -> None:
    page = summary(passed)
    for words in (
        "Run shop-1 passed",
        "auc 0.7123 ≥ 0.66",
        "2025-01 … 2025-03 (3)",
        "train 8,000 eval 2,000",
        "da7ada7ada7a",
        SPEC.weights_digest[:12],
        "version v0003-1a2b3c4d",
        "registries mlflow was not told: it is away; later: python -m pipelines models export",
        "0 of 7",
    ):
        assert words in page.text
    assert "report-run" not in page.text


def test_the_cost_is_time_and_memory_times_prices(passed: Path) -> None:
    # 7 stages, each 1 s of CPU at 1 EUR a second and 2 s of 0.5 GiB at 1 EUR a GiB and second
    assert "14.0 s 7.0 s 512 MiB 14.00000" in summary(passed).text


def test_metrics_that_the_verdict_names_come_first(tmp_path: Path) -> None:
    metadata = {"rows": 9.0, "brier": 0.1, "log_loss": 0.4, "auc": 0.7}
    metrics = {"metrics": ArtifactRecord(uri="", metadata=metadata)}
    record(tmp_path, "evaluate-model", 0, artifacts=metrics, parameters={"reason": "log_loss 0.4, auc 0.7"})
    assert "log_loss 0.4 auc 0.7 brier 0.1 rows 9" in summary(tmp_path).text


def test_links_lead_to_copies_beside_the_page(passed: Path) -> None:
    page = summary(passed)
    assert page.links == ["validation.html", "training.html", "evaluation.html"]
    for link in page.links:
        assert (passed / RUN / "report" / link).read_text() == f"<html>{link.removesuffix('.html')}</html>"
    alone = Text(passed / RUN / "report-run" / "page")
    assert alone.links == []
    assert "script" not in alone.tags


def test_a_failed_run_says_why_first(tmp_path: Path) -> None:
    record(tmp_path, "ingest-data", 0)
    record(tmp_path, "validate-data", 1, parameters={"verdict": "fail", "reason": "3 anomalies in city"})
    record(tmp_path, "gate", 2, "failed", error="data gate: data rejected: 3 anomalies in city", exit_code=3)
    for task in TASKS[3:]:
        record(tmp_path, task, 0, "skipped")
    page = summary(tmp_path, "FAILED")
    assert "Run shop-1 failed" in page.text
    assert page.text.index("data gate: data rejected: 3 anomalies in city") < page.text.index("Duration")
    assert page.text.count("skipped") == 4
    assert page.text.count("not reached") >= 3
    assert page.links == ["validation.html"]


def test_cached_stages_are_marked(tmp_path: Path) -> None:
    for index, task in enumerate(TASKS):
        record(tmp_path, task, index, "cached" if index < 5 else "succeeded")
    page = summary(tmp_path)
    assert "5 of 7" in page.text
    assert page.words.count("cached") == 5


def test_names_and_reasons_are_text_never_markup(tmp_path: Path) -> None:
    hostile = "<script>alert('1')</script><img src=x onerror=alert(1)>"
    metadata = {hostile: 0.5, "auc": 0.5}
    metrics = {"metrics": ArtifactRecord(uri="", metadata=metadata)}
    record(tmp_path, "evaluate-model", 0, artifacts=metrics, parameters={"verdict": hostile, "reason": hostile})
    record(tmp_path, hostile, 1, "failed", error=hostile, log=hostile, parameters={"reason": hostile})
    data = {"examples": ArtifactRecord(uri="", metadata={"spans": hostile, "digest": f'"{hostile}'})}
    record(tmp_path, "ingest-data", 2, artifacts=data)
    page = summary(tmp_path, hostile)
    assert {"script", "img"} & set(page.tags) == set()
    assert page.text.count("alert") >= 6


@pytest.mark.parametrize(
    ("state", "headline"),
    [("SUCCEEDED", "passed"), ("COMPLETE", "passed"), ("FAILED", "failed"), ("CANCELLED", "cancelled")],
)
def test_the_headline_is_what_kfp_says_where_there_are_no_records(tmp_path: Path, state: str, headline: str) -> None:
    summarize(state, RUN, RUN_ID, "minio://bucket/runs", PRICES, tmp_path / "page")
    assert f"Run shop-1 {headline}" in Text(tmp_path / "page").text


def test_a_run_without_records_gets_a_page_all_the_same(tmp_path: Path) -> None:
    page = tmp_path / "out" / "page"
    summarize("FAILED", RUN, RUN_ID, str(tmp_path / "nothing"), PRICES, page)
    assert "Of its stages nothing is known here" in Text(page).text
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("root", ["gs://bucket/runs", "s3://bucket/runs", "minio://bucket/runs"])
def test_a_run_on_a_cluster_gets_a_page_without_asking_its_storage(
    tmp_path: Path, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    summarize("SUCCEEDED", RUN, RUN_ID, root, PRICES, tmp_path / "page")
    assert "Run shop-1 passed" in Text(tmp_path / "page").text
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


BAD_RECORDS = {
    "empty": (b"", "JSON"),
    "cut off": (b"{", "JSON"),
    "list": (b"[]", "object"),
    "field missing": (b'{"task": "gate"}', "stage"),
    "unknown state": (b'{"task": "gate", "stage": "gate", "state": "fine"}', "state"),
    "negative": (b'{"task": "g", "stage": "g", "state": "failed", "wall_seconds": -1}', "wall"),
    "no zone": (b'{"task": "g", "stage": "g", "state": "failed", "ended": "2025-01-01"}', "ended"),
    "not UTF-8": (b"\xff\xfe\x00", "JSON"),
}
"""By what is wrong: the content of a record's file, and what the page says of it."""


@pytest.mark.parametrize(("content", "message"), BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_a_bad_record_is_named_and_the_rest_is_shown(passed: Path, content: bytes, message: str) -> None:
    (passed / RUN / "stages" / "gate.json").write_bytes(content)
    text = summary(passed).text
    assert "gate.json' is damaged" in text
    assert message in text
    assert "train-model" in text


@pytest.mark.parametrize("spec", [b"", b"[1]", b'{"weights_digest": null}', b"\xff"])
def test_a_damaged_spec_does_not_cost_the_page(passed: Path, spec: bytes) -> None:
    (passed / RUN / "train-model" / "spec.json").write_bytes(spec)
    assert "Model no details here" in summary(passed).text


def test_a_page_that_is_gone_is_not_linked(passed: Path) -> None:
    (passed / RUN / "train-model" / "report").unlink()
    assert summary(passed).links == ["validation.html", "evaluation.html"]


def test_the_page_can_be_written_again(passed: Path) -> None:
    first = summary(passed)
    (passed / RUN / "report" / "leftover.html").write_text("old")
    assert summary(passed).text == first.text
    assert not (passed / RUN / "report" / "leftover.html").exists()


def test_it_starts_without_heavy_libraries() -> None:
    code = "import components.report_run.summary, sys; print({'pandas','pyarrow','numpy','kfp'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
