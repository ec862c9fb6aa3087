"""Batches: requests that wait while the model works are predicted together.

A lone request never waits: the worker takes what is queued when it becomes free, and nothing is held back for more.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from components.predictor.faults import overloaded
from components.rows import Arrays

_IDLE_SECONDS = 0.002  # without a request, after which batches are counted
_MOST_UNCOUNTED = 64

_logger = logging.getLogger("lockgate")


@dataclass(slots=True)
class Job:
    """A request's rows on their way through the model."""

    arrays: Arrays
    rows: int
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Arrays]"
    observed: bool = True
    batch: tuple[Arrays, Arrays] = field(default_factory=lambda: ({}, {}))
    """Inputs and outputs of all rows that were predicted together."""
    start: int = 0
    """Its first row among these."""
    queued_at: float = field(default_factory=time.perf_counter)
    taken_at: float = 0.0
    done_at: float = 0.0


class Batcher:
    """A queue, and the one thread that calls the model."""

    def __init__(
        self,
        predict: Callable[[Arrays], Arrays],
        max_batch_rows: int,
        max_queue_rows: int,
        observe: Callable[[Arrays, Arrays, Sequence[int]], None] = lambda arrays, outputs, batches: None,
    ) -> None:
        """Starts the thread.

        Args:
            predict: takes and gives arrays, [rows].
            max_batch_rows: that requests are put together up to; a larger request goes alone.
            max_queue_rows: that may wait.
            observe: told inputs and outputs of observed jobs, some batches at a time, and the rows of each batch,
                after their answers went out.
        """
        self._predict = predict
        self._max_batch_rows = max_batch_rows
        self._max_queue_rows = max_queue_rows
        self._observe = observe
        self._jobs: deque[Job] = deque()
        self._rows = 0
        self._uncounted: list[tuple[Arrays, Arrays]] = []
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="predict", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return len(self._jobs)

    async def predict(self, arrays: Arrays, rows: int, observed: bool = True) -> tuple[Arrays, Job]:
        """Predicts rows, together with those of other requests that wait.

        Args:
            arrays: by feature, [rows].
            rows: how many.
            observed: `observe` is told of them; false: nobody asked for their predictions.

        Returns:
            The outputs, and when what happened.

        Raises:
            RequestError: the queue is full.
        """
        loop = asyncio.get_running_loop()
        job = Job(arrays, rows, loop, loop.create_future(), observed)
        with self._changed:
            if self._closed:
                raise overloaded("the server stops")
            # An empty queue takes any request that was let in.
            if self._jobs and self._rows + rows > self._max_queue_rows:
                raise overloaded(f"{self._rows:,} rows wait (allowed: {self._max_queue_rows:,})")
            self._jobs.append(job)
            self._rows += rows
            self._changed.notify()
        return await job.future, job

    def close(self) -> None:
        """Predicts what is queued, then ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            jobs = self._take(_IDLE_SECONDS if self._uncounted else None)
            if jobs:
                self._run(jobs)
            # Not at once: the event loop, which has answers to send, would wait for this thread.
            if not jobs or len(self._uncounted) >= _MOST_UNCOUNTED:
                self._count()
            if not jobs and self._closed and not self._jobs:
                return

    def _take(self, timeout: float | None) -> list[Job]:
        """Waits for jobs, and takes as many as fit into a batch; none: the time is over, or the batcher closed."""
        with self._changed:
            jobs: list[Job] = []
            while not jobs:
                while not self._jobs:
                    if self._closed or not self._changed.wait(timeout):
                        return []
                jobs = self._first()
            return jobs

    def _first(self) -> list[Job]:
        jobs: list[Job] = []
        rows = 0
        now = time.perf_counter()
        while self._jobs and (not jobs or self._fits(self._jobs[0], jobs[0], rows)):
            job = self._jobs.popleft()
            self._rows -= job.rows
            if not job.future.cancelled():  # else the client went away
                job.taken_at = now
                rows += job.rows
                jobs.append(job)
        return jobs

    def _fits(self, job: Job, first: Job, rows: int) -> bool:
        return rows + job.rows <= self._max_batch_rows and job.observed == first.observed

    def _run(self, jobs: Sequence[Job]) -> None:
        try:
            arrays = _joined([job.arrays for job in jobs])
            outputs = self._predict(arrays)
        except Exception as error:
            if len(jobs) > 1:
                # One request's rows must not fail the others'.
                for job in jobs:
                    self._run([job])
            else:
                jobs[0].done_at = time.perf_counter()
                jobs[0].loop.call_soon_threadsafe(_fail, jobs[0], error)
            return
        now, start = time.perf_counter(), 0
        for job in jobs:
            job.done_at, job.batch, job.start = now, (arrays, outputs), start
            start += job.rows
        jobs[0].loop.call_soon_threadsafe(_give, jobs, outputs)
        if jobs[0].observed:
            self._uncounted.append((arrays, outputs))

    def _count(self) -> None:
        if not self._uncounted:
            return
        arrays, outputs = map(_joined, zip(*self._uncounted, strict=True))
        batches = [len(next(iter(outputs.values()))) for _, outputs in self._uncounted]
        self._uncounted.clear()
        try:
            self._observe(arrays, outputs, batches)
        except Exception:  # counting must not end the thread that predicts
            _logger.exception("%d batches could not be counted", len(batches))


def _joined(parts: Sequence[Arrays]) -> Arrays:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _give(jobs: Sequence[Job], outputs: Arrays) -> None:
    """Gives each job its rows; runs in the event loop."""
    for job in jobs:
        if not job.future.done():
            end = job.start + job.rows
            job.future.set_result({name: values[job.start : end] for name, values in outputs.items()})


def _fail(job: Job, error: Exception) -> None:
    if not job.future.done():
        job.future.set_exception(error)
