"""The page that sums up a run: what happened, what came of it, what it cost."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from components import storage
from components.artifacts import MODEL_SPEC, whole, write_whole
from components.report_run.known import on_the_cluster, on_this_machine
from components.reports import render
from components.run_records import StageRecord
from components.settings import Prices

REPORT = "report"
INDEX = "index.html"
SCHEMA = "schema.pbtxt"
_TEMPLATE = Path(__file__).with_name("page.html.jinja")
_PAGES = {
    "validate_data": ("validation.html", "Data validation"),
    "tune_model": ("selection.html", "Model selection"),
    "train_model": ("training.html", "Training"),
    "evaluate_model": ("evaluation.html", "Model evaluation"),
    "explain_model": ("explanation.html", "Explanation"),
    "check_serving": ("serving.html", "Serving check"),
    "deploy_model": ("deployment.html", "Deployment"),
    "monitor_model": ("monitoring.html", "Monitoring"),
    "write_predictions": ("predictions.html", "Predictions"),
}
_GIB = 2**30
# kfp.local says SUCCEEDED, a cluster says COMPLETE.
_SUCCESS = ("SUCCEEDED", "COMPLETE")
_DONE = ("succeeded", "cached")


@dataclass(frozen=True)
class Row:
    """One stage on the page."""

    record: StageRecord
    offset: float
    """Where its bar starts, in percent of the run."""
    width: float
    """Of its bar, in percent of the run."""
    cost: float


@dataclass(frozen=True)
class Page:
    """The page of one stage."""

    title: str
    source: str
    """Where the stage wrote it."""
    file: str
    """Its name beside the summary."""


@dataclass(frozen=True)
class Link:
    """One thing in the line from data to the published model."""

    title: str
    facts: Mapping[str, str]
    """By name, what identifies it."""
    is_reached: bool
    """The stage that makes it has ended well."""


def summarize(state: str, run_name: str, run_id: str, pipeline_root: str, prices: Prices, page: str | Path) -> None:
    """Writes the summary, and for a run on this machine also `<pipeline_root>/<run_name>/report/` with its pages.

    What cannot be read is named on the page, which matters most when something went wrong.

    Args:
        state: of the run as KFP calls it: SUCCEEDED or COMPLETE for a success.
        run_name: of the run.
        run_id: by which Kubeflow Pipelines knows it.
        pipeline_root: folder of all runs; a cluster does not always say where it is.
        prices: of an hour of resources.
        page: the HTML file to write; it links to nothing.
    """
    folder = Path(pipeline_root.removeprefix("file://")) / run_name
    is_local = not storage.is_remote(pipeline_root) and folder.is_dir()
    known = on_this_machine(folder.parent, run_name) if is_local else on_the_cluster(run_id)
    context = _context(state, run_name, known.records, prices) | {"faults": known.faults}
    pages = _pages(known.records)
    if is_local:
        with whole(folder / REPORT) as report:
            for one in pages:
                shutil.copyfile(one.source, report / one.file)
            (report / INDEX).write_text(render(_TEMPLATE, pages=pages, linked=True, **context), encoding="utf-8")
    write_whole(page, render(_TEMPLATE, pages=pages, linked=False, **context))


def _context(state: str, run_name: str, records: list[StageRecord], prices: Prices) -> dict[str, object]:
    failed = next((record for record in records if record.state == "failed"), None)
    rows = _rows(records, prices)
    return {
        "run_name": run_name,
        "passed": failed is None and state.upper() in _SUCCESS,
        "state": state.lower(),
        "failed": failed,
        "rows": rows,
        "seconds_total": _span(records),
        "cached": sum(record.state == "cached" for record in records),
        "started": next((record.started for record in records if record.started), None),
        "cpu_seconds": sum(record.cpu_seconds for record in records),
        "peak": max((record.peak_rss_bytes for record in records), default=0),
        "cost": sum(row.cost for row in rows),
        "prices": prices,
        "is_measured": any(record.cpu_seconds or record.peak_rss_bytes for record in records),
        "judged": _judged(records),
        "metrics": _metrics(records),
        "lineage": _lineage(records),
        "gib": _GIB,
    }


def _judged(records: list[StageRecord]) -> list[StageRecord]:
    """Lists who judged; a gate, which only says again what a stage said, where nothing is known of that stage."""
    first: dict[tuple[str, str], StageRecord] = {}
    for record in records:
        if verdict := record.parameters.get("verdict"):
            first.setdefault((str(verdict), str(record.parameters.get("reason"))), record)
    return list(first.values())


def _rows(records: list[StageRecord], prices: Prices) -> list[Row]:
    total = _span(records) or 1.0
    first = min((record.started for record in records if record.started), default=None)
    return [
        Row(
            record,
            100 * _seconds(first, record.started) / total,
            100 * _seconds(record.started, record.ended) / total,
            _cost(record, prices),
        )
        for record in records
    ]


def _cost(record: StageRecord, prices: Prices) -> float:
    """Prices the CPU time that was used, and the peak memory for as long as the stage ran."""
    gib_hours = record.peak_rss_bytes / _GIB * record.wall_seconds / 3600
    return record.cpu_seconds / 3600 * prices.cpu_hour + gib_hours * prices.gib_hour


def _span(records: Iterable[StageRecord]) -> float:
    """Gives the seconds from the first start to the last end."""
    records = list(records)
    first = min((record.started for record in records if record.started), default=None)
    return _seconds(first, max((record.ended for record in records if record.ended), default=None))


def _seconds(start: datetime | None, end: datetime | None) -> float:
    return max((end - start).total_seconds(), 0.0) if start and end else 0.0


def _pages(records: list[StageRecord]) -> list[Page]:
    """Lists the stages' pages that are there."""
    sources = {record.stage: record.artifacts["report"].uri for record in records if "report" in record.artifacts}
    return [
        Page(title, sources[stage], file)
        for stage, (file, title) in _PAGES.items()
        if stage in sources and Path(sources[stage]).is_file()
    ]


def _lineage(records: list[StageRecord]) -> list[Link]:
    """Follows the data to the published model, as far as the run came."""
    data = _artifact_metadata(records, "ingest_data", "examples")
    spans = str(data.get("spans", "")).split(", ")
    window = f"{spans[0]} … {spans[-1]} ({len(spans)})" if len(spans) > 2 else ", ".join(spans)
    published = _stage(records, "publish_model")
    parameters = published.parameters if published else {}
    written = _stage(records, "write_predictions")
    facts = {
        ("Data", "ingest_data"): _texts({**data, "spans": window}, "spans", "train", "eval", "batch", "digest"),
        ("Schema", "validate_data"): _file_digest(_uri(records, "validate_data", "schema"), SCHEMA),
    }
    training = {
        ("Transform", "transform_data"): _texts(_artifact_metadata(records, "transform_data", "transformed"), "digest"),
        ("Model", "train_model"): _model_digest(_uri(records, "train_model", "trained")),
        ("Published", "publish_model"): _texts(parameters, "version", "uri", "registries"),
    }
    facts |= {("Predictions", "write_predictions"): _texts(written.parameters, "uri")} if written else training
    done = {record.stage for record in records if record.state in _DONE}
    return [Link(title, found, stage in done) for (title, stage), found in facts.items()]


def _metrics(records: list[StageRecord]) -> dict[str, float]:
    """Lists the metrics: those that the verdict's reason names come first; KFP keeps no order."""
    judge = _stage(records, "evaluate_model")
    named = str(judge.parameters.get("reason", "")).split() if judge else []
    found = _artifact_metadata(records, "evaluate_model", "metrics")
    order = sorted(found, key=lambda name: (named.index(name) if name in named else len(named), name))
    return {name: value for name in order if isinstance(value := found[name], int | float)}


def _stage(records: list[StageRecord], stage: str) -> StageRecord | None:
    return next((record for record in records if record.stage == stage), None)


def _artifact_metadata(records: list[StageRecord], stage: str, artifact: str) -> dict[str, object]:
    record = _stage(records, stage)
    return record.artifacts[artifact].metadata if record and artifact in record.artifacts else {}


def _uri(records: list[StageRecord], stage: str, artifact: str) -> str:
    record = _stage(records, stage)
    return record.artifacts[artifact].uri if record and artifact in record.artifacts else ""


def _texts(values: Mapping[str, object], *names: str) -> dict[str, str]:
    """Picks what is there; counts, which KFP keeps as floats, with separators."""
    return {
        name: f"{value:,.0f}" if isinstance(value, float) else str(value)
        for name in names
        if (value := values.get(name)) not in (None, "")
    }


def _file_digest(folder: str, file: str) -> dict[str, str]:
    path = Path(folder, file)
    return {"digest": hashlib.sha256(path.read_bytes()).hexdigest()} if folder and path.is_file() else {}


def _model_digest(folder: str) -> dict[str, str]:
    path = Path(folder, MODEL_SPEC)
    if not folder or not path.is_file():
        return {}
    try:
        spec = json.loads(path.read_bytes())
    except ValueError:
        return {}
    return _texts({"digest": spec.get("weights_digest")}, "digest") if isinstance(spec, dict) else {}
