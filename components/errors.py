"""Errors that know what the user does next.

The class decides the exit code of a local run. On a cluster Argo shows exit code 1 for every failure, so
the class is also in the first words of the printed line.
"""


class LockgateError(Exception):
    """A failure with a one-line message that names the thing, the value, the limit and the next step."""

    exit_code = 1
    label = "error"

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class InputError(LockgateError):
    """The configuration, an argument or the user's code is wrong: fix it, then run again."""

    exit_code = 2
    label = "fix your input"


class DataRejectedError(LockgateError):
    """The data or the model does not pass: a gate, or a check that comes before one."""

    exit_code = 3
    label = "data rejected"


class UnavailableError(LockgateError):
    """Something outside (storage, network, disk) does not answer: try again later."""

    exit_code = 4
    label = "try again later"
