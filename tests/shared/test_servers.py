"""The storage servers of the tests, through the code that stages reach storage with."""

import subprocess
import sys

import pytest

from components import storage


@pytest.mark.parametrize("bucket", ["gcs_bucket", "s3_bucket"])
def test_what_is_written_is_read_back_here_and_in_a_child(bucket: str, request: pytest.FixtureRequest) -> None:
    uri = f"{request.getfixturevalue(bucket)}/folder/file.txt"
    fs, path = storage.filesystem(uri)
    fs.pipe_file(path, b"content")
    code = f"from components import storage; fs, path = storage.filesystem({uri!r}); print(fs.cat_file(path))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert fs.cat_file(path) == b"content"
    assert child.stdout.strip() == "b'content'"


@pytest.mark.parametrize("bucket", ["gcs_bucket", "s3_bucket"])
def test_buckets_are_fresh(bucket: str, request: pytest.FixtureRequest) -> None:
    fs, path = storage.filesystem(request.getfixturevalue(bucket))
    assert fs.find(path) == []
