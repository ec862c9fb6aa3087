"""Starting a workflow on GitHub: a repository_dispatch event."""

import os
import re
from collections.abc import Mapping

import httpx2

from components.errors import InputError, UnavailableError

API_URL = "https://api.github.com"
TOKEN = "GITHUB_TOKEN"
"""Environment variable with a token that may write the repository's contents."""
EVENT = "new-data"
"""The event's type; retrain.yaml listens for it."""

_REPOSITORY = re.compile(r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+")
_SECONDS = 30.0
_API_VERSION = "2022-11-28"


def dispatch(repository: str, payload: Mapping[str, str], api_url: str = API_URL) -> None:
    """Sends the event.

    Args:
        repository: as owner/name.
        payload: what the workflow finds in `github.event.client_payload`.
        api_url: of GitHub, or of a GitHub Enterprise server.

    Raises:
        InputError: there is no token, or GitHub refuses.
        UnavailableError: GitHub does not answer, or wants to be asked later.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise InputError(f"repository '{repository}': write it as owner/name")
    token = os.environ.get(TOKEN, "")
    if not token:
        raise InputError(f"{TOKEN} is not set; export a token that may write contents of '{repository}'")
    url = f"{api_url.rstrip('/')}/repos/{repository}/dispatches"
    headers = {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {token}",
        "X-GitHub-Api-Version": _API_VERSION,
    }
    try:
        answer = httpx2.post(
            url, json={"event_type": EVENT, "client_payload": dict(payload)}, headers=headers, timeout=_SECONDS
        )
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise InputError(f"--api-url {api_url}: {error}; write it like {API_URL}") from error
    except httpx2.TransportError as error:
        raise UnavailableError(f"'{url}': {error or type(error).__name__}; check that it is reachable") from error
    _require_accepted(answer, url)


def _require_accepted(answer: httpx2.Response, url: str) -> None:
    if answer.is_success:
        return
    said = f"'{url}': HTTP {answer.status_code}: {' '.join(answer.text.split())[:200]}"
    limited = answer.status_code == 403 and (
        "retry-after" in answer.headers or answer.headers.get("x-ratelimit-remaining") == "0"
    )
    if limited or answer.status_code == 429 or answer.status_code >= 500:
        raise UnavailableError(said)
    next_steps = {
        401: f"the token in {TOKEN} is not valid; make a new one",
        403: f"the token in {TOKEN} may not write contents of this repository; give it that permission",
        404: f"there is no such repository, or the token in {TOKEN} may not see it",
    }
    raise InputError(f"{said}; {next_steps.get(answer.status_code, 'check owner, name and --api-url')}")
