"""Warm workers: one process a venv twin, in which the tasks of an image are forked."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from kfp import local
from kfp.local import status, subprocess_task_handler

from components.errors import InputError
from pipelines.environments import ROOT, Environment
from pipelines.execution import Ended, Execute, Seam

# Quiet logs, lines that appear as they are printed, and no look at a GPU that the CPU build cannot use.
_TASK_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0"}


class Worker:
    """One warm process. Started at once; its imports go on while the caller does something else."""

    def __init__(self, environment: Environment, log: Path) -> None:
        if not environment.is_ready():
            raise InputError(f"environment '{environment.name}' is not set up; run `make setup`")
        read, write = os.pipe()
        with log.open("ab") as output:
            postponed = [f"-{module}" for module in environment.postponed]
            self._process = subprocess.Popen(
                [
                    str(environment.executable),
                    "-m",
                    "pipelines.warm_worker",
                    str(write),
                    *postponed,
                    *environment.preload,
                ],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=(write,),
                cwd=ROOT,
                env={**os.environ, **_TASK_ENVIRONMENT, "PYTHONPATH": str(ROOT)},
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        os.close(write)
        self._answers: IO[str] = os.fdopen(read, encoding="utf-8")
        self._name = environment.name
        self._log = log
        self._is_ready = False

    def run(self, task: str, program: "Program", environment: dict[str, str], log: Path) -> Ended:
        """Runs one task to its end.

        Args:
            task: its name, unique among those under way.
            program: what the task's command would run.
            environment: variables of the task.
            log: file to which it prints.

        Raises:
            RuntimeError: the worker itself died; its log says why.
        """
        request = {
            "task": task,
            "source": program.source,
            "arguments": list(program.arguments),
            "environment": environment,
            "directory": str(Path.cwd()),
            "log": str(log),
        }
        if not self._is_ready:
            self._answer()
            self._is_ready = True
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._answer()
        return Ended(answer["exit_code"], answer["cpu_seconds"], answer["peak_rss_bytes"])

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            raise RuntimeError(f"the worker of '{self._name}' ended with {self._process.wait()}; see {self._log}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """Ends the process and whatever it is running."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()


@dataclass(frozen=True)
class Program:
    """What the command of a lightweight KFP component runs."""

    source: str
    arguments: Sequence[str]

    @property
    def function(self) -> str:
        """Name of the component's function."""
        return self.arguments[self.arguments.index("--function_to_execute") + 1]

    @classmethod
    def from_command(cls, command: Sequence[str]) -> "Program":
        """Takes a compiled command apart: `sh -ec SCRIPT SOURCE ARGUMENT…`.

        Raises:
            InputError: it is the command of another kind of component.
        """
        if list(command[:2]) != ["sh", "-ec"] or "kfp.dsl.executor_main" not in command[2]:
            raise InputError(
                f"command '{' '.join(command)[:60]}…' is not that of a lightweight component on a pre-built image; "
                "compile it with install_kfp_package=False and no packages_to_install"
            )
        return cls(source=command[3], arguments=tuple(command[4:]))


class Workers:
    """The warm workers of one run: started shortly before they are needed, stopped when no task is left for them.

    One worker is warmed ahead, but never one with TensorFlow while another works (the current line's, and TFDV's
    on an old libc): together they would not fit a small laptop.
    """

    def __init__(self, tasks: Mapping[str, Environment], log: Path) -> None:
        """Args: tasks: the environment of every task of the run, in the order in which they will run."""
        self.name = "venv"
        self._ahead = dict(tasks)
        self._log = log
        self._workers: dict[str, Worker] = {}

    @property
    def kfp_runner(self) -> local.SubprocessRunner:
        """What kfp.local is initialised with."""
        return local.SubprocessRunner(use_venv=False)

    def seam(self, execute: Execute) -> Seam:
        """Gives kfp.local's handler of a command, and ours, which runs it in the venv twin of the task's image."""
        take = self.take

        class TwinTaskHandler:
            def __init__(self, full_command: list[str], env_vars: dict[str, str] | None = None, **_: Any) -> None:
                self._program, self._variables = Program.from_command(full_command), env_vars or {}

            def run(self) -> status.Status:
                code = execute(lambda task, log: take(task).run(task, self._program, self._variables, log))
                return status.Status.FAILURE if code else status.Status.SUCCESS

        return subprocess_task_handler, "SubprocessTaskHandler", TwinTaskHandler

    def take(self, task: str) -> Worker:
        """Gives the worker for a task, and warms the one that will be needed after it."""
        present = self._ahead[task]
        worker = self._start(present)
        upcoming = next((e for e in self._ahead.values() if e.name not in self._workers), None)
        if upcoming and not (present.has_tensorflow and upcoming.has_tensorflow):
            self._start(upcoming)
        return worker

    def done(self, task: str) -> None:
        """Notes that a task has ended or was not needed, and stops the workers for which none is left."""
        self._ahead.pop(task, None)
        needed = {environment.name for environment in self._ahead.values()}
        for name in [name for name in self._workers if name not in needed]:
            self._workers.pop(name).stop()

    def stop(self) -> None:
        """Stops all."""
        for worker in self._workers.values():
            worker.stop()
        self._workers.clear()

    def _start(self, environment: Environment) -> Worker:
        if environment.name not in self._workers:
            self._workers[environment.name] = Worker(environment, self._log)
        return self._workers[environment.name]
