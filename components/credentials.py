"""Credentials: from the environment or from files that it names, never from arguments or settings."""

import os
from base64 import b64encode
from pathlib import Path

from components.errors import InputError

_FILE = "_FILE"


def secret(variable: str) -> str:
    """Reads a variable, or the file that the variable with _FILE behind it names; empty: neither is set.

    Raises:
        InputError: the file cannot be read.
    """
    path = os.environ.get(variable + _FILE)
    if not path:
        return os.environ.get(variable, "")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(f"{variable}{_FILE} names '{path}', which cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{variable}{_FILE} names '{path}', which is not UTF-8 text") from error


def authorization(prefix: str) -> dict[str, str]:
    """Gives the header by which a server knows who asks: of a token, or of a user and password; empty: of nobody.

    Args:
        prefix: of the variables, e.g. LOCKGATE_PUSHGATEWAY for LOCKGATE_PUSHGATEWAY_TOKEN, _USERNAME and _PASSWORD.

    Raises:
        InputError: a file that a variable names cannot be read, or there is a password without a user.
    """
    if token := secret(f"{prefix}_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user, password = secret(f"{prefix}_USERNAME"), secret(f"{prefix}_PASSWORD")
    if password and not user:
        raise InputError(f"{prefix}_PASSWORD is set, {prefix}_USERNAME is not; set both, or {prefix}_TOKEN")
    if not user:
        return {}
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}
