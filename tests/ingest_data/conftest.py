"""Fixtures of the ingest_data tests."""

from pathlib import Path

import pytest

from tests.ingest_data.source import Source, months


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """An empty folder to write files into."""
    return Source(tmp_path)


@pytest.fixture
def flights(source: Source) -> Source:
    """Three monthly CSV files."""
    for span, rows in months().items():
        source.write_csv(f"flights-{span}.csv", rows)
    return source
