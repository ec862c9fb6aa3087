"""A trained model, its predictions over the eval split, and what explain takes."""

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from components.explain_model.explaining import explain
from components.predict_batch.prediction import predict
from components.settings import Explanation
from tests.train_model.projects import Project, project, read_split, trained

ROWS = 300


@dataclass
class Given:
    """What explain takes; tests change what they are about."""

    project: Project
    model: Path
    examples: Path
    predictions: Path
    output: Path
    transform_graph: str = ""
    schema: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    label: str = "label"

    def explain(self, **settings: Any) -> dict[str, float]:
        """Explains into `output`."""
        return explain(
            str(self.model),
            self.transform_graph,
            self.schema,
            str(self.examples),
            str(self.predictions),
            self.project.task.model_copy(update={"label": self.label}),
            Explanation.model_validate({"rows": 40, "background_rows": 12, **self.settings, **settings}),
            str(self.output / "explanations"),
            str(self.output / "report.html"),
        )

    @property
    def table(self) -> pa.Table:
        """The explanations."""
        return read_split(self.output / "explanations", "eval")

    @property
    def report(self) -> str:
        """The page."""
        return (self.output / "report.html").read_text(encoding="utf-8")


@functools.cache
def predicted(kind: str) -> Path:
    """Predictions of the trained model of a task; they keep the label alone."""
    made = project(kind).folder / "predicted"
    predict(str(project(kind).examples), str(trained(kind)), "eval", ["label"], str(made))
    return made


def given(kind: str, output: Path) -> Given:
    """All that explain takes, of a task."""
    return Given(project(kind), trained(kind), project(kind).examples, predicted(kind), output)


@functools.cache
def grown(kind: str, model: str, calibration: str = "none") -> tuple[Path, Path]:
    """A really trained ensemble of trees, and its predictions over the eval split."""
    made = project(kind)
    folder = made.folder / f"{model}-{calibration}"
    made.train(folder, {"kind": model, "trees": 40}, {"calibration": calibration})
    predict(str(made.examples), str(folder / "model"), "eval", ["label"], str(folder / "predicted"))
    return folder / "model", folder / "predicted"


def given_trees(kind: str, output: Path, model: str, calibration: str = "none") -> Given:
    """All that explain takes, of an ensemble of trees."""
    trained_there, predicted_there = grown(kind, model, calibration)
    graph = str(project(kind).transform_graph)
    return Given(project(kind), trained_there, project(kind).examples, predicted_there, output, graph)
