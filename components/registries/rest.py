"""Requests to a registry: JSON over HTTP, with errors that say what to do."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2

from components.credentials import authorization
from components.errors import InputError, UnavailableError

Json = dict[str, Any]

_SECONDS = 30.0
_PAUSES = (0.5, 2.0)
_BUSY = (429, 502, 503, 504)


class Rest:
    """A registry at a URL."""

    def __init__(self, url: str, title: str, variables: str) -> None:
        """Reads the credentials.

        Args:
            url: of the registry, http:// or https://.
            title: what it is, for errors.
            variables: what the variables with credentials begin with.

        Raises:
            InputError: it is no such URL, it holds a password, or the credentials are wrong.
        """
        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise InputError(f"'{url}': {error}; give the URL of {title}, e.g. https://host:port") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise InputError(f"'{url}' is no http(s) URL; give that of {title}, e.g. https://host:port")
        if parsed.userinfo:
            raise InputError(
                f"the URL of {title} has a user or password in it; take them out, and set {variables}_USERNAME and "
                f"{variables}_PASSWORD"
            )
        self.url, self._title, self._variables = url.rstrip("/"), title, variables
        self._client = httpx2.Client(headers=authorization(variables), timeout=_SECONDS)

    @contextmanager
    def understanding(self) -> Iterator[None]:
        """Turns an answer that lacks what its interface promises into an error that says so.

        Raises:
            InputError: it does.
        """
        try:
            yield
        except (LookupError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self._title} at '{self.url}' answers otherwise than its interface says ({type(error).__name__}: "
                f"{error}); check its URL and its version"
            ) from error

    def get(self, path: str, parameters: Mapping[str, str | int] | None = None) -> Json | None:
        """Reads something; None: it is not there.

        Raises:
            InputError: the registry refuses, or something else answers.
            UnavailableError: nothing answers.
        """
        for pause in (*_PAUSES, None):
            try:
                answer = self._send("GET", path, params=dict(parameters or {}))
            except UnavailableError:
                if pause is None:
                    raise
            else:
                return None if answer is None else self._json(answer, path)
            time.sleep(pause)
        return None

    def send(self, method: str, path: str, body: Mapping[str, Any]) -> Json:
        """Writes something, once: to repeat it is up to whoever knows whether it was done.

        Raises:
            InputError: the registry refuses, or something else answers.
            UnavailableError: nothing answers.
        """
        answer = self._send(method, path, json=dict(body))
        if answer is None:
            raise InputError(f"{self._title} at '{self.url}' has no {path}; check its URL, its kind and its version")
        return self._json(answer, path)

    def _send(self, method: str, path: str, **options: Any) -> httpx2.Response | None:
        try:
            answer = self._client.request(method, f"{self.url}{path}", **options)
        except httpx2.TransportError as error:
            why = f"{type(error).__name__}: {error}"
            raise UnavailableError(
                f"{self._title} at '{self.url}' does not answer ({why}); check its URL and that it runs"
            ) from error
        if answer.status_code == 404:
            self._json(answer, path)
            return None
        if answer.status_code in (401, 403):
            raise InputError(
                f"{self._title} at '{self.url}' refuses ({answer.status_code}); set {self._variables}_TOKEN, or "
                f"{self._variables}_USERNAME and {self._variables}_PASSWORD"
            )
        if answer.status_code in _BUSY or answer.status_code >= 500:
            raise UnavailableError(
                f"{self._title} at '{self.url}': {method} {path} ends with {answer.status_code}: {_message(answer)}; "
                "look at its log, then export again"
            )
        if answer.is_error or answer.is_redirect:
            raise InputError(
                f"{self._title} at '{self.url}': {method} {path} ends with {answer.status_code}: {_message(answer)}"
            )
        return answer

    def _json(self, answer: httpx2.Response, path: str) -> Json:
        try:
            content = answer.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise InputError(
                f"'{self.url}{path}' answers with {answer.status_code} and no JSON, so it is not {self._title}; "
                "check its URL"
            )
        return content


def _message(answer: httpx2.Response) -> str:
    try:
        content = answer.json()
        text = content.get("message") or answer.text
    except (ValueError, AttributeError):
        text = answer.text
    return " ".join(str(text).split())[:300]
