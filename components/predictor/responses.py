"""Answers, as each protocol spells them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from components.model_spec import DATATYPES, ModelOutput, classes_of
from components.predictor.explanation import Explanation
from components.predictor.faults import RequestError, hint
from components.predictor.served_model import Facts
from components.rows import Arrays

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY
_MAX_CHOICES = 200  # of a feature, in the metadata


def as_json(value: Any) -> bytes:
    """Spells a value as JSON; float32 in the fewest digits that give the same float32 again."""
    return orjson.dumps(value, option=_OPTIONS)


def rows_of(outputs: Arrays, specs: Sequence[ModelOutput]) -> bytes:
    """Protocol v1: {"predictions": [{output: value, …}, …]}."""
    return as_json({"predictions": as_rows(outputs, specs)})


def explanations_of(explanations: Sequence[Explanation], facts: Facts) -> bytes:
    """Protocol v1: {"explanations": [{"prediction": {output: value, …}, …, "contributions": {feature: number, …}}, …]}.

    The reference row is beside them, with a null for each missing value.
    """
    named = "cluster" if facts.spec.label.kind == "clustering" else "class"
    listed = [
        {
            "prediction": as_rows(explanation.outputs, facts.outputs)[0],
            "output": explanation.output,
            **({} if explanation.class_name is None else {named: explanation.class_name}),
            "value": np.float32(explanation.value),
            "reference": np.float32(explanation.reference),
            "contributions": {name: np.float32(share) for name, share in explanation.contributions.items()},
            "exact": explanation.exact,
        }
        for explanation in explanations
    ]
    return as_json(
        {"explanations": listed, "reference": {i.name: facts.example.get(i.name) for i in facts.spec.inputs}}
    )


def columns_of(outputs: Arrays, specs: Sequence[ModelOutput], facts: Facts, request_id: str) -> bytes:
    """Open Inference Protocol: named tensors."""
    tensors = []
    for output in specs:
        values = outputs[output.name]
        data = _texts(values) if output.dtype == "string" else np.ascontiguousarray(values).reshape(-1)
        tensors.append({"name": output.name, "shape": values.shape, "datatype": DATATYPES[output.dtype], "data": data})
    return as_json({"model_name": facts.name, "model_version": facts.version, "id": request_id, "outputs": tensors})


def binary_columns_of(
    outputs: Arrays, specs: Sequence[ModelOutput], facts: Facts, request_id: str
) -> tuple[bytes, int]:
    """Open Inference Protocol with its binary extension: JSON, then the tensors' bytes; also the JSON's length."""
    tensors = []
    parts = []
    for output in specs:
        parts.append(raw(outputs[output.name], output))
        tensors.append(
            {
                "name": output.name,
                "shape": outputs[output.name].shape,
                "datatype": DATATYPES[output.dtype],
                "parameters": {"binary_data_size": len(parts[-1])},
            }
        )
    head = as_json({"model_name": facts.name, "model_version": facts.version, "id": request_id, "outputs": tensors})
    return b"".join([head, *parts]), len(head)


def raw(values: Any, output: ModelOutput) -> bytes:
    """Spells an output in the binary form: little-endian values; a text after its length in 4 bytes."""
    if output.dtype == "string":
        return b"".join(len(value).to_bytes(4, "little") + value for value in values.tolist())
    return bytes(np.ascontiguousarray(values, "<f4").tobytes())


def chosen(wanted: Sequence[str], facts: Facts) -> list[ModelOutput]:
    """Finds the outputs that a request names, all if none.

    Raises:
        RequestError: there is no such output.
    """
    if not wanted:
        return facts.outputs
    known = {output.name: output for output in facts.outputs}
    for name in wanted:
        if name not in known:
            raise RequestError(f"unknown output '{name[:60]}'; {hint(name, known)}")
    return [known[name] for name in dict.fromkeys(wanted)]


def refuse_unspeakable(outputs: Arrays, specs: Sequence[ModelOutput]) -> None:
    """Raises: RequestError: a prediction is not finite, which predict_batch rejects, too."""
    for output in specs:
        if output.dtype == "float32":
            finite = np.isfinite(outputs[output.name])
            if not finite.all():
                row = int(finite.reshape(len(finite), -1).all(1).argmin())
                raise RequestError(f"row {row}: the model gives no finite {output.name} for it; check its values")


def tensor_metadata(facts: Facts) -> dict[str, list[dict[str, Any]]]:
    """Describes inputs and outputs as the Open Inference Protocol does."""
    return {
        "inputs": [{"name": i.name, "datatype": DATATYPES[i.dtype], "shape": [-1]} for i in facts.spec.inputs],
        "outputs": [
            {
                "name": output.name,
                "datatype": DATATYPES[output.dtype],
                "shape": [-1] if output.width is None else [-1, output.width],
            }
            for output in facts.outputs
        ],
    }


def model_metadata(facts: Facts) -> bytes:
    """Describes the model; `properties` holds what the protocol has no place for."""
    described = tensor_metadata(facts)
    properties: dict[str, Any] = {
        "task": facts.spec.label.kind,
        "label": facts.spec.label.name,
        "required": [i.name for i in facts.spec.inputs if i.required],
        "choices": {name: sorted(values) for name, values in facts.vocabularies.items() if len(values) <= _MAX_CHOICES},
        "example": facts.example,
    }
    if classes := classes_of(facts.spec):
        properties["classes"] = classes
    if facts.threshold is not None:
        properties["threshold"] = facts.threshold
    return as_json(
        {
            "name": facts.name,
            "versions": [facts.version],
            "platform": "tensorflow_savedmodel",
            **described,
            "properties": properties,
        }
    )


def as_rows(outputs: Arrays, specs: Sequence[ModelOutput]) -> list[dict[str, Any]]:
    """Gives the outputs row by row; numbers as numpy has them, for as_json."""
    names = [output.name for output in specs]
    columns = [_listed(outputs[output.name], output) for output in specs]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _listed(values: Any, output: ModelOutput) -> list[Any]:
    return _texts(values) if output.dtype == "string" else list(values)


def _texts(values: Any) -> list[str]:
    return [value.decode(errors="replace") for value in values.tolist()]
