"""The API of Kubeflow Pipelines: objects as plain dicts, faults as ours."""

import json
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from components.errors import InputError, UnavailableError

Object = dict[str, Any]
"""What the API sends and takes."""

_PAGE_SIZE = 100
_TIMEOUT = (10, 60)
"""Seconds to connect, seconds until the answer."""
_TRANSIENT = (408, 429, 500, 502, 503, 504)
_SHOWN = 400


class NotFoundError(InputError):
    """There is no such object."""


class AlreadyThereError(InputError):
    """An object of that name exists."""


class NotTheApiError(InputError):
    """Something else than the API answers."""


class Api:
    """A connection to the API.

    Every method raises:
        InputError: the API refuses, or what answers is not the API.
        UnavailableError: no answer.
    """

    def __init__(
        self,
        configuration: Any,
        tried: str,
        ui: str,
        server: str = "",
        system_namespace: str = "",
        namespace: str = "",
        cookie: str = "",
        renew: Callable[[], str] | None = None,
    ) -> None:
        """Makes a connection; asks nothing yet.

        Args:
            configuration: kfp_server_api's, with host and credentials.
            tried: the host, for people.
            ui: where Kubeflow's pages are; empty: nobody knows.
            server: the Kubernetes API server, where the way leads through it; empty: it does not.
            system_namespace: where Kubeflow Pipelines is installed.
            namespace: of the objects; empty: there is only one.
            cookie: to send; empty: none.
            renew: gives a new cookie when one is not accepted any more.
        """
        from kfp_server_api import ApiClient

        self.tried = tried
        self.ui = ui
        self.system_namespace = system_namespace
        self.namespace = namespace
        self._server = server
        self._client = ApiClient(configuration, cookie=cookie or None)
        self._renew = renew

    @property
    def host(self) -> str:
        """URL before /apis."""
        return str(self._client.configuration.host)

    @host.setter
    def host(self, host: str) -> None:
        self.ui = host if self.ui == self.host else self.ui
        self._client.configuration.host = host

    # --------------------------------------------------------------------------------------------- calls

    def get(self, path: str, **query: Any) -> Object:
        """Reads an object."""
        return self._object("GET", path, query, None)

    def post(self, path: str, body: Object | None = None) -> Object:
        """Creates an object, or changes one."""
        return self._object("POST", path, {}, body)

    def delete(self, path: str, **query: Any) -> None:
        """Removes an object."""
        self._call("DELETE", path, query, None)

    def everything(self, path: str, key: str, **query: Any) -> Iterator[Object]:
        """Lists objects, page by page; newest first unless `sort_by` says otherwise.

        Args:
            path: of the list.
            key: under which an answer has them.
            query: filters, see `matching`.
        """
        query = {"page_size": _PAGE_SIZE, "sort_by": "created_at desc", **query}
        if self.namespace:
            query.setdefault("namespace", self.namespace)
        while True:
            answer = self.get(path, **query)
            yield from answer.get(key) or []
            query["page_token"] = answer.get("next_page_token")
            if not query["page_token"]:
                return

    def text(self, path: str, **query: Any) -> str:
        """Reads what is not JSON."""
        return self._call("GET", path, query, None).decode("utf-8", "replace")

    def page(self, path: str, **query: Any) -> bytes:
        """Reads from Kubeflow's pages instead of the API.

        Raises:
            NotFoundError: nobody knows where they are.
        """
        if not self.ui:
            raise NotFoundError("not reached this way")
        return self._call("GET", path, query, None, self.ui)

    def kubernetes(self, path: str, **query: Any) -> bytes:
        """Reads from the Kubernetes API server.

        Raises:
            NotFoundError: the way does not lead through it.
        """
        if not self._server:
            raise NotFoundError("not reached this way")
        return self._call("GET", path, query, None, self._server)

    def upload(self, path: str, file: str, **query: Any) -> Object:
        """Sends a file.

        Args:
            path: of the upload.
            file: its path here.
            query: what goes with it.
        """
        return _parsed(self._call("POST", path, query, None, files={"uploadfile": file}), self.tried)

    # -------------------------------------------------------------------------------------------- inside

    def _object(self, method: str, path: str, query: Mapping[str, Any], body: Object | None) -> Object:
        content = self._call(method, path, query, body)
        try:
            return _parsed(content, self.tried)
        except NotTheApiError:
            # A login page is how some gateways say that a cookie has run out.
            if self._renew is None:
                raise
            self._client.cookie = self._renew()
            return _parsed(self._call(method, path, query, body), self.tried)

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: Object | None,
        host: str | None = None,
        files: dict[str, str] | None = None,
    ) -> bytes:
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        def send() -> bytes:
            answer = self._client.call_api(
                path,
                method,
                query_params=[(name, value) for name, value in query.items() if value not in (None, "")],
                header_params={"Accept": "*/*", "Content-Type": "multipart/form-data" if files else "application/json"},
                body=body,
                files=files,
                auth_settings=["Bearer"],
                _return_http_data_only=True,
                _preload_content=False,
                _request_timeout=_TIMEOUT,
                _host=host,
            )
            return bytes(answer.data)

        try:
            try:
                return send()
            except ApiException as error:
                if error.status not in (401, 403) or self._renew is None:
                    raise
                self._client.cookie = self._renew()
                return send()
        except ApiException as error:
            raise self._fault(error) from error
        except HTTPError as error:
            raise self._silence(error) from error

    def _fault(self, error: Any) -> Exception:
        said = _said(error)
        match error.status:
            case 401 | 403:
                return InputError(
                    f"{self.tried} refuses ({error.status}): {said}; see `--help`, Connection, for ways to log in"
                )
            case 404:
                return NotFoundError(f"{self.tried}: {said}")
            case 409:
                return AlreadyThereError(f"{self.tried}: {said}")
            case status if status in _TRANSIENT:
                return UnavailableError(f"{self.tried} answers {status}: {said}")
        return InputError(f"{self.tried} answers {error.status}: {said}")

    def _silence(self, error: Exception) -> Exception:
        reason = getattr(error, "reason", None) or error
        if type(reason).__name__ == "SSLError":
            return InputError(
                f"{self.tried}: its certificate is not accepted: {reason}; give the authority's by --ca-cert FILE"
            )
        hint = (
            "is the port-forward running?" if "localhost" in self.host or "127.0.0.1" in self.host else "check --host"
        )
        return UnavailableError(f"{self.tried} does not answer: {_short(str(reason))}; {hint}")


def matching(**wanted: str) -> str:
    """Gives a filter for lists: keys with exactly these values; `x__contains`: with this text inside."""
    predicates = []
    for name, value in wanted.items():
        key, _, contains = name.partition("__")
        predicates.append({"operation": "IS_SUBSTRING" if contains else "EQUALS", "key": key, "string_value": value})
    return json.dumps({"predicates": predicates})


def quoted(name: str) -> str:
    """Makes a name a part of a path."""
    return urllib.parse.quote(name, safe="")


def _parsed(content: bytes, tried: str) -> Object:
    try:
        found = json.loads(content or b"{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise NotTheApiError(
            f"{tried}: what answers is a page for browsers, not the API: it wants a login (see `--help`, Connection), "
            "or --host is another service"
        )
    return found


def _said(error: Any) -> str:
    """Gives the API's own words, in one line."""
    body = error.body
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or "")
    try:
        found = json.loads(text)
        text = str(found.get("message") or found.get("error_message") or found.get("error") or text)
    except (ValueError, AttributeError):
        text = "" if "<html" in text.lower() else text
    return _short(text or str(error.reason))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
