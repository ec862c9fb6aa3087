"""Sources on gs:// and s3://, on real servers."""

import hashlib
import socket
from pathlib import Path

import pytest

from components import storage
from components.errors import DataRejectedError, InputError, UnavailableError
from tests.ingest_data.source import Source, csv_text, months


@pytest.fixture(params=["gcs_bucket", "s3_bucket"])
def bucket(request: pytest.FixtureRequest) -> str:
    uri: str = request.getfixturevalue(request.param)
    return uri


def upload(source: Source, bucket: str, folder: str = "raw") -> None:
    fs, root = storage.filesystem(bucket)
    for path in source.folder.glob("flights-*"):
        fs.pipe_file(f"{root}/{folder}/{path.name}", path.read_bytes())


def test_csv_and_parquet_are_read_as_from_the_disk(flights: Source, bucket: str) -> None:
    for span, rows in months().items():
        flights.write_parquet(f"flights-{span}.parquet", rows)
    upload(flights, bucket)
    local = flights.ingest()
    expected = flights.all_rows()
    for name in ("csv", "parquet"):
        manifest = flights.ingest(source=f"{bucket}/raw/flights-{{YYYY}}-{{MM}}.{name}", window="2013-01..2013-03")
        assert flights.all_rows() == expected
        for file, span in zip(manifest.files, months(), strict=True):
            content = (flights.folder / f"flights-{span}.{name}").read_bytes()
            assert file.uri == f"{bucket}/raw/flights-{span}.{name}"
            assert (file.bytes, file.digest) == (len(content), hashlib.sha256(content).hexdigest())
        assert (manifest.digest == local.digest) == (name == "csv")


def test_no_copy_of_a_remote_file_stays(
    flights: Source, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    upload(flights, bucket)
    flights.ingest(source=f"{bucket}/raw/*.csv")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_structure_is_checked_before_any_file_is_fetched(source: Source, bucket: str) -> None:
    fs, root = storage.filesystem(bucket)
    large = csv_text([row | {"id": number} for number, row in enumerate(months()["2013-01"] * 4000)]).encode()
    for month in range(1, 7):
        fs.pipe_file(f"{root}/flights-2013-{month:02d}.csv", large)
    fs.pipe_file(f"{root}/flights-2013-07.csv", b"id,carrier\n1,AA\n")
    with pytest.raises(DataRejectedError, match=f"{bucket}/flights-2013-07.csv': 4 of 6 columns missing"):
        source.ingest(source=f"{bucket}/flights-{{YYYY}}-{{MM}}.csv")
    assert not source.output.parent.exists()


def test_nothing_there(source: Source, bucket: str) -> None:
    with pytest.raises(DataRejectedError, match="no file matches"):
        source.ingest(source=f"{bucket}/none/*.csv")


def test_no_such_bucket(source: Source, bucket: str) -> None:
    with pytest.raises((DataRejectedError, InputError), match=r"no file matches|does not exist"):
        source.ingest(source=f"{bucket}-none/rows.csv")


def test_no_answer(source: Source, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        type(storage.filesystem("s3://bucket")[0]).clear_instance_cache()
        with pytest.raises(UnavailableError, match="check that the storage is reachable"):
            source.ingest(source="s3://bucket/rows.csv")
    type(storage.filesystem("s3://bucket")[0]).clear_instance_cache()
