"""Stages ride over a storage that fails for a moment, and say so when it does not come back."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components import storage
from components.model_store import ModelStore
from components.stage import stage
from tests import flaky, servers
from tests.flaky import Flaky
from tests.ingest_data.source import Source, csv_text, months
from tests.publish_model.blessed import NAME, bless, publish_blessed

VARIABLES = {"s3": "AWS_ENDPOINT_URL", "gs": "STORAGE_EMULATOR_HOST"}


@pytest.fixture(params=["s3", "gs"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bucket(kind: str, request: pytest.FixtureRequest) -> str:
    """A bucket on the server itself, with data."""
    uri: str = request.getfixturevalue("s3_bucket" if kind == "s3" else "gcs_bucket")
    fs, root = storage.filesystem(uri)
    for span, rows in months().items():
        fs.pipe_file(f"{root}/flights-{span}.csv", csv_text(rows).encode())
    return uri


@pytest.fixture
def proxy(kind: str, bucket: str, request: pytest.FixtureRequest) -> Iterator[Flaky]:
    """A proxy between the stages and the server."""
    url = request.getfixturevalue("s3_url" if kind == "s3" else "gcs_url")
    clients = type(storage.filesystem(bucket)[0])
    with flaky.before(url) as started, servers.environment(**{VARIABLES[kind]: started.url}):
        clients.clear_instance_cache()
        yield started
    clients.clear_instance_cache()


def ingest(tmp_path: Path, bucket: str) -> Any:
    return Source(tmp_path).ingest(source=f"{bucket}/flights-{{YYYY}}-{{MM}}.csv", window="2013-01..2013-03")


@pytest.mark.parametrize("fault", flaky.FAULTS)
def test_a_short_fault_is_ridden_over(
    proxy: Flaky, bucket: str, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "SILENCE_SECONDS", 1)
    type(storage.filesystem(bucket)[0]).clear_instance_cache()
    expected = ingest(tmp_path / "before", bucket).digest
    published = publish_blessed(bless(tmp_path / "a", "a"), f"{bucket}/models")
    proxy.fault, proxy.every = fault, 7
    assert ingest(tmp_path / "after", bucket).digest == expected
    assert publish_blessed(tmp_path / "a", f"{bucket}/models") == replace(published, new=False)
    assert publish_blessed(bless(tmp_path / "b", "b"), f"{bucket}/models").new
    assert proxy.faults >= 3
    proxy.fault = ""
    store = ModelStore(f"{bucket}/models", NAME)
    assert [version[:5] for version in store.versions()] == ["v0001", "v0002"]
    assert [promotion.version for promotion in store.promotions()] == store.versions()
    for version in store.versions():
        store.download(version, tmp_path / "downloads" / version)


@pytest.mark.parametrize(
    ("kind", "fault", "code", "said"),
    [
        ("s3", "503", 4, "try again later"),
        ("s3", "reset", 4, "try again later"),
        ("gs", "503", 4, "try again later"),
        ("s3", "403", 2, "fix your input"),
        ("gs", "403", 2, "fix your input"),
    ],
    indirect=["kind"],
)
def test_a_lasting_fault_ends_with_its_line(
    proxy: Flaky,
    bucket: str,
    tmp_path: Path,
    fault: str,
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    folder = bless(tmp_path / "a", "a")
    proxy.fault = fault
    for work in (lambda: ingest(tmp_path, bucket), lambda: publish_blessed(folder, f"{bucket}/models")):
        with pytest.raises(SystemExit) as ended, stage("some_stage"):
            work()
        assert ended.value.code == code
        line = capsys.readouterr().err
        assert line.startswith(f"some_stage: {said}: '{bucket}/")
        assert line.count("\n") == 1
