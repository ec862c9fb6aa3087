"""Where models go, what is kept, and what runs cost."""

from typing import Annotated

from pydantic import Field, PositiveInt

from components.settings.section import Name, Section, ServerUrl


class Registries(Section):
    """Model registries that are told of each published model; how to log in comes from the environment."""

    mlflow: ServerUrl = ""
    """URL of MLflow's tracking server; empty: it is not told."""
    kubeflow: ServerUrl = ""
    """URL of Kubeflow's Model Registry; empty: it is not told."""


class Publication(Section):
    """Where a blessed model goes."""

    store: Name = "models"
    """The model store: a local path (from the project's folder), gs:// or s3:// URI."""
    description: str = ""
    """For the model card."""
    owner: str = ""
    """For the model card."""
    registries: Registries = Registries()
    """Who is told, once a model is in the store. One that fails fails no run: the report says so, and how to tell it
    later."""


class Retention(Section):
    """What `python -m pipelines prune` keeps."""

    models: PositiveInt = 10
    """Newest versions that keep their files, beside the one in production, the one before it, and those that are
    served."""
    log_days: PositiveInt | None = 90
    """Days of our own request log (monitoring.log); none: all."""
    run_days: PositiveInt | None = 30
    """Days that runs stay: on this machine and, where the project is deployed to a cluster, there; none: for ever."""


class Prices(Section):
    """What resources cost, for the run report."""

    cpu_hour: Annotated[float, Field(ge=0)] = 0.04
    """One core for an hour."""
    gib_hour: Annotated[float, Field(ge=0)] = 0.005
    """One GiB of memory for an hour."""
    currency: str = "USD"
