"""Waiting for somebody who is away: longer each time, with signs of life, until it is over."""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from components.errors import UnavailableError
from components.stream.health import Health

LONGEST_WAIT = 30.0
_FIRST_WAIT = 0.5

_logger = logging.getLogger("lockgate")

Result = TypeVar("Result")


def patiently(call: Callable[[], Result], over: threading.Event, health: Health) -> Result | None:
    """Calls until somebody answers; None: it is over before.

    Raises:
        InputError: the answer is no.
    """
    for wait in waiting_times():
        try:
            return call()
        except UnavailableError as error:
            _logger.warning("%s; trying again in %.1f s", error, wait)
        if pause(wait, over, health):
            break
    return None


def pause(seconds: float, over: threading.Event, health: Health) -> bool:
    """Waits, with signs of life; tells whether it is over."""
    deadline = time.monotonic() + seconds
    while not over.wait(0.2) and time.monotonic() < deadline:
        health.alive()
    return over.is_set()


def waiting_times() -> Iterator[float]:
    """Yields how long to wait before each try: twice as long each time up to a limit, spread by chance."""
    wait = _FIRST_WAIT
    while True:
        yield wait * random.uniform(0.75, 1.25)
        wait = min(2 * wait, LONGEST_WAIT)
