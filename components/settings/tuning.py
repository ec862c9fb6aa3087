"""How a model is chosen."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, ValidationError, model_validator

from components.settings.models import (
    AutoencoderModel,
    BoostedTreesModel,
    CustomModel,
    IsolationForestModel,
    KMeansModel,
    LinearModel,
    MlpModel,
    Model,
)
from components.settings.section import Fraction, Name, Section
from components.settings.task import Task


class Range(Section):
    """From where to where a hyperparameter is drawn; one that is a whole number is drawn as such."""

    low: int | float
    high: int | float
    log: bool = False
    """Drawn evenly on a logarithmic scale."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low}, high {self.high}; low must be the smaller")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low}; a logarithmic range starts above 0")
        return self


def with_hyperparameters(model: Model, values: Mapping[str, Any]) -> Model:
    """Gives a model with other hyperparameters; those of a custom one are its options.

    Raises:
        ValidationError: it has no such hyperparameter, or not of this value.
    """
    given = {"options": {**model.options, **values}} if isinstance(model, CustomModel) else values
    return type(model).model_validate({**model.model_dump(), **given})


def default_candidates(task: Task) -> list[Model]:
    """Lists the models that compete where none is named."""
    if task.type == "clustering":
        return [KMeansModel(kind="k_means")]
    if task.type == "anomaly_detection":
        forest = IsolationForestModel(kind="isolation_forest")
        # Without labels nothing tells which of two detectors is the better one.
        return [forest, AutoencoderModel(kind="autoencoder")] if task.label else [forest]
    return [LinearModel(kind="linear"), MlpModel(), BoostedTreesModel(kind="boosted_trees")]


def each_count(candidates: list[Model]) -> list[Model]:
    """Puts one candidate a number of clusters where a candidate leaves the number open."""
    return [
        one
        for candidate in candidates
        for one in (
            [candidate.model_copy(update={"clusters": count}) for count in range(2, candidate.max_clusters + 1)]
            if isinstance(candidate, KMeansModel) and candidate.clusters is None
            else [candidate]
        )
    ]


SelectionMetric = Literal["log_loss", "brier", "auc", "accuracy", "rmse", "mae", "silhouette"]

SELECTION_METRICS: Mapping[str, tuple[SelectionMetric, ...]] = {
    "binary": ("log_loss", "brier", "auc", "accuracy"),
    "multiclass": ("log_loss", "brier", "auc", "accuracy"),
    "regression": ("rmse", "mae"),
    "anomaly_detection": ("auc",),
    "clustering": ("silhouette",),
}
"""By type of task; the first is the default."""


class Tuning(Section):
    """How the model is chosen: candidates, compared on rows of the train split that they did not learn from."""

    candidates: list[Model] = []
    """Kinds of models, with the hyperparameters to start from. Default: section model alone; without one linear, mlp
    and boosted_trees; anomaly_detection: isolation_forest and, with a label, autoencoder; clustering: k_means."""
    trials: Annotated[int, Field(ge=0)] = 0
    """Models with other hyperparameters that are tried besides the candidates as they stand."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """After which no further trial starts; the candidates as they stand are always tried."""
    search: dict[str, dict[Name, Range | list[Any]]] = {}
    """By kind of model, hyperparameters and where they are drawn from; default: what the kind proposes."""
    metric: SelectionMetric | None = None
    """Default: log_loss; regression: rmse; anomaly_detection: auc; clustering: silhouette (Rousseeuw, Silhouettes,
    1987), on 3,000 rows at most."""
    folds: Annotated[int, Field(ge=1, le=20)] | None = None
    """Cross-validation with so many folds; 1: one part of the train split is held out. Default: 1, or 5 where fewer
    than 1,000 rows with labels to learn are drawn from: of so few, a part says little."""
    validation_fraction: Fraction = 0.2
    """With one fold: share of the train split that candidates are compared on."""
    validation_rows: Literal["random", "last"] = "random"
    """With one fold: which, drawn by the seed, or the last in the order of the spans."""
    max_rows: Annotated[int, Field(ge=10)] | None = 100_000
    """So many rows of the train split take part at most, drawn by the seed, or the last; the chosen model then learns
    from all."""
    rule: Literal["one_standard_error", "best"] = "one_standard_error"
    """one_standard_error: of those not worse than the best by more than the standard error of the difference, the one
    that is cheapest to serve (Breiman et al., Classification and Regression Trees, 1984)."""
    stack: bool | None = None
    """Whether a sum of several kinds competes, too, with weights learned from what they predict of the rows compared
    on. Default: where the train split has fewer than 10,000 rows, and drawn ones are compared on."""
    prune: bool = True
    """Stop trials early that lag behind the others."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How hyperparameters are drawn. tpe: in the light of the trials before (Bergstra et al., NeurIPS 2011). random:
    independently (Bergstra, Bengio, JMLR 2012), so that trials can run in pods of their own (pipeline tuning)."""
    parallel: PositiveInt = 1
    """Trials at one time, each in a process of its own; in pipeline tuning, in a pod of its own."""
    seed: Annotated[int, Field(ge=0)] = 17

    @model_validator(mode="after")
    def _known_kinds(self) -> Self:
        kinds = {candidate.kind: candidate for candidate in reversed(self.candidates)}
        for kind, choices in self.search.items():
            if kind not in kinds:
                raise ValueError(
                    f"search names '{kind}', which is no candidate ({', '.join(kinds) or 'none is named'})"
                )
            for name, choice in choices.items():
                self._check_choice(kinds[kind], name, choice)
        return self

    @staticmethod
    def _check_choice(candidate: Model, name: str, choice: Range | list[Any]) -> None:
        where = f"search.{candidate.kind}.{name}"
        if choice == []:
            raise ValueError(f"{where} is empty; give values, or a range with low and high")
        known = type(candidate).model_fields
        if candidate.kind != "custom" and (name not in known or name == "kind"):
            raise ValueError(f"{where}: a model of this kind has {', '.join(n for n in known if n != 'kind')}")
        for value in (choice.low, choice.high) if isinstance(choice, Range) else choice:
            try:
                with_hyperparameters(candidate, {name: value})
            except ValidationError as error:
                fault = error.errors(include_url=False)[0]["msg"]
                raise ValueError(f"{where}: {value}: {fault[0].lower()}{fault[1:]}") from error
