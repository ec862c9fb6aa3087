"""Registries that all tests of a run share: they take long to start."""

from collections.abc import Iterator

import pytest

from tests.registries import servers


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        servers.mlflow_program()
    except servers.MissingServerError as error:
        pytest.skip(str(error))
    with servers.mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture(scope="session")
def kubeflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        servers.kubeflow_programs()
    except servers.MissingServerError as error:
        pytest.skip(str(error))
    with servers.kubeflow_server(tmp_path_factory.mktemp("kubeflow")) as url:
        yield url


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
