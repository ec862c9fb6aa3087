"""What monitoring reads of pipeline.yaml."""

from dataclasses import dataclass
from typing import Any, Self

from components.settings import Data, Evaluation, Monitoring, Publication, Task, Validation

Json = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """The sections of pipeline.yaml that monitoring reads."""

    monitoring: Monitoring
    data: Data
    task: Task
    validation: Validation
    evaluation: Evaluation
    publication: Publication

    @classmethod
    def read(
        cls, monitoring: Json, data: Json, task: Json, validation: Json, evaluation: Json, publication: Json
    ) -> Self:
        """Reads them back from arguments of a pipeline."""
        return cls(
            Monitoring.model_validate(monitoring),
            Data.model_validate(data),
            Task.model_validate(task),
            Validation.model_validate(validation),
            Evaluation.model_validate(evaluation),
            Publication.model_validate(publication),
        )
