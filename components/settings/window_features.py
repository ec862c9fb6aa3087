"""Features over the events before an event."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from components.settings.section import Name, Section

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}

Duration = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5} (second|minute|hour|day|week)s?$")]

COLUMN_AGGREGATES = ("sum", "mean", "distinct")
"""Those of a column; the others are of the events themselves."""


def milliseconds(duration: str) -> int:
    """Gives how long a duration is, e.g. of "24 hours"."""
    count, unit = duration.split()
    return int(count) * _SECONDS[unit.rstrip("s")] * 1000


class WindowFeature(Section):
    """One feature over the events of a key."""

    name: Name
    """Of the column that it becomes."""
    of: Literal["count", "sum", "mean", "distinct", "time_since_last"]
    """count: of events. sum, mean: of a column's numbers. distinct: how many different values a column has.
    time_since_last: seconds since the event before."""
    column: str = ""
    """sum, mean, distinct: of which column."""
    key: list[Name] = []
    """Columns whose values events must share; empty: window_features.key."""
    window: Duration
    """How far back events count, e.g. "90 seconds", "30 minutes", "1 hour", "7 days", "2 weeks"."""

    @property
    def window_ms(self) -> int:
        """Its length in milliseconds."""
        return milliseconds(self.window)

    @model_validator(mode="after")
    def _column_fits(self) -> Self:
        if self.of in COLUMN_AGGREGATES and not self.column:
            raise ValueError(f"{self.of} is of a column's values; add `column`")
        if self.of not in COLUMN_AGGREGATES and self.column:
            raise ValueError(f"{self.of} is of events, whatever their columns hold; take `column` out")
        return self


class WindowFeatures(Section):
    """Features over the events before each event, the same in training and in a stream (docs/window-features.md)."""

    time: Name
    """Column with the time of an event: a date or time, ISO 8601 text, or an integer of seconds or milliseconds since
    1970. Without a zone: UTC."""
    key: list[Name] = []
    """Columns whose values events must share, e.g. [card]: of features that name no key of their own."""
    lateness: Duration = "1 hour"
    """How much later than newer events of its key an event may come into a stream and still see all that was before
    it."""
    features: Annotated[list[WindowFeature], Field(min_length=1)]

    @property
    def names(self) -> list[str]:
        """Of the features."""
        return [feature.name for feature in self.features]

    @property
    def inputs(self) -> list[str]:
        """The raw columns that are needed, each once."""
        keys = [name for feature in self.features for name in self.key_of(feature)]
        return list(dict.fromkeys([self.time, *keys, *(f.column for f in self.features if f.column)]))

    @property
    def look_back(self) -> timedelta:
        """Length of the longest window."""
        return timedelta(milliseconds=max(feature.window_ms for feature in self.features))

    def key_of(self, feature: WindowFeature) -> list[str]:
        """Gives the key of a feature."""
        return feature.key or self.key

    def faults(self, label: str | None) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yields what is wrong beside the label of the task: where, and what to do."""
        for index, feature in enumerate(self.features):
            used = {"name": [feature.name], "column": [feature.column], "key": self.key_of(feature)}
            for setting, names in used.items():
                if label and label in names:
                    yield (
                        ("window_features", "features", index, setting),
                        f"window_features.features[{index}].{setting}: the label '{label}' is not known when an event "
                        "is decided, nor are those of the events before it; take another column",
                    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, count in Counter(self.names).items():
            if count > 1:
                raise ValueError(f"{count} features are called '{name}'; give each a name of its own")
        for feature in self.features:
            if not self.key_of(feature):
                raise ValueError(f"feature '{feature.name}' has no key; name one, there or in window_features.key")
            if feature.name in self.inputs:
                raise ValueError(
                    f"feature '{feature.name}' is called like a column that features are made of; rename it"
                )
        return self
