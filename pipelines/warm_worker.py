"""A process that imports an image's libraries once and forks a child for every task.

It runs inside a venv twin, so it imports nothing of the authoring environment. Requests come as JSON lines
on stdin, answers go as JSON lines to the file descriptor given as argument; end of input ends the worker
and its children. A child does what the task's command does (`python -m kfp.dsl.executor_main`), without
paying for the imports again: TensorFlow's cost 8 s, a fork costs milliseconds.

TensorFlow may be imported before a fork, but no operation may run before it: its thread pools would be
lost. So this module imports and does nothing else.
"""

import contextlib
import ctypes
import importlib
import json
import os
import selectors
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import IO, Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Serves requests until stdin ends.

    Arguments: file descriptor for answers, modules to import; `-module`: hidden from those that would import it.
    """
    answers = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    # A forked child must not answer, and the executor must not start threads before the fork.
    os.environ["_KFP_RUNTIME"] = "true"
    hidden = [argument[1:] for argument in sys.argv[2:] if argument.startswith("-")]
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(hidden))  # None: an import raises ModuleNotFoundError
    for module in ("kfp.dsl.executor_main", *(a for a in sys.argv[2:] if not a.startswith("-"))):
        importlib.import_module(module)
    for module in hidden:
        del modules[module]
    answers.write(json.dumps({"ready": os.getpid()}) + "\n")
    _serve(answers)


def _serve(answers: IO[str]) -> None:
    children: dict[int, dict[str, Any]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        pending = b""
        while True:
            for key, _ in selector.select():
                if key.fd != sys.stdin.fileno():
                    selector.unregister(key.fd)
                    answers.write(json.dumps(_reap(key.fd, children)) + "\n")
                    continue
                chunk = os.read(sys.stdin.fileno(), 65536)
                if not chunk:
                    _kill(children)
                    return
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    selector.register(_start(json.loads(line), children, answers), selectors.EVENT_READ)


def _start(request: dict[str, Any], children: dict[int, dict[str, Any]], answers: IO[str]) -> int:
    """Forks the child of a request; gives a descriptor that turns readable when the child has ended."""
    pid = os.fork()
    if pid == 0:
        _run_task(request, answers)
    process = os.pidfd_open(pid)
    children[process] = {"task": request["task"], "pid": pid}
    return process


def _reap(process: int, children: dict[int, dict[str, Any]]) -> dict[str, Any]:
    child = children.pop(process)
    _, status, usage = os.wait4(child["pid"], 0)
    os.close(process)
    return {
        "task": child["task"],
        "exit_code": os.waitstatus_to_exitcode(status),
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_rss_bytes": usage.ru_maxrss * 1024,
    }


def _kill(children: dict[int, dict[str, Any]]) -> None:
    for child in children.values():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child["pid"], signal.SIGKILL)


def _run_task(request: dict[str, Any], answers: IO[str]) -> None:
    """Becomes the task: never returns."""
    code = 1
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.close(answers.fileno())
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(request["environment"])
        os.chdir(request["directory"])
        with tempfile.TemporaryDirectory() as folder:
            # TensorFlow keeps generated modules here and would delete them when the interpreter ends; a fork does not.
            os.environ["TMPDIR"] = tempfile.tempdir = folder
            program = Path(folder) / "ephemeral_component.py"
            program.write_text(request["source"], encoding="utf-8")
            sys.argv = ["executor_main", "--component_module_path", str(program), *request["arguments"]]
            importlib.import_module("kfp.dsl.executor_main").executor_main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
