"""Starting a workflow on GitHub, whose part a local server plays. Needs: the authoring environment."""

import json
from collections.abc import Iterator

import pytest

from components.errors import InputError, UnavailableError
from pipelines.triggers.dispatch import dispatch
from tests.pipelines.recording_server import Recording, recording_server
from tests.servers import free_port

TOKEN = "ghp_0123456789abcdef"


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recording]:
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    with recording_server() as recording:
        yield recording


def test_the_event_is_as_github_documents_it(github: Recording) -> None:
    dispatch("team/models", {"project": "examples/flights", "window": "2013-01..2013-12"}, github.url + "/")
    ((method, path, headers, body),) = github.requests
    assert (method, path) == ("POST", "/repos/team/models/dispatches")
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["accept"] == "application/vnd.github+json"
    assert headers["x-github-api-version"] == "2022-11-28"
    assert json.loads(body) == {
        "event_type": "new-data",
        "client_payload": {"project": "examples/flights", "window": "2013-01..2013-12"},
    }


@pytest.mark.parametrize(
    ("status", "headers", "error", "says"),
    [
        (401, {}, InputError, "not valid"),
        (403, {}, InputError, "may not write contents"),
        (404, {}, InputError, "no such repository"),
        (422, {}, InputError, "check owner, name"),
        (307, {"Location": "https://elsewhere.example/"}, InputError, "HTTP 307"),
        (403, {"Retry-After": "60"}, UnavailableError, "HTTP 403"),
        (403, {"X-RateLimit-Remaining": "0"}, UnavailableError, "HTTP 403"),
        (429, {}, UnavailableError, "HTTP 429"),
        (502, {}, UnavailableError, "HTTP 502"),
    ],
)
def test_what_github_refuses(
    github: Recording, status: int, headers: dict[str, str], error: type[Exception], says: str
) -> None:
    github.status, github.headers, github.body = status, headers, b'{"message": "no\\n  such"}'
    with pytest.raises(error) as caught:
        dispatch("team/models", {}, github.url)
    assert says in str(caught.value)
    assert "/repos/team/models/dispatches" in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert len(github.requests) == 1


@pytest.mark.parametrize(
    "repository", ["", "models", "team/models/x", "team/../other", "https://github.com/a/b", "a b/c"]
)
def test_what_is_no_repository_is_not_asked_for(github: Recording, repository: str) -> None:
    with pytest.raises(InputError, match="owner/name"):
        dispatch(repository, {}, github.url)
    assert not github.requests


def test_without_a_token_nothing_is_asked(github: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_TOKEN")
    with pytest.raises(InputError, match="GITHUB_TOKEN is not set"):
        dispatch("team/models", {}, github.url)
    assert not github.requests


def test_nobody_answers(github: Recording) -> None:
    with pytest.raises(UnavailableError, match="check that it is reachable"):
        dispatch("team/models", {}, f"http://127.0.0.1:{free_port()}")


@pytest.mark.parametrize("url", ["github.com", "ftp://github.com", "http://[::1", ""])
def test_an_address_that_is_none(github: Recording, url: str) -> None:
    with pytest.raises(InputError, match="--api-url"):
        dispatch("team/models", {}, url)
