"""Gives the figures of a window to a Pushgateway. One that does not take them is told of, and changes no verdict.

Protocol: https://github.com/prometheus/pushgateway#url
"""

import sys
import time
from collections.abc import Callable, Sequence
from http.client import HTTPException
from urllib.error import HTTPError

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import default_handler, push_to_gateway

from components.credentials import authorization
from components.monitor_model.metrics import registry_of
from components.monitoring_record import MonitoringRecord
from components.settings import Monitoring

JOB = "lockgate-monitoring"
VARIABLES = "LOCKGATE_PUSHGATEWAY"
_TIMEOUT_SECONDS = 5.0
_PAUSES = (1.0, 4.0)
"""Before each further try."""


class Pushgateway:
    """A Pushgateway, and how to log in there."""

    def __init__(self, url: str, pauses: Sequence[float] = _PAUSES) -> None:
        """Reads the credentials, before there is anything to push.

        Args:
            url: of the Pushgateway.
            pauses: seconds before each further try.

        Raises:
            InputError: the credentials in the environment cannot be read, or are half there.
        """
        self._url, self._pauses = url, pauses
        self._headers = authorization(VARIABLES)

    def push(self, record: MonitoringRecord, settings: Monitoring) -> bool:
        """Puts the figures of a window in place of those of the model's window before.

        Args:
            record: of the window.
            settings: section `monitoring`; its limits are shown beside what was measured.

        Returns:
            Whether they were taken; if not, a line on stderr says why.
        """
        registry, why = registry_of(record, settings), ""
        for number, pause in enumerate((0.0, *self._pauses), 1):
            time.sleep(pause)
            try:
                self._put(registry, record.project)
            except (OSError, HTTPException, UnicodeError) as error:
                why = f"{error or type(error).__name__} (tries: {number})"
                if isinstance(error, HTTPError) and error.code < 500 and error.code != 429:
                    break
            else:
                return True
        print(
            f"monitor_model: warning: the Pushgateway '{self._url}' did not take the figures of "
            f"{record.window}: {why}; the verdict stands: check monitoring.pushgateway and {VARIABLES}_*, "
            "then judge the window again",
            file=sys.stderr,
            flush=True,
        )
        return False

    def _put(self, registry: CollectorRegistry, model: str) -> None:
        push_to_gateway(self._url, JOB, registry, {"model": model}, _TIMEOUT_SECONDS, self._request)

    def _request(
        self, url: str, method: str, timeout: float | None, headers: list[tuple[str, str]], data: bytes
    ) -> Callable[[], None]:
        return default_handler(url, method, timeout, [*headers, *self._headers.items()], data)
