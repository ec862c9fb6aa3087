"""Fixtures that the tests of several stages share."""

import uuid
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests import servers

# The first example pays for imports; no test here is about time.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def gcs_url() -> Iterator[str]:
    """The URL of a Cloud Storage server; the environment of this process and its children leads to it."""
    try:
        servers.gcs_program()
    except servers.MissingServerError as error:
        pytest.skip(f"no Cloud Storage server: {error}")
    with servers.gcs_server() as url, servers.environment(STORAGE_EMULATOR_HOST=url):
        yield url


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """The URL of an S3 server; the environment of this process and its children leads to it."""
    try:
        servers.s3_program()
    except servers.MissingServerError as error:
        pytest.skip(f"no S3 server: {error}")
    with (
        servers.s3_server() as url,
        servers.environment(
            AWS_ENDPOINT_URL=url,
            AWS_ACCESS_KEY_ID="test",
            AWS_SECRET_ACCESS_KEY="test",
            AWS_DEFAULT_REGION="us-east-1",
        ),
    ):
        yield url


@pytest.fixture
def gcs_bucket(gcs_url: str) -> str:
    """A new, empty bucket, e.g. gs://bucket-1f0c…"""
    name = f"bucket-{uuid.uuid4().hex}"
    servers.make_gcs_bucket(gcs_url, name)
    return f"gs://{name}"


@pytest.fixture
def s3_bucket(s3_url: str) -> str:
    """A new, empty bucket, e.g. s3://bucket-1f0c…"""
    name = f"bucket-{uuid.uuid4().hex}"
    servers.make_s3_bucket(s3_url, name)
    return f"s3://{name}"
