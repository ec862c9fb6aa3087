"""Writing the predictions of a run: survey, verdict, then each span into its place."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from components import storage
from components.artifacts import read_manifest
from components.errors import DataRejectedError
from components.settings import Batch, Evaluation, Task
from components.write_predictions.page import write_page
from components.write_predictions.record import SpanRecord
from components.write_predictions.rows import WHOLE, Predictions, Stamp, Stretch, versions_of
from components.write_predictions.survey import Survey, survey


class Target(Protocol):
    """Where the spans of one project are."""

    def place(self, spans: list[str]) -> str:
        """Says where the predictions of some spans are."""

    def spans(self) -> list[str]:
        """Lists the spans that are there."""

    def record(self, span: str) -> SpanRecord | None:
        """Reads the record of a span; None: there is none."""

    def replace(self, record: SpanRecord, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
        """Puts a span in place of what was there, whole or not at all."""


@dataclass(frozen=True)
class Origin:
    """Who predicted."""

    name: str
    """Of the project."""
    run: str
    models: Mapping[str, str]
    """URIs by name, the one that decides under the empty one."""


@dataclass(frozen=True)
class Result:
    """How it went."""

    verdict: str
    reason: str
    uri: str
    """Empty: nothing was written."""
    figures: dict[str, float]


def write(predictions: str, task: Task, batch: Batch, evaluation: Evaluation, origin: Origin, report: str) -> Result:
    """Judges predictions and puts them into their place, unless they fail; writes the report in any case.

    Args:
        predictions: dataset that predict_batch wrote.
        task: names the label, for the report.
        batch: target, format, limits.
        evaluation: its slices are the segments.
        origin: who predicted.
        report: HTML file to write.

    Raises:
        InputError: the target refuses, or a column has a name that is taken.
        DataRejectedError: there are no rows; a column divides into too many parts.
        UnavailableError: the target does not answer.
    """
    folder = Path(predictions)
    now = datetime.now(UTC)
    versions = versions_of(origin.models)
    found = Predictions(folder, read_manifest(folder), batch, Stamp(now, origin.name, versions[""]))
    stretches = found.stretches()
    if not sum(one.stop - one.start + one.rejected for one in stretches):
        raise DataRejectedError("there are no rows to write; supply data, or change data.window")
    target = _target(origin.name, batch)
    before = _before(target, stretches[0].span)
    seen = survey(found, stretches, evaluation.slices, before, batch)
    verdict, reason = _judged(seen, batch)
    spans = [one.span for one in stretches]
    place = target.place(spans) if verdict == "pass" else ""
    if verdict == "pass":
        for stretch in stretches:
            record = _record(stretch, seen, found, batch, origin, now)
            target.replace(record, found.tables(stretch), found.schema)
            print(
                f"write_predictions: {stretch.span}: {record.rows:,} rows in {target.place([stretch.span])}", flush=True
            )
    write_page(Path(report), seen, spans, verdict, reason, place, versions, task, found)
    figures = {"rows": float(seen.rows), "rejected": float(seen.rejected)}
    figures |= {"shift": seen.shift} if seen.shift is not None else {}
    mean = seen.distributions[""].mean
    figures |= {"mean_prediction": mean} if mean is not None else {}
    return Result(verdict, reason, place, figures)


def _target(name: str, batch: Batch) -> Target:
    output = batch.output
    if output.is_database:
        from components.write_predictions.tables import TableTarget

        return TableTarget(output.target, name, output)
    if storage.is_remote(output.target):
        from components.write_predictions.buckets import BucketTarget

        return BucketTarget(output.target, name, output)
    from components.write_predictions.folders import FolderTarget

    return FolderTarget(output.target, name, output)


def _before(target: Target, span: str) -> SpanRecord | None:
    """Gives the record of the newest span before this one."""
    earlier = [one for one in target.spans() if WHOLE not in (one, span) and _order(one) < _order(span)]
    return target.record(max(earlier, key=_order)) if earlier else None


def _order(span: str) -> tuple[int, str]:
    """Orders times of one form as text, and numbers by their size."""
    return (int(span), "") if span.isdecimal() else (0, span)


def _judged(seen: Survey, batch: Batch) -> tuple[str, str]:
    share, total = seen.share_rejected, seen.rows + seen.rejected
    counts = f"{seen.rows:,} rows predicted, {seen.rejected:,} rejected"
    if seen.rejected and (share > batch.max_rejected or not seen.rows):
        mostly, count = next(iter(seen.reasons.items()))
        return "fail", (
            f"{seen.rejected:,} of {total:,} rows rejected ({share:.2%}, allowed: {batch.max_rejected:.2%}), mostly "
            f"({count:,}) because {mostly}; fix the source, or raise batch.max_rejected; nothing was written"
        )
    if seen.shift is not None and seen.before is not None:
        counts += f"; {seen.shift:.3f} from {seen.before.span}"
        if batch.max_shift is not None and seen.shift > batch.max_shift:
            return "fail", (
                f"predictions are {seen.shift:.3f} from those of {seen.before.span} (allowed: {batch.max_shift:g}, "
                "Kolmogorov-Smirnov or largest difference of a share); see the report, retrain, or raise "
                "batch.max_shift; nothing was written"
            )
    return "pass", counts


def _record(
    stretch: Stretch, seen: Survey, found: Predictions, batch: Batch, origin: Origin, now: datetime
) -> SpanRecord:
    return SpanRecord(
        span=stretch.span,
        rows=stretch.stop - stretch.start,
        rejected=stretch.rejected,
        models=dict(origin.models),
        digest=found.manifest.digest,
        format="table" if batch.output.is_database else batch.output.format,
        columns=found.schema.names,
        distribution=seen.by_span[stretch.span],
        written=now,
        run=origin.run,
    )
