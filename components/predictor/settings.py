"""What the server can be told. Each setting is an option of the command line and an environment variable."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

ENVIRONMENT_PREFIX = "LOCKGATE_"

Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseModel):
    """Settings of the server; the description of each is its help text."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())

    model_dir: str = "/mnt/models"
    """Folder of the model: `1/` and spec.json, or a version of the model store, which holds it under `model/`."""
    model_name: str = ""
    """Name in URLs; empty: the model card's, or "model" where there is no card."""
    http_port: Port = 8080
    """Port of both REST protocols, the metrics and the page."""
    grpc_port: Port = 8081
    """Port of the Open Inference Protocol over gRPC; 0: none."""
    max_rows: PositiveInt = 10_000
    """Rows that a request may have; more is answered with 400."""
    max_body_bytes: PositiveInt = 8 * 1024 * 1024
    """Size that a request may have; more is answered with 413, over gRPC with RESOURCE_EXHAUSTED."""
    max_batch_rows: PositiveInt = 1024
    """Rows of queued requests that are predicted together; a larger request is predicted alone."""
    max_queue_rows: PositiveInt = 20_000
    """Rows that may wait for the model; a request beyond is answered with 503 and Retry-After."""
    max_in_flight: PositiveInt = 1024
    """Requests that are read, predicted or answered at one time; one beyond is answered with 503 and Retry-After."""
    max_explained_rows: Annotated[int, Field(ge=0)] = 20
    """Rows that a request for explanations may have; more is answered with 400. 0: none is explained."""
    explanation_permutations: Annotated[int, Field(ge=2, multiple_of=2)] = 64
    """Orders of the features that are drawn to explain a row; even. With more, shares are closer and take longer."""
    drain_seconds: NonNegativeFloat = 3.0
    """After SIGTERM, how long requests are still taken while readiness says no, until the cluster sends no more."""
    grace_seconds: PositiveFloat = 15.0
    """After that, how long requests in flight may take to end."""
    threads: Annotated[int, Field(ge=0)] = 1
    """Threads inside one TensorFlow operation; 0: one a core. For rows of a table one is the fastest."""
    log_uri: str = ""
    """Folder for the request log: a local path, gs:// or s3://; empty: no log."""
    log_sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the requests that are logged."""
    log_buffer_rows: PositiveInt = 50_000
    """Rows that may wait to be written; what comes beyond is dropped and counted."""
    log_file_rows: PositiveInt = 10_000
    """Rows after which a file is written."""
    log_seconds: PositiveFloat = 60.0
    """Time after which a file is written, however few rows there are."""
    redact: list[str] = []
    """Features that the request log leaves out, with commas between them; those annotated `pii` in the schema always
    are."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Of the server's own lines on stderr; requests have metrics, not lines."""
