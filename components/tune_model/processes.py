"""Trials at one time: one in this process, or several, each in a process of its own."""

import contextlib
import multiprocessing
import multiprocessing.process
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

from components.models.examples import Matrix
from components.tune_model.comparison import Comparison, read_comparison
from components.tune_model.records import Experiment, Trial, TrialResult
from components.tune_model.trial import run_trial

Outcome = tuple[TrialResult, Matrix | None]


class Runner(Protocol):
    """Runs trials."""

    @property
    def places(self) -> int:
        """How many trials it runs at one time."""

    def start(self, number: int, trial: Trial) -> "Future[Outcome]":
        """Starts a trial in the place `number` modulo `places`, where none is under way."""


class Here:
    """Runs a trial at once, in this process."""

    places = 1

    def __init__(self, experiment: Experiment, comparison: Comparison) -> None:
        self._experiment = experiment
        self._comparison = comparison

    def start(self, number: int, trial: Trial) -> "Future[Outcome]":
        """Runs a trial to its end."""
        done: Future[Outcome] = Future()
        done.set_result(run_trial(self._experiment, trial, self._comparison))
        return done


class Processes:
    """Runs trials in processes that live on, each with its share of the cores."""

    def __init__(self, experiment: Experiment, places: int) -> None:
        self.places = places
        self._experiment = experiment.model_dump_json()
        self._pools: dict[int, ProcessPoolExecutor] = {}

    def start(self, number: int, trial: Trial) -> "Future[Outcome]":
        """Hands a trial to a process; one that died before is replaced."""
        place = number % self.places
        if place not in self._pools:
            self._pools[place] = ProcessPoolExecutor(
                1, multiprocessing.get_context("spawn"), _begin, (self._experiment, place, self.places)
            )
        outcome: Future[Outcome] = Future()
        self._pools[place].submit(_run, trial.model_dump_json()).add_done_callback(
            lambda done: self._finish(done, trial, place, outcome)
        )
        return outcome

    def close(self) -> None:
        """Ends the processes; trials under way are given up."""
        for pool in self._pools.values():
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()

    def _finish(
        self, done: "Future[tuple[str, Matrix | None]]", trial: Trial, place: int, outcome: "Future[Outcome]"
    ) -> None:
        if isinstance(done.exception(), BrokenProcessPool):
            self._pools.pop(place).shutdown(wait=False)
            reason = "its process was killed; if memory was short, lower tuning.parallel or tuning.max_rows"
            result = TrialResult(model=trial.model, state="failed", seconds=0.0, reason=reason, error="try again later")
            outcome.set_result((result, None))
            return
        text, predictions = done.result()
        outcome.set_result((TrialResult.model_validate_json(text), predictions))


@contextlib.contextmanager
def runner(experiment: Experiment, comparison: Comparison) -> Iterator[Runner]:
    """Gives what runs the trials, as `tuning.parallel` says."""
    if experiment.tuning.parallel == 1:
        yield Here(experiment, comparison)
        return
    processes = Processes(experiment, experiment.tuning.parallel)
    try:
        yield processes
    finally:
        processes.close()


_given: tuple[Experiment, Comparison]
"""Of a process that runs trials."""


def _begin(experiment: str, place: int, places: int) -> None:
    """Prepares a process: its cores, its rows, its end."""
    global _given
    cores = sorted(os.sched_getaffinity(0))
    # TensorFlow and LightGBM start as many threads as they see cores; a trial beside it would wait for them.
    os.sched_setaffinity(0, cores[place % len(cores) :: places] or cores)
    parent = multiprocessing.parent_process()
    assert parent  # this is a child
    # A pool does not end with a parent that is killed.
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    read = Experiment.model_validate_json(experiment)
    _given = (read, read_comparison(read))


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _run(trial: str) -> tuple[str, Matrix | None]:
    experiment, comparison = _given
    result, predictions = run_trial(experiment, Trial.model_validate_json(trial), comparison)
    return result.model_dump_json(), predictions
