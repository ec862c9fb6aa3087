"""A project's data in the object store."""

import os
import uuid
from pathlib import Path

import pytest
import yaml

from components import spans
from components.errors import DataRejectedError, UnavailableError
from pipelines.environments import ROOT
from pipelines.kind.store import Store
from pipelines.project import LoadedProject, load_project


@pytest.fixture
def store(s3_url: str) -> Store:
    made = Store(s3_url, "test", "test")
    made.make_buckets(30, print)
    return made


def project(folder: Path, source: str, *files: str) -> LoadedProject:
    settings = yaml.safe_load((ROOT / "examples" / "flights" / "pipeline.yaml").read_text())
    settings |= {"name": f"p{uuid.uuid4().hex[:8]}"}
    settings["data"] |= {"source": source, "window": "2013-01..2013-02"}
    folder.mkdir(parents=True)
    (folder / "schema.pbtxt").write_text((ROOT / "examples" / "flights" / "schema.pbtxt").read_text())
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(settings))
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return load_project(folder)


@pytest.mark.parametrize(
    ("source", "files", "there"),
    [
        (
            "data/flights-{YYYY}-{MM}.parquet",
            ["data/flights-2013-01.parquet", "data/flights-2013-02.parquet", "data/other.txt"],
            ["flights-2013-01.parquet", "flights-2013-02.parquet"],
        ),
        (
            "data/{YYYY}/{MM}/*.csv",
            ["data/2013/01/a.csv", "data/2013/02/a.csv", "data/2013/02/b.csv"],
            ["2013/01/a.csv", "2013/02/a.csv", "2013/02/b.csv"],
        ),
    ],
)
def test_files_keep_their_place_under_the_pattern(
    store: Store, tmp_path: Path, source: str, files: list[str], there: list[str]
) -> None:
    loaded = project(tmp_path / "project", source, *files)
    uri = store.put(loaded, print)
    prefix = f"s3://data/{loaded.settings.name}"
    assert uri == f"{prefix}/{source.removeprefix('data/')}"
    assert [file.uri for file in spans.resolve(uri, "all")] == [f"{prefix}/{name}" for name in there]


def test_only_what_changed_is_copied_again(store: Store, tmp_path: Path) -> None:
    loaded = project(tmp_path / "project", "data/{YYYY}-{MM}.csv", "data/2013-01.csv", "data/2013-02.csv")
    uri = store.put(loaded, print)
    before = {file.uri: file.version for file in spans.resolve(uri, "all")}
    changed = tmp_path / "project" / "data" / "2013-02.csv"
    changed.write_text("2013-02.CSV of the same size"[:16])
    os.utime(changed, (4e9, 4e9))
    store.put(loaded, print)
    after = {file.uri: file.version for file in spans.resolve(uri, "all")}
    assert [one for one in before if before[one] != after[one]] == [
        f"s3://data/{loaded.settings.name}/2013-02.csv",
    ]


def test_data_in_a_bucket_stays_where_it_is(store: Store, tmp_path: Path) -> None:
    loaded = project(tmp_path / "project", "s3://elsewhere/{YYYY}-{MM}.csv")
    assert store.put(loaded, print) == "s3://elsewhere/{YYYY}-{MM}.csv"


def test_a_project_without_data_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DataRejectedError, match="no file matches"):
        store.put(project(tmp_path / "project", "data/{YYYY}-{MM}.csv"), print)


def test_a_store_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # else the client tries for minutes
    with pytest.raises(UnavailableError, match="the object store at http://127"):
        Store("http://127.0.0.1:9", "test", "test").make_buckets(0, print)
