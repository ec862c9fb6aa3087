"""One server for all requests, which must be the same before and after."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis

from pipelines.environments import PREDICTOR
from tests.fuzz import served
from tests.fuzz.served import ANSWERS, Server
from tests.models import export

MOST_GROWTH_MIB = 150


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not PREDICTOR.executable.is_file():
        pytest.skip(f"no environment '{PREDICTOR.name}': make setup")
    models = export(tmp_path_factory.mktemp("models"), "binary")
    with served.serving(models / "binary") as server:
        before = _answer(server)
        rss = server.rss_mib()
        yield server
        assert _answer(server) == before
        assert server.rss_mib() < rss + MOST_GROWTH_MIB
        metrics = server.session.get(f"{server.url}/metrics").text
        assert "\nlockgate_in_flight_requests 0.0\n" in metrics
        log = server.log_file.read_text()
        assert "Traceback" not in log, log[log.index("Traceback") :][:5000]


@pytest.fixture
def api(server: Server) -> Any:
    """The server's own description of itself."""
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for (protocol, code), number in sorted(ANSWERS.items()):
        terminalreporter.write_line(f"{protocol} {code}: {number:,}")


def _answer(server: Server) -> Any:
    answer = server.session.post(server.url + served.ROWS, json={"instances": [served.GOOD_ROW] * 3})
    assert answer.status_code == 200
    return answer.json()
