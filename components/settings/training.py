"""How a model is fitted."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from components.settings.section import Fraction, Section


class EarlyStopping(Section):
    """When training stops before its last epoch; the best weights are restored."""

    patience: PositiveInt = 3
    """Epochs without a better validation loss."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class Decision(Section):
    """binary: from which probability on a row counts as positive. Unless it is given, rows held out decide.

    anomaly_detection: from which score on a row counts as an anomaly; all but threshold and contamination need labels.
    """

    by: Literal["threshold", "contamination", "max_f1", "cost", "precision", "recall", "alert_budget"] | None = None
    """threshold: as given. contamination: so many rows of the train split are anomalies. max_f1: the highest F1. cost:
    the lowest. precision, recall: the target is reached, and of the other as much as there is. alert_budget: binary; so
    many rows count as positive as somebody can look at. Default: threshold; anomaly_detection: contamination."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    contamination: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """anomaly_detection: share of the train split's rows that count as anomalies."""
    false_positive_cost: Annotated[float, Field(ge=0)] = 1.0
    """by cost: of a row that counts as positive and is not."""
    false_negative_cost: Annotated[float, Field(ge=0)] = 1.0
    """by cost: of a positive row that does not count as one."""
    target: Annotated[float, Field(gt=0, le=1)] | None = None
    """by precision or recall: what to reach."""
    alerts_per_1000_rows: Annotated[float, Field(gt=0, lt=1000)] | None = None
    """by alert_budget: so many of 1,000 rows, those with the highest probabilities, count as positive."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.by in ("precision", "recall") and self.target is None:
            raise ValueError(f"by is {self.by}, so give target, e.g. 0.9")
        if self.by == "alert_budget" and self.alerts_per_1000_rows is None:
            raise ValueError("by is alert_budget, so give alerts_per_1000_rows, e.g. 5")
        return self

    @property
    def looks_at_labels(self) -> bool:
        """Whether the labels of some rows decide."""
        return self.by not in (None, "threshold", "contamination", "alert_budget")

    @property
    def needs_held_out(self) -> bool:
        """Whether rows that were not learned from decide."""
        return self.looks_at_labels or self.by == "alert_budget"


class Training(Section):
    """How the model is fitted."""

    epochs: PositiveInt = 20
    batch_size: PositiveInt | None = None
    """Default: 1024, or so many that an epoch has 32 steps, but not fewer than 32."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    learning_rate_decay: Literal["none", "cosine"] = "none"
    """cosine: the rate falls to 0 along half a cosine over all epochs (Loshchilov, Hutter: SGDR, ICLR 2017). Models
    that differ in the seed only are then more alike."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    early_stopping: EarlyStopping | None = EarlyStopping()
    validation_fraction: Fraction = 0.1
    """Share of the train split that is held out, to stop early, to calibrate and to choose the threshold; the eval
    split is never used for that."""
    validation_rows: Literal["random", "last"] = "random"
    """Which rows are held out: drawn by the seed, or the last in the order of the spans."""
    calibration: Literal["none", "sigmoid", "isotonic"] = "none"
    """Makes probabilities agree with the shares seen on the rows held out. sigmoid: one slope (for more than two
    classes: one temperature); isotonic: any rising curve, for some thousand rows."""
    decision: Decision = Decision()
    class_weight: Literal["none", "balanced"] = "none"
    seed: Annotated[int, Field(ge=0)] = 17

    @property
    def holds_out(self) -> bool:
        """Whether rows are held out."""
        return bool(self.early_stopping) or self.calibration != "none" or self.decision.needs_held_out
