"""Who may send events to the receiver.

The secret and the names come from the environment: what is in an argument can be read by every process.
"""

import hmac
import os
import re
from collections.abc import Callable, Mapping

from components.errors import InputError, UnavailableError

SECRET = "LOCKGATE_TRIGGER_SECRET"
"""Sent as `Authorization: Bearer …`."""
AUDIENCE = "LOCKGATE_TRIGGER_AUDIENCE"
CALLER = "LOCKGATE_TRIGGER_CALLER"
"""Audience and service account of the token that a Pub/Sub push brings along."""

GOOGLE_CERTIFICATES = "https://www.googleapis.com/oauth2/v1/certs"
_GOOGLE = ("accounts.google.com", "https://accounts.google.com")
_SHORTEST = 16
_TOKEN = re.compile(rf"[!-~]{{{_SHORTEST},}}")

Authenticate = Callable[[str], bool]
"""Tells whether the token of a request allows it.

Raises:
    UnavailableError: it cannot be told now.
"""


def from_environment(environment: Mapping[str, str] = os.environ) -> Authenticate:
    """Reads how requests prove who they are.

    Raises:
        InputError: the environment does not say, or says too little.
    """
    secret, audience, caller = (environment.get(name, "") for name in (SECRET, AUDIENCE, CALLER))
    if bool(audience) != bool(caller):
        raise InputError(f"set both {AUDIENCE} and {CALLER}, or none of them")
    if secret and not _TOKEN.fullmatch(secret):
        raise InputError(
            f"{SECRET} has {len(secret)} characters (needed: {_SHORTEST} or more, visible ASCII without spaces); "
            "e.g. `openssl rand -hex 32`"
        )
    accepted = [shared_secret(secret)] if secret else []
    accepted += [google_token(audience, caller)] if audience else []
    if not accepted:
        raise InputError(f"nobody could be trusted: set {SECRET}, or {AUDIENCE} and {CALLER} for Pub/Sub")
    return lambda token: bool(token) and any(accepts(token) for accepts in accepted)


def shared_secret(secret: str) -> Authenticate:
    """Accepts whoever knows a secret."""
    return lambda token: hmac.compare_digest(token.encode(), secret.encode())


def google_token(audience: str, caller: str, certificates: str = GOOGLE_CERTIFICATES) -> Authenticate:
    """Accepts identity tokens of one service account, signed by Google.

    Args:
        audience: for which they must be made.
        caller: e-mail address of the service account.
        certificates: URL of the keys that sign them.
    """
    # 0.3 s of imports that only Pub/Sub needs.
    from google.auth import exceptions
    from google.auth.transport.requests import Request
    from google.oauth2 import id_token

    def accepts(token: str) -> bool:
        try:
            claims = id_token.verify_token(token, Request(), audience, certificates)
        except exceptions.TransportError as error:
            raise UnavailableError(f"'{certificates}': {error}; check that it is reachable") from error
        except (ValueError, exceptions.GoogleAuthError):
            return False
        return claims.get("iss") in _GOOGLE and claims.get("email") == caller and claims.get("email_verified") is True

    return accepts
