"""Events in, retraining out: once for the same data."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import replace

from pipelines.project import LoadedProject
from pipelines.triggers.decision import Action, Decision, decide

_REMEMBERED = 1000

Start = Callable[[Decision], str]
"""Starts retraining, and says what it started."""


class Trigger:
    """What one process has started; what another one did is for whoever trains to find out, by the key."""

    def __init__(self, project: LoadedProject, start: Start, marker: str = "") -> None:
        """Args: as of `decide`; start: what to do when there is a reason."""
        self._project = project
        self._start = start
        self._marker = marker
        self._started: OrderedDict[str, None] = OrderedDict()
        self._one_at_a_time = threading.Lock()

    def pull(self, written: Collection[str] | None = None) -> Decision:
        """Decides, and starts retraining where that is the decision.

        Raises:
            InputError: the project, the storage or what should be started does not allow it.
            UnavailableError: one of them does not answer; nothing was started.
        """
        with self._one_at_a_time:
            decision = decide(self._project, written, self._marker)
            if decision.action is not Action.START:
                return decision
            if decision.key in self._started:
                return replace(decision, action=Action.IGNORE, reason=f"already started for window {decision.window}")
            started = self._start(decision)
            self._started[decision.key] = None
            if len(self._started) > _REMEMBERED:
                self._started.popitem(last=False)
            return replace(decision, reason=f"{decision.reason}; {started}")
