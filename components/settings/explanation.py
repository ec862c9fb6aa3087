"""How predictions are explained."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from components.settings.section import Section


class Explanation(Section):
    """How predictions are explained. Nothing here decides whether a model passes."""

    method: Literal["auto", "shap", "lime"] = "auto"
    """auto: the trees' own SHAP values, for other models shap. shap: Shapley values, by asking the model about mixes of
    rows. lime: a linear model around each row; what it gives does not add up to the prediction."""
    rows: PositiveInt = 500
    """Drawn from the evaluated ones; each is explained."""
    background_rows: PositiveInt = 100
    """Drawn from the train split; contributions are measured against them."""
    top_features: PositiveInt = 20
    """Shown in the report; the table has all."""
    max_seconds: Annotated[float, Field(gt=0)] = 60.0
    """shap: after which rows are compared with no further row of the background."""
    min_slice_rows: Annotated[int, Field(ge=10)] = 100
    """Of a slice in which the model is weak, at least."""
    seed: Annotated[int, Field(ge=0)] = 17
