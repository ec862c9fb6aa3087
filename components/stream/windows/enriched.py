"""Messages on their way through the topology: bytes, key and headers as they came, and what is known beside them.

What is known travels in headers, so that a message that cannot be read arrives as it is, and Avro stays Avro.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from components.stream.events import FAULT, FEATURES, OFFSET, ORIGINAL_BYTES, PARTITION, PREFIX, TOPIC

_KEY, _INPUTS = f"{PREFIX}window-key", f"{PREFIX}window-inputs"

Headers = Sequence[tuple[str, bytes | None]]


@dataclass
class Enriched:
    """A message of the input topic."""

    value: bytes | None
    key: bytes | None
    headers: list[tuple[str, bytes | None]]
    """As they came."""
    origin: list[tuple[str, bytes | None]]
    """Headers that tell where it came from."""
    time: int | None = None
    """In milliseconds since 1970."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """Keys and values of which features are made."""
    features: dict[str, Any] = field(default_factory=dict)
    """Those that are known."""
    fault: str = ""
    """Why it has none."""

    def between(self) -> list[tuple[str, bytes | None]]:
        """Gives its headers inside the topology."""
        key = [] if self.key is None else [(_KEY, self.key)]
        return [*self.outside(), *key, (_INPUTS, orjson.dumps([self.time, self.inputs]))]

    def outside(self) -> list[tuple[str, bytes | None]]:
        """Gives its headers as others see them."""
        known = (FAULT, self.fault.encode(errors="replace")) if self.fault else (FEATURES, orjson.dumps(self.features))
        return [*self.headers, *self.origin, known]

    @classmethod
    def parse(cls, value: bytes | None, headers: Headers) -> "Enriched":
        """Reads what `between` has written."""
        ours = {name: content or b"" for name, content in headers if name.startswith(PREFIX)}
        time, inputs = orjson.loads(ours[_INPUTS])
        fault = ours.get(FAULT, b"").decode()
        return cls(
            value=value,
            key=ours.get(_KEY),
            headers=[(name, content) for name, content in headers if not name.startswith(PREFIX)],
            origin=[(name, ours[name]) for name in (TOPIC, PARTITION, OFFSET, ORIGINAL_BYTES) if name in ours],
            time=time,
            inputs=inputs,
            features={} if fault else orjson.loads(ours[FEATURES]),
            fault=fault,
        )
