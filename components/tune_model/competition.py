"""Trying candidates and hyperparameters, one after the other or several at one time."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import optuna

from components.errors import DataRejectedError, InputError, UnavailableError
from components.models.examples import Matrix
from components.settings import Model
from components.tune_model.comparison import Comparison, Space, read_comparison
from components.tune_model.measures import HIGHER_IS_BETTER, Measured, measure
from components.tune_model.part import Part
from components.tune_model.processes import Outcome, Runner, runner
from components.tune_model.ranking import Entry, choose, contenders, named, rows
from components.tune_model.records import Experiment, Leaderboard, Trial, TrialResult, metric_of
from components.tune_model.search import Search, limits
from components.tune_model.stacking import stack
from components.tune_model.study import Study
from components.tune_model.trial import baseline

_MOST_ROWS_TO_STACK = 10_000
"""Where the settings do not say; beyond, several models take long to train and to serve."""
_ERRORS = {error.label: error for error in (InputError, DataRejectedError, UnavailableError)}


@dataclass(frozen=True)
class _Started:
    """A trial that was started, or found done."""

    model: Model
    outcome: "Future[Outcome] | TrialResult"
    drawn: optuna.Trial | None = None
    """What the search calls it; None: a candidate as it stands."""


class Competition:
    """Tries candidates as they stand, other hyperparameters of them, and sums of the best; all, or some of these."""

    def __init__(
        self, experiment: Experiment, comparison: Comparison, study: Study, places: Runner, part: Part
    ) -> None:
        self.entries: list[Entry] = []
        self._part = part
        self._experiment = experiment
        self._comparison = comparison
        self._study = study
        self._places = places
        self._metric = metric_of(experiment.tuning, experiment.task)
        self._search: Search | None = None
        self._begun = time.monotonic()
        self._starts = 0
        self._ends = 0

    @property
    def importance(self) -> dict[str, dict[str, float]]:
        """Of the hyperparameters, by kind."""
        return self._search.importance() if self._search else {}

    def run(self) -> None:
        """Tries all of the part.

        Raises:
            InputError, DataRejectedError, UnavailableError: no candidate could be fitted, or nothing can be drawn.
            RuntimeError: none could, and the first cause was not foreseen.
        """
        tuning = self._experiment.tuning
        numbered = enumerate(tuning.candidates, 1)
        self._in_order(self._start(model) for number, model in numbered if number in self._part)
        if self._part.is_all and not any(entry.measured for entry in self.entries):
            raise _failure([entry.result for entry in self.entries])
        if tuning.trials:
            self._in_order(self._draws(self._searched()))
        if self._stacks and (stacked := stack(self.entries, self._study.predictions, self._comparison)):
            entry = Entry(stacked.result, self._measure(stacked.predictions))
            self.entries.append(entry)
            self._print(entry, "from what the others predicted")

    @property
    def _stacks(self) -> bool:
        """Whether models are added up: only where all trials are known."""
        tuning = self._experiment.tuning
        is_usual = tuning.validation_rows == "random" and self._comparison.train_rows < _MOST_ROWS_TO_STACK
        is_wanted = is_usual if tuning.stack is None else tuning.stack
        return is_wanted and self._part.is_all and not self._experiment.task.is_unsupervised

    def _searched(self) -> Search:
        """Begins the search for hyperparameters."""
        tuning = self._experiment.tuning
        problem, _, _ = self._comparison.problem(self._comparison.folds[0], self._experiment)
        fitted = [entry.result.model for entry in self.entries if entry.measured]
        # Drawn independently, hyperparameters are the same in every part, whatever could be fitted there.
        from_ = tuning.candidates if tuning.sampler == "random" else fitted
        self._search = Search(tuning, from_, problem, self._metric in HIGHER_IS_BETTER)
        if self._search.is_empty:
            raise InputError(
                f"tuning.trials is {tuning.trials}, but no candidate has hyperparameters to draw; name some in "
                "tuning.search, or set tuning.trials to 0"
            )
        return self._search

    def _draws(self, search: Search) -> Iterator[_Started]:
        tuning = self._experiment.tuning
        for number in range(len(tuning.candidates) + 1, len(tuning.candidates) + tuning.trials + 1):
            if tuning.seconds is not None and time.monotonic() - self._begun > tuning.seconds:
                print(f"tune_model: no further trial: tuning.seconds ({tuning.seconds:g}) are over", flush=True)
                return
            drawn, model = search.ask()
            if number not in self._part:
                continue
            known = limits(model.kind, [entry.result for entry in self.entries]) if tuning.prune else {}
            yield self._start(model, known, drawn)

    def _start(
        self, model: Model, known: dict[int, float] | None = None, drawn: optuna.Trial | None = None
    ) -> _Started:
        trial = Trial(model=model, limits=known or {})
        found = self._study.find(model, trial.limits)
        started = _Started(model, found or self._places.start(self._starts, trial), drawn)
        self._starts += 1
        return started

    def _in_order(self, trials: Iterable[_Started]) -> None:
        """Keeps all places busy, and takes the trials' ends in the order of their starts.

        So it is not chance that decides what the search knows when it draws.
        """
        under_way: deque[_Started] = deque()
        for one in trials:
            under_way.append(one)
            if len(under_way) == self._places.places:
                self._end(under_way.popleft())
        while under_way:
            self._end(under_way.popleft())

    def _end(self, started: _Started) -> None:
        if isinstance(started.outcome, TrialResult):
            result = started.outcome
        else:
            result, predictions = started.outcome.result()
            self._study.keep(result, predictions)
        entry = Entry(result, self._measured(result))
        if started.drawn and self._search:
            self._search.tell(started.drawn, result, entry.measured.value if entry.measured else None)
        is_new = started.model not in [one.result.model for one in self.entries]
        if is_new:
            self.entries.append(entry)
        was_done = isinstance(started.outcome, TrialResult) or not is_new
        self._print(entry, "known from before" if was_done else f"{result.seconds:.1f} s")

    def _measured(self, result: TrialResult) -> Measured | None:
        if result.state != "complete":
            return None
        return self._measure(self._study.predictions(result.model))

    def _measure(self, predictions: Matrix) -> Measured:
        comparison = self._comparison
        return measure(self._metric, comparison.spec.label, comparison.labels, predictions, _spaces(comparison))

    def _print(self, entry: Entry, how_long: str) -> None:
        self._ends += 1
        result = entry.result
        if entry.measured:
            is_best = all(one.measured is None or entry.measured.behind(one.measured)[0] <= 0 for one in self.entries)
            how = f"{self._metric} {entry.measured.value:.4f}{' (best)' if is_best else ''}"
        else:
            how = f"{'given up' if result.state == 'pruned' else 'failed'}: {result.reason}"
        everything = len(self._experiment.tuning.candidates) + self._experiment.tuning.trials
        total = sum(number in self._part for number in range(1, everything + 1)) + self._stacks
        print(f"tune_model: {self._ends} of {total}: {named(result.model)}: {how}, {how_long}", flush=True)


def compete(experiment: Experiment, studies: str, part: Part) -> tuple[Leaderboard, list[TrialResult]]:
    """Tries all and chooses one.

    Args:
        experiment: what is tried, and on which rows.
        studies: URI under which trials are kept and found again; empty: none.
        part: of the trials that are run here.

    Returns:
        The leaderboard, and all trials in the order in which they were started.

    Raises:
        InputError: the settings do not fit the task or each other, or no candidate could be fitted because of them.
        DataRejectedError: the rows cannot be learned from.
        UnavailableError: the storage of the studies does not answer.
    """
    begun = time.monotonic()
    metric = metric_of(experiment.tuning, experiment.task)
    comparison = read_comparison(experiment)
    trivial = measure(metric, comparison.spec.label, comparison.labels, baseline(comparison), _spaces(comparison))
    with Study(studies, experiment, comparison) as study, runner(experiment, comparison) as places:
        competition = Competition(experiment, comparison, study, places, part)
        competition.run()
    entries = competition.entries
    results = [entry.result for entry in entries]
    if not any(entry.measured for entry in entries):  # of a part of the trials: others may
        why = f"of part {part} of the trials, none came to its end"
        model = experiment.tuning.candidates[0]
        return Leaderboard(metric=metric, rule=experiment.tuning.rule, model=model, why=why), results
    ranked = contenders(entries)
    chosen, why = choose(ranked, experiment.tuning.rule)
    board = Leaderboard(
        metric=metric,
        rule=experiment.tuning.rule,
        model=chosen.result.model,
        why=why if part.is_all else f"of part {part} of the trials, {why}",
        compared_rows=len(comparison.labels),
        used_rows=len(comparison.examples.labels),
        train_rows=comparison.train_rows,
        folds=len(comparison.folds) if len(comparison.folds) > 1 else None,
        seconds=round(time.monotonic() - begun, 1),
        rows=rows(entries, ranked, chosen, trivial),
        importance=competition.importance,
    )
    return board, results


def _spaces(comparison: Comparison) -> Sequence[Space]:
    return comparison.spaces if comparison.spec.label.kind == "clustering" else ()


def _failure(results: Sequence[TrialResult]) -> Exception:
    first = results[0]
    reasons = "; ".join(f"{result.model.kind}: {result.reason}" for result in results)
    message = reasons if len(results) == 1 else f"none of {len(results)} candidates could be fitted: {reasons}"
    return _ERRORS.get(first.error, RuntimeError)(message)
