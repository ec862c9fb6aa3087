"""Which hyperparameters are tried next, by Optuna's samplers.

Sources: Bergstra, Bardenet, Bengio, Kégl: Algorithms for Hyper-Parameter Optimization, NeurIPS 2011 (TPE); Bergstra,
Bengio: Random Search for Hyper-Parameter Optimization, JMLR 2012.
"""

import json
import statistics
from collections.abc import Sequence
from typing import Any

import optuna
from pydantic import ValidationError

from components.errors import InputError
from components.models.contract import Kind, Problem
from components.models.kinds import kind_of
from components.settings import Model, Range, Tuning, with_hyperparameters
from components.tune_model.records import TrialResult

_FEWEST_FOR_LIMITS = 5
"""Trials of a kind from which on others are given up."""
_FEWEST_FOR_IMPORTANCE = 8


class Search:
    """Draws hyperparameters and learns how good they were.

    The same results, told in the same order, lead to the same draws: so a search that is started again goes the same
    way, and its trials are found done.
    """

    def __init__(self, tuning: Tuning, candidates: Sequence[Model], problem: Problem, higher_is_better: bool) -> None:
        """Args: candidates: to start from; a kind without hyperparameters to draw is left out."""
        self._tuning = tuning
        self._problem = problem
        models = {model.kind: model for model in reversed(candidates)}
        self._models = {kind: models[kind] for kind in sorted(models) if self._is_searched(models[kind])}
        self._higher_is_better = higher_is_better
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = self._new_study()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self._models

    def ask(self) -> tuple[optuna.Trial, Model]:
        """Draws a kind and its hyperparameters.

        Raises:
            InputError: the settings or the kind propose what the kind does not take.
        """
        seed = self._tuning.seed + len(self._study.trials)
        if self._tuning.sampler == "random":
            self._study.sampler = optuna.samplers.RandomSampler(seed)
        else:
            self._study.sampler = optuna.samplers.TPESampler(seed=seed)
        trial = self._study.ask()
        kind = trial.suggest_categorical("kind", list(self._models))
        model, draw = self._models[kind], _Draw(trial, kind)
        try:
            if kind in self._tuning.search:
                return trial, with_hyperparameters(model, _chosen(model, self._tuning.search[kind], draw))
            return trial, kind_of(model).space(model, draw, self._problem)
        except ValidationError as error:
            raise InputError(f"tuning.search.{kind}: {error.errors(include_url=False)[0]['msg']}") from error

    def tell(self, trial: optuna.Trial, result: TrialResult, value: float | None) -> None:
        """Says how it went; value: of the metric, for a complete one."""
        if result.state == "complete":
            self._study.tell(trial, value)
        else:
            is_pruned = result.state == "pruned"
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED if is_pruned else optuna.trial.TrialState.FAIL)

    def importance(self) -> dict[str, dict[str, float]]:
        """Gives, by kind, how much of the metric's variance each hyperparameter explains; kinds with enough trials.

        Source: Hutter, Hoos, Leyton-Brown: An Efficient Approach for Assessing Hyperparameter Importance, ICML 2014.
        """
        importance: dict[str, dict[str, float]] = {}
        for kind in self._models:
            of_kind = self._new_study()
            of_kind.add_trials(
                [t for t in self._study.trials if t.params.get("kind") == kind and t.state.name == "COMPLETE"]
            )
            if len(of_kind.trials) >= _FEWEST_FOR_IMPORTANCE and len({t.value for t in of_kind.trials}) > 1:
                evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self._tuning.seed)
                shares = optuna.importance.get_param_importances(of_kind, evaluator=evaluator)
                importance[kind] = {n.partition(".")[2]: s for n, s in shares.items() if n != "kind"}
        return importance

    def _is_searched(self, model: Model) -> bool:
        return model.kind in self._tuning.search or type(kind_of(model)).space is not Kind.space

    def _new_study(self) -> optuna.Study:
        return optuna.create_study(direction="maximize" if self._higher_is_better else "minimize")


def limits(kind: str, results: Sequence[TrialResult]) -> dict[int, float]:
    """Gives, by step, the median of the best losses so far of a kind's trials: a trial above it is given up.

    Source: Golovin et al.: Google Vizier: A Service for Black-Box Optimization, KDD 2017 (median stopping). A trial
    gets the limits when it starts, so that it needs nothing else of the search, in whatever process or pod it runs.
    """
    bests = [_best_so_far(one) for one in results if one.model.kind == kind and one.state != "failed"]
    steps = sorted({step for best in bests for step in best})
    at = {step: [best[step] for best in bests if step in best] for step in steps}
    return {step: statistics.median(losses) for step, losses in at.items() if len(losses) >= _FEWEST_FOR_LIMITS}


def _best_so_far(result: TrialResult) -> dict[int, float]:
    bests: dict[int, float] = {}
    best = float("inf")
    for step in result.curves[0]:
        # The first step says little of the last.
        if step.number > 1 and step.validation_loss is not None:
            best = bests[step.number] = min(best, step.validation_loss)
    return bests


class _Draw:
    """An Optuna trial in which each kind's hyperparameters have names of their own."""

    def __init__(self, trial: optuna.Trial, kind: str) -> None:
        self._trial = trial
        self._kind = kind

    def suggest_float(self, name: str, *args: Any, **options: Any) -> float:
        return self._trial.suggest_float(f"{self._kind}.{name}", *args, **options)

    def suggest_int(self, name: str, *args: Any, **options: Any) -> int:
        return self._trial.suggest_int(f"{self._kind}.{name}", *args, **options)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._trial.suggest_categorical(f"{self._kind}.{name}", choices)


def _chosen(model: Model, search: dict[str, Range | list[Any]], draw: _Draw) -> dict[str, Any]:
    return {name: _one(model, name, choice, draw) for name, choice in search.items()}


def _one(model: Model, name: str, choice: Range | list[Any], draw: _Draw) -> Any:
    if isinstance(choice, list):
        # Optuna remembers texts and numbers only.
        return json.loads(draw.suggest_categorical(name, [json.dumps(value) for value in choice]))
    if _is_whole(model, name, choice):
        return draw.suggest_int(name, int(choice.low), int(choice.high), log=choice.log)
    return draw.suggest_float(name, choice.low, choice.high, log=choice.log)


def _is_whole(model: Model, name: str, choice: Range) -> bool:
    """Tells whether a hyperparameter is a whole number: by its type, as JSON does not tell 16 from 16.0."""
    if model.kind == "custom":
        return float(choice.low).is_integer() and float(choice.high).is_integer()
    schema = type(model).model_json_schema()["properties"][name]
    types = {schema.get("type"), *(one.get("type") for one in schema.get("anyOf", []))}
    return "integer" in types and "number" not in types
