"""What containers see of this machine's disk. Needs: the authoring environment; no Docker."""

from pathlib import Path

import pytest

from components.errors import InputError
from pipelines.containers import mounted
from pipelines.project import load_project
from pipelines.submission import prepare_monitoring
from tests.pipelines.test_project import SCHEMA, VALID


def seen(reads: list[str], writes: list[str]) -> dict[str, str]:
    return {str(path): "rw" if writable else "ro" for path, writable in mounted(reads, writes).items()}


def test_files_are_seen_by_their_own_folders_and_not_by_what_these_have_in_common() -> None:
    reads = ["/data/a/2025-01.csv", "/data/a/2025-02.csv", "/stores/other/shop/versions/v0007-1a2b3c4d"]
    assert seen(reads, ["/out/predictions"]) == {
        "/data/a": "ro",
        "/stores/other/shop/versions": "ro",
        "/out/predictions": "rw",
    }


def test_a_history_outside_of_the_store_is_writable_and_one_inside_is_so_with_it() -> None:
    assert seen(["/log/*.parquet"], ["/models", "/history"]) == {"/log": "ro", "/models": "rw", "/history": "rw"}
    assert seen([], ["/models", "/models/monitoring"]) == {"/models": "rw"}


def test_what_lies_in_a_writable_folder_stays_writable() -> None:
    assert seen(["/models/shop/versions/v0001-1a2b3c4d"], ["/models"]) == {"/models": "rw"}
    # The store lies in the folder of the data: both are seen, and only the store may be written to.
    assert seen(["/project/rows.csv"], ["/project/models"]) == {"/project": "ro", "/project/models": "rw"}


@pytest.mark.parametrize(
    ("pattern", "folder"),
    [
        ("/log/{YYYY}/{MM}/requests.parquet", "/log"),
        ("/log/day-*/x.parquet", "/log"),
        ("file:///log/here/**", "/log/here"),
        ("/log/here", "/log"),
        ("/log/../data/a.csv", "/data"),
    ],
)
def test_patterns_are_seen_by_the_last_folder_before_them(pattern: str, folder: str) -> None:
    assert seen([pattern], []) == {folder: "ro"}


def test_what_is_elsewhere_is_not_mounted() -> None:
    assert seen(["s3://b/x", "kafka://broker:9092/orders?0:1..2"], ["gs://models", "postgresql://host/db"]) == {}


def test_the_whole_disk_is_not_shown() -> None:
    with pytest.raises(InputError, match="cannot see all of '/'"):
        mounted(["/rows.csv"], ["/models"])


def test_monitoring_names_all_that_it_reads_and_writes(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text(
        f"{VALID}monitoring:\n  log: {{source: log}}\n  history: /history\n"
        "  labels: {source: '/labels/{YYYY}-{MM}.csv'}\n"
    )
    (tmp_path / "schema.pbtxt").write_text(SCHEMA)
    prepared = prepare_monitoring(load_project(tmp_path), "2025-01")
    assert seen(prepared.files, prepared.writes) == {
        str(tmp_path): "ro",
        "/labels": "ro",
        str(tmp_path / "models"): "rw",
        "/history": "rw",
    }
