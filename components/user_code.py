"""The user's module: Python source that travels with the run and defines functions of an agreed name."""

import linecache
from collections.abc import Callable
from types import ModuleType
from typing import Any

from components.errors import InputError

FILE = "user_module.py"
"""How the source is called in messages and tracebacks."""


def load_function(source: str, name: str) -> Callable[..., Any] | None:
    """Runs the source as a fresh module and gives its function `name`, or None if it defines none.

    Raises:
        InputError: the source cannot be compiled or run, or `name` is no function.
    """
    function = getattr(_load(source), name, None) if source.strip() else None
    if function is not None and not callable(function):
        raise InputError(f"{FILE}: '{name}' is a {type(function).__name__}; it must be a function")
    return function


def _load(source: str) -> ModuleType:
    try:
        code = compile(source, FILE, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise InputError(f"{FILE}{line}: {getattr(error, 'msg', error)}; correct the Python source") from error
    # AutoGraph and tracebacks look the source up here.
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
    module = ModuleType(FILE.removesuffix(".py"))
    module.__file__ = FILE
    try:
        exec(code, module.__dict__)
    except Exception as error:
        raise failure("import", error) from error
    return module


def failure(what: str, error: BaseException) -> InputError:
    """Describes an exception out of the user's code in one line: where, of what class, which message."""
    message = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
    return InputError(f"{FILE}{_place(error)}: {what}: {type(error).__name__}: {message}; correct the user module")


def _place(error: BaseException) -> str:
    lines = []
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == FILE:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f", line {lines[-1]}" if lines else ""
