"""The edge of a stage: what every component's body wraps its one call in."""

import contextlib
import sys
from collections.abc import Iterator

from components.errors import InputError, LockgateError, UnavailableError

_TRANSIENT_OS_ERRORS = (BlockingIOError, ConnectionError, TimeoutError)


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Turns a foreseen failure into one line on stderr and the exit code of its class.

    A bug keeps its traceback: it is not the user's mistake.

    Raises:
        SystemExit: with 2 (fix your input), 3 (data rejected) or 4 (try again later).
    """
    try:
        yield
    except LockgateError as error:
        _exit(name, error)
    except _TRANSIENT_OS_ERRORS as error:
        _exit(name, UnavailableError(f"{error}; the same run can be started again"))
    except (PermissionError, FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        _exit(name, InputError(f"{error.strerror or error}: {error.filename!r}; check the path and who may read it"))
    except OSError as error:
        _exit(name, UnavailableError(f"{error}; free the resource, then start the same run again"))


def _exit(name: str, error: LockgateError) -> None:
    sys.stdout.flush()
    print(f"{name}: {error.label}: {error}", file=sys.stderr, flush=True)
    raise SystemExit(error.exit_code)
