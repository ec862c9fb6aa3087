"""JSON files that hold one record each."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from components.errors import InputError

Record = TypeVar("Record", bound=BaseModel)


def parse_record(model: type[Record], content: bytes, name: object, remedy: str) -> Record:
    """Reads a record from JSON.

    Args:
        model: of the record.
        content: of the file, UTF-8.
        name: of the file, for the message.
        remedy: for the message, e.g. "run again".

    Raises:
        InputError: it is no such record, with the first fault.
    """
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        raise InputError(f"'{name}' is damaged: {where}: {first['msg']}; {remedy}") from error
