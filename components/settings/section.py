"""What sections of `pipeline.yaml` have in common."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1)]

Fraction = Annotated[float, Field(gt=0, lt=1)]

ServerUrl = Annotated[str, Field(pattern=r"^$|^https?://[^\s/@?#]+(/[^\s@?#]*)?$")]
"""Without user and password, which come from the environment."""

Severity = Literal["error", "warn", "ignore"]


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values never change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
