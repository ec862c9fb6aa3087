"""Logs in at Dex, as Kubeflow's manifests install it, with a user's name and password."""

import re
import ssl
import urllib.parse

import httpx2

from components.errors import InputError, UnavailableError

_SECONDS = 30.0
_FORM_ACTION = re.compile(r"<form[^>]*\baction=\"([^\"]+)\"", re.IGNORECASE)
_HIDDEN = re.compile(r"<input[^>]*type=\"hidden\"[^>]*>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"(name|value)=\"([^\"]*)\"", re.IGNORECASE)


def log_in(host: str, user: str, password: str, ca_cert: str | None = None) -> str:
    """Follows the way that a browser takes from a protected page to its cookie.

    Returns:
        The value of the header `Cookie`.

    Raises:
        InputError: there is no Dex, or it does not accept the name and the password.
        UnavailableError: no answer.
    """
    context = ssl.create_default_context(cafile=ca_cert)
    try:
        with httpx2.Client(follow_redirects=True, timeout=_SECONDS, verify=context) as client:
            page = client.get(f"{host}/")
            if page.status_code in (401, 403):  # oauth2-proxy shows a page with a button
                page = client.get(urllib.parse.urljoin(host, "/oauth2/start"), params={"rd": "/"})
            return _cookie(client, _pass(client, _login_page(client, page, host), user, password), user)
    except httpx2.HTTPError as error:
        raise UnavailableError(f"{host}: no login at Dex: {error or type(error).__name__}") from error


def _login_page(client: httpx2.Client, page: httpx2.Response, host: str) -> httpx2.Response:
    """Comes to the page that asks for the password; where Dex offers several ways, the local users', then LDAP."""
    path = page.url.path
    if path.endswith("/auth"):
        for connector in ("local", "ldap"):
            found = client.get(page.url.copy_with(path=f"{path}/{connector}"))
            if found.status_code == 200:
                page = found
                break
    if "/auth/" not in page.url.path or 'name="password"' not in page.text:
        raise InputError(f"{host}: {page.url.copy_with(query=None)} does not ask for a password; is there a Dex?")
    return page


def _pass(client: httpx2.Client, page: httpx2.Response, user: str, password: str) -> httpx2.Response:
    answer = client.post(_target(page), data={**_hidden(page), "login": user, "password": password})
    if answer.url.path.endswith("/approval"):
        answer = client.post(_target(answer), data={**_hidden(answer), "approval": "approve"})
    return answer


def _cookie(client: httpx2.Client, answer: httpx2.Response, user: str) -> str:
    if 'name="password"' in answer.text and "/auth/" in answer.url.path:
        raise InputError(f"Dex does not accept the name '{user}' with this password")
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.cookies.jar)
    if not cookies:
        raise InputError(f"Dex gave no cookie to '{user}': {answer.url.copy_with(query=None)} ({answer.status_code})")
    return cookies


def _target(page: httpx2.Response) -> str:
    action = _FORM_ACTION.search(page.text)
    return str(page.url.join(action[1].replace("&amp;", "&"))) if action else str(page.url)


def _hidden(page: httpx2.Response) -> dict[str, str]:
    fields = [dict(_ATTRIBUTE.findall(field)) for field in _HIDDEN.findall(page.text)]
    return {field["name"]: field.get("value", "") for field in fields if "name" in field}
