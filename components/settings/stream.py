"""How events of a stream are decided."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from components.settings.data import EventFormat
from components.settings.section import Name, Section

Topic = Annotated[str, Field(max_length=249, pattern=r"^$|^[A-Za-z0-9._-]+$")]


class Stream(Section):
    """How events of a Kafka topic are decided. Credentials come from the environment (docs/streaming.md)."""

    servers: Name = "localhost:9092"
    """Bootstrap servers, with commas between them."""
    input_topic: Topic = ""
    """Topic of the events; empty: the project's name and `.events`."""
    output_topic: Topic = ""
    """Topic of the decisions; empty: the project's name and `.decisions`."""
    dead_letter_topic: Topic = ""
    """Topic of events that cannot be decided; empty: the project's name and `.dead-letters`."""
    features_topic: Topic = ""
    """With window_features: topic of the events with these; empty: the input topic's name and `.features`."""
    group: str = ""
    """Consumer group; empty: the project's name."""
    start: Literal["earliest", "latest"] = "earliest"
    """Where a group that has committed nothing yet begins."""
    format: EventFormat = EventFormat()
    event_id: str = ""
    """Field that names an event; empty: its topic, partition and offset do."""
    event_time: str = ""
    """Field with the time of an event, as ISO 8601 text, or a number of seconds or milliseconds since 1970; empty: the
    message's own."""
    pass_through: list[Name] = []
    """Fields that a decision repeats."""
    unknown_fields: Literal["ignore", "reject"] = "ignore"
    """What becomes of an event with a field that neither the model nor this section knows. ignore: it is decided, and
    counted."""
    duplicates: Literal["count", "drop"] = "count"
    """What becomes of an event whose id was seen within the window. count: it is decided again, and says so."""
    duplicate_window: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Events of a partition among which ids are compared; they are read again when a partition is taken over. 0: none
    are."""
    late_seconds: Annotated[float, Field(gt=0)] = 3600.0
    """Older events count as late. They are decided."""
    future_seconds: Annotated[float, Field(ge=0)] = 60.0
    """Events further ahead of the clock count as future. They are decided."""
    max_batch_events: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Events of one transaction, which one call of the model decides."""
    linger_ms: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    """How long a batch waits for more events after its first; 0: not at all."""
    max_event_bytes: Annotated[int, Field(ge=1, le=10_000_000)] = 900_000
    """A larger event is not decided; of its bytes so many are kept. Stay below what the topics allow
    (max.message.bytes, 1 MB by default)."""
    reasons: Annotated[int, Field(ge=0)] = 0
    """Reasons that a decision gives; each costs about 128 predictions."""
    reasons_for: Literal["all", "positive"] = "all"
    """Which decisions give them. positive: those of binary and anomaly_detection tasks that reach the threshold."""
    version: str = "latest"
    """Of the model: one that stays, or latest: the one in production, followed while the stream runs."""
    store_poll_seconds: Annotated[float, Field(gt=0)] = 10.0
    """How often the model store is asked which version is in production."""
    endpoint: str = ""
    """URL of a model server that speaks the Open Inference Protocol, up to and with /v2/models/NAME; empty: the model
    is called inside the stream's own process."""
    endpoint_seconds: Annotated[float, Field(gt=0)] = 10.0
    """After which a call of the endpoint is given up, and tried again."""
    window_commit_ms: Annotated[float, Field(ge=1, le=10_000)] = 50.0
    """With window_features: how long an event may wait for the transaction that gives it its features; once for each
    key, and once more."""
    session_seconds: Annotated[float, Field(ge=1, le=300)] = 10.0
    """After which a member of the group that is not heard of loses its partitions."""
    transaction_seconds: Annotated[float, Field(ge=1, le=900)] = 10.0
    """After which the broker gives up the transaction of a member that is not heard of."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        named = (self.input_topic, self.output_topic, self.dead_letter_topic, self.features_topic)
        topics = [topic for topic in named if topic]
        if len(set(topics)) < len(topics):
            raise ValueError("input_topic, output_topic, dead_letter_topic and features_topic must differ")
        if self.duplicates == "drop" and not self.duplicate_window:
            raise ValueError("duplicates is drop, so give duplicate_window, e.g. 10000")
        if self.reasons and self.endpoint:
            raise ValueError("reasons are given by a model in the stream's own process: leave out endpoint, or reasons")
        return self

    def named(self, project: str) -> "Stream":
        """Gives the section with every name filled in."""
        return self.model_copy(
            update={
                "input_topic": self.input_topic or f"{project}.events",
                "output_topic": self.output_topic or f"{project}.decisions",
                "dead_letter_topic": self.dead_letter_topic or f"{project}.dead-letters",
                "features_topic": self.features_topic or f"{self.input_topic or f'{project}.events'}.features",
                "group": self.group or project,
            }
        )
