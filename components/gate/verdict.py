"""What a gate does."""

from components.errors import DataRejectedError


def require_pass(verdict: str, reason: str) -> None:
    """Lets only the verdict `pass` through.

    Raises:
        DataRejectedError: any other verdict, with its reason.
    """
    if verdict != "pass":
        raise DataRejectedError(reason or f"verdict '{verdict}' (wanted: 'pass'); see the report of the stage before")
    print(reason or verdict)
