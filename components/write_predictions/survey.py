"""What the report tells and the verdict rests on: one pass over the predictions."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from components.settings import Batch
from components.write_predictions.distribution import Counting, distance, edges_for, predicted_column
from components.write_predictions.record import Distribution, SpanRecord
from components.write_predictions.rows import Predictions, Stretch, column_of
from components.write_predictions.segments import Segments

_MOST_REJECTED = 20
_MOST_TOP = 20


@dataclass(frozen=True)
class Survey:
    """Of all spans of a run."""

    rows: int
    rejected: int
    reasons: dict[str, int]
    """Rejected rows by reason."""
    examples: pa.Table | None
    """Some of the rejected rows."""
    distributions: dict[str, Distribution]
    """By model."""
    by_span: dict[str, Distribution]
    """Of the model that decides."""
    before: SpanRecord | None
    """The span before the first one."""
    shift: float | None
    """Between this and the span before."""
    refused: dict[str, int]
    """Rows that a challenger refused."""
    segments: list[Segments]
    top: pa.Table | None

    @property
    def share_rejected(self) -> float:
        """Of all rows."""
        return self.rejected / max(self.rows + self.rejected, 1)


def survey(
    predictions: Predictions,
    stretches: Sequence[Stretch],
    slices: Sequence[Sequence[str]],
    before: SpanRecord | None,
    batch: Batch,
) -> Survey:
    """Reads all predictions once.

    Args:
        predictions: of the run.
        stretches: its spans.
        slices: columns whose values make segments; those that were not kept are left out.
        before: what is there of the span before.
        batch: the section.
    """
    specs = predictions.specs
    columns = {name: column_of(name, predicted_column(spec)) for name, spec in specs.items()}
    edges = {name: edges_for(spec, before.distribution if before else None) for name, spec in specs.items()}
    overall = {name: Counting(columns[name], edges[name]) for name in specs}
    by_span: dict[str, Distribution] = {}
    kept = [list(names) for names in slices if set(names) <= set(predictions.schema.names)]
    number = columns[""] if specs[""].outputs[0].width is None else None
    decision = predictions.decision_of("") if not batch.labels else None
    segments = [Segments(names, number, decision) for names in kept]
    rows, refused = 0, dict.fromkeys((name for name in specs if name), 0)
    for stretch in stretches:
        here = Counting(columns[""], edges[""])
        for table in predictions.tables(stretch):
            rows += table.num_rows
            for counting in (*overall.values(), here):
                counting.add(table)
            for segment in segments:
                segment.add(table)
            for name in refused:
                refused[name] += table[columns[name]].null_count
        by_span[stretch.span] = here.result()
    reasons, examples = predictions.rejected(_MOST_REJECTED)
    distributions = {name: counting.result() for name, counting in overall.items()}
    return Survey(
        rows=rows,
        rejected=sum(stretch.rejected for stretch in stretches),
        reasons=reasons,
        examples=examples,
        distributions=distributions,
        by_span=by_span,
        before=before,
        shift=distance(distributions[""], before.distribution) if before and rows else None,
        refused=refused,
        segments=segments,
        top=predictions.top(_MOST_TOP),
    )
