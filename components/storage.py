"""Files on the local disk, gs:// and s3://, all through fsspec.

Credentials and endpoints come from the environment, as the cloud's own tools read them
(GOOGLE_APPLICATION_CREDENTIALS, STORAGE_EMULATOR_HOST; AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …).
"""

import contextlib
import errno
import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from components.errors import InputError, UnavailableError

SCHEMES = ("gs", "s3", "file")
SILENCE_SECONDS = 15
"""After which a connection on which nothing comes is given up, and the request tried again."""
_CONNECT_SECONDS = 5
# gcsfs would otherwise ask for each bucket's kind, through a second API (0.9 s of imports, a permission of its own,
# a warning where an emulator lacks it), to gain atomic folder renames, which nothing here needs.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
# It also logs, with a traceback, each error that it raises.
logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
# S3: eight tries with growing pauses, half a minute in all as with gcsfs; the environment may say otherwise.
os.environ.setdefault("AWS_RETRY_MODE", "standard")
os.environ.setdefault("AWS_MAX_ATTEMPTS", "8")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = "Forbidden: "
"""How gcsfs begins a 403; it has no class for it."""
_CLIENTS = ("aiohttp", "botocore", "gcsfs", "google")


def filesystem(uri: str) -> tuple[AbstractFileSystem, str]:
    """Gives the file system of a URI or local path, and the path on it.

    Raises:
        InputError: the scheme is not one of ours.
    """
    scheme = uri.partition("://")[0] if "://" in uri else "file"
    if scheme not in SCHEMES:
        raise InputError(f"'{uri}': unknown scheme '{scheme}'; use a local path, gs:// or s3://")
    with reaching(uri):
        fs, path = fsspec.core.url_to_fs(uri, **_options(scheme))
    return fs, path


def _options(scheme: str) -> dict[str, Any]:
    if scheme == "file":
        return {}
    # Listings must not be older than the call: another process may have written meanwhile.
    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme == "s3":
        timeouts = {"connect_timeout": _CONNECT_SECONDS, "read_timeout": SILENCE_SECONDS}
        return options | {"config_kwargs": timeouts}
    # gcsfs alone would wait without end for a connection on which nothing comes.
    from aiohttp import ClientTimeout

    return options | {"requests_timeout": ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=SILENCE_SECONDS)}


def create(fs: AbstractFileSystem, path: str, content: bytes) -> bool:
    """Writes a whole file unless there is one, of however many that try at once; False: there is one of other content.

    Args:
        fs: of the path.
        path: on it.
        content: of the file. A client that repeats a request whose answer was lost meets its own file, so content that
            names its writer tells writers apart.
    """
    try:
        if isinstance(fs, LocalFileSystem):
            _link(Path(path), content)
        else:
            fs.pipe_file(path, content, mode="create")
    except FileExistsError:
        return bytes(fs.cat_file(path)) == content
    return True


def _link(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(content)
        target.hardlink_to(partial)
    finally:
        partial.unlink(missing_ok=True)


def is_remote(uri: str) -> bool:
    """Tells whether a URI is elsewhere than on the local disk."""
    return "://" in uri and not uri.startswith("file://")


@contextlib.contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Names the URI, and what to do, when its storage refuses or does not answer.

    Raises:
        InputError: not there, or not allowed.
        UnavailableError: no answer after the client library's own retries.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"'{uri}' does not exist; check the path") from error
    except PermissionError as error:
        raise InputError(
            f"'{uri}': permission denied; check the path, and the credentials in the environment"
        ) from error
    except (NotADirectoryError, IsADirectoryError) as error:
        raise InputError(f"'{uri}': {error.strerror}: '{error.filename}'; check the path") from error
    except OSError as error:
        if str(error).startswith(_FORBIDDEN):
            raise InputError(f"'{uri}': {error}; check the credentials in the environment") from error
        if error.errno in _FULL:
            raise UnavailableError(f"'{uri}': {error.strerror}; free space, then start the same run again") from error
        raise UnavailableError(
            f"'{uri}': {error or type(error).__name__}; check that the storage is reachable"
        ) from error
    except Exception as error:
        # The cloud clients' own errors derive from Exception; naming their classes would import both clients.
        if type(error).__module__.partition(".")[0] not in _CLIENTS:
            raise
        if "Credentials" in type(error).__name__ or str(getattr(error, "code", "")) in ("401", "403"):
            raise InputError(f"'{uri}': {error}; check the credentials in the environment") from error
        raise UnavailableError(f"'{uri}': {error}; check that the storage is reachable") from error
