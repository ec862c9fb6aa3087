"""What a stream's processes are told."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from components.errors import InputError
from components.json_files import parse_record
from components.settings import Stream, WindowFeatures
from components.window_features.values import InputColumn


class Job(BaseModel):
    """What a stream's process is told; `python -m pipelines stream PROJECT --show-job` writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Of the project, and of its model."""
    store: str
    """URI of the model store."""
    stream: Stream
    avro_schema: str = ""
    """Content of stream.format.schema_file."""
    window_features: WindowFeatures | None = None
    window_columns: dict[str, InputColumn] = {}
    """What the window features are made of, by name, as the schema has it."""

    @property
    def named(self) -> Stream:
        """Section `stream` with every name filled in."""
        return self.stream.named(self.name)

    @property
    def deciding(self) -> Stream:
        """The same for the process that decides: with window features, it reads the topic of these."""
        named = self.named
        return named.model_copy(update={"input_topic": named.features_topic}) if self.window_features else named


def read_job(path: Path) -> Job:
    """Reads a job.

    Raises:
        InputError: it is none.
    """
    if not path.is_file():
        raise InputError(f"job '{path}' is no file; `python -m pipelines stream PROJECT --show-job` writes one")
    return parse_record(Job, path.read_bytes(), path, "write it again with `python -m pipelines stream --show-job`")
