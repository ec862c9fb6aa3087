"""The report: what was tried, how good it was, and why one was chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts import write_whole
from components.reports import render
from components.settings import CustomModel, Model, StackModel
from components.tune_model.records import Experiment, Leaderboard, Row, TrialResult

_MAX_CHARTS = 6
_MAX_ROWS = 30
_MAX_POINTS = 100


@dataclass(frozen=True)
class Scale:
    """The limits of the whiskers."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Gives a position in percent."""
        return 50.0 if self.high == self.low else 100 * (value - self.low) / (self.high - self.low)


def write_page(path: Path, board: Leaderboard, results: Sequence[TrialResult], experiment: Experiment) -> None:
    """Writes the page; a reader sees all of it or none.

    Args:
        path: of the page.
        board: the leaderboard.
        results: all trials; none: there was nothing to select.
        experiment: what was tried, and on which rows.
    """
    measured = [row for row in board.rows if row.value is not None]
    shown = [row for at, row in enumerate(measured) if at < _MAX_ROWS or row.chosen or row.state == "baseline"]
    write_whole(
        path,
        render(
            Path(__file__).with_name("report.html.jinja"),
            board=board,
            rows=shown,
            hidden=len(measured) - len(shown),
            ended=[row for row in board.rows if row.value is None],
            label=experiment.task.label,
            tuning=experiment.tuning,
            training=experiment.training,
            scale=_scale(board.rows),
            charts=_charts(board, results),
            model=_settings(board.model),
        ),
    )


def _scale(rows: Sequence[Row]) -> Scale:
    ends = [end for row in rows for end in (row.low, row.high) if end is not None]
    return Scale(min(ends, default=0.0), max(ends, default=1.0))


def _charts(board: Leaderboard, results: Sequence[TrialResult]) -> list[dict[str, Any]]:
    """Draws the best model of each kind: the losses of its first fold."""
    order = [row.model for row in board.rows if row.model and row.state == "complete"]
    of_model = {one.model.model_dump_json(): one for one in results}
    best: dict[str, TrialResult] = {}
    for model in order:
        best.setdefault(model.kind, of_model[model.model_dump_json()])
    return [_chart(one) for one in list(best.values())[:_MAX_CHARTS] if one.curves]


def _chart(result: TrialResult) -> dict[str, Any]:
    curve = result.curves[0]
    thinned = [*curve[:: max(1, len(curve) // _MAX_POINTS)], curve[-1]]
    learned = [(step.number, step.loss) for step in thinned]
    held_out = [(step.number, step.validation_loss) for step in thinned if step.validation_loss is not None]
    losses = [loss for _, loss in (*learned, *held_out)]
    series = [{"name": "rows learned from", "points": learned}, {"name": "rows held out", "points": held_out}]
    return {
        "name": result.model.kind,
        "series": [one for one in series if one["points"]],
        "steps": (1, curve[-1].number),
        "losses": (min(losses), max(losses)),
        "unit": result.unit,
        "kept": result.kept[0],
    }


def _settings(model: Model) -> dict[str, Any]:
    values = model.options if isinstance(model, CustomModel) else model.model_dump(exclude={"kind"})
    if isinstance(model, StackModel):
        values["members"] = ", ".join(member.kind for member in model.members)
    return {name: "null" if value is None else value for name, value in values.items()}
