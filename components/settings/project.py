"""A whole `pipeline.yaml`."""

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator

from components.settings.batch import Batch
from components.settings.cluster import Cluster
from components.settings.data import Data
from components.settings.evaluation import Evaluation
from components.settings.explanation import Explanation
from components.settings.features import Features
from components.settings.models import Model, wrong_kind
from components.settings.monitoring import Monitoring
from components.settings.publication import Prices, Publication, Retention
from components.settings.section import Section
from components.settings.serving import Deployment, Serving
from components.settings.stream import Stream
from components.settings.task import Task, Validation
from components.settings.training import Training
from components.settings.tuning import SELECTION_METRICS, Tuning, default_candidates, each_count
from components.settings.window_features import WindowFeatures


class Project(Section):
    """A whole `pipeline.yaml`."""

    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$")]
    """Of the project, its model and its deployment: lower case, digits and dashes."""
    data: Data
    schema_file: Annotated[str | None, Field(alias="schema")] = None
    """TFMD schema in text format, from the project's folder. Without one a schema is inferred and written
    out for review."""
    task: Task
    validation: Validation = Validation()
    window_features: WindowFeatures | None = None
    """Computed before all else; then columns like others."""
    features: Features = Features()
    user_module: str | None = None
    """Python file, from the project's folder, with `preprocessing_fn(inputs)` or
    `build_model(inputs, task, options)` or both; it travels with the run."""
    model: Model | None = None
    """The one model to train; without it, the best of tuning.candidates."""
    tuning: Tuning = Tuning()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    explanation: Explanation = Explanation()
    serving: Serving = Serving()
    publication: Publication = Publication()
    retention: Retention = Retention()
    batch: Batch = Batch()
    deployment: Deployment = Deployment()
    monitoring: Monitoring = Monitoring()
    stream: Stream = Stream()
    cluster: Cluster = Cluster()
    prices: Prices = Prices()

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if self.model and self.tuning.candidates:
            raise ValueError("both model and tuning.candidates say which model; take one of them out")
        return self

    @property
    def selection(self) -> Tuning:
        """Section `tuning` with its candidates named."""
        named = self.tuning.candidates or ([self.model] if self.model else default_candidates(self.task))
        return self.tuning.model_copy(update={"candidates": each_count(named)})

    def task_faults(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yields the settings that do not fit the type of the task: where, and what to do."""
        task, tuning, training = self.task, self.tuning, self.training
        if self.model and (fault := wrong_kind("model.kind", self.model, task)):
            yield ("model", "kind"), fault
        for index, candidate in enumerate(tuning.candidates):
            if fault := wrong_kind(f"tuning.candidates[{index}].kind", candidate, task):
                yield ("tuning", "candidates", index, "kind"), fault
        if tuning.metric and tuning.metric not in SELECTION_METRICS[task.type]:
            yield (
                ("tuning", "metric"),
                f"tuning.metric: {task.described} is not compared by '{tuning.metric}'; use one of "
                f"{', '.join(SELECTION_METRICS[task.type])}",
            )
        yield from self._faults_of_decision()
        if self.window_features:
            yield from self.window_features.faults(task.label)
        if not task.is_unsupervised:
            return
        if task.type == "anomaly_detection" and not task.label and (len(tuning.candidates) > 1 or tuning.trials):
            yield (
                ("tuning", "candidates" if len(tuning.candidates) > 1 else "trials"),
                "tuning: without a label nothing tells which anomaly detector is better; name task.label, or name one "
                "model in section model and no trials",
            )
        for name in ("calibration", "class_weight"):
            if getattr(training, name) != "none":
                yield (
                    ("training", name),
                    f"training.{name}: {task.described} learns from no label and gives no probabilities; set it to "
                    "none",
                )

    def _faults_of_decision(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        task, by = self.task, self.training.decision.by
        where = ("training", "decision", "by")
        if by == "contamination" and task.type != "anomaly_detection":
            yield where, f"training.decision.by: contamination is for anomaly_detection, not for {task.described}"
        if by == "alert_budget" and task.type != "binary":
            instead = "; for so many anomalies set it to contamination" if task.type == "anomaly_detection" else ""
            yield where, f"training.decision.by: alert_budget is for binary, not for {task.described}{instead}"
        if self.training.decision.looks_at_labels and task.type == "anomaly_detection" and not task.label:
            yield where, f"training.decision.by: {by} needs labels; name task.label, or set it to contamination"

    @model_validator(mode="after")
    def _store_within_reach(self) -> Self:
        store = self.publication.store
        if self.deployment.target == "kserve" and not store.startswith(("gs://", "s3://")):
            raise ValueError(
                f"publication.store is '{store}', where a cluster cannot read models; set it to gs:// or s3:// for "
                "deployment.target kserve"
            )
        return self
