"""The OpenAPI document of the server: what it takes and answers, told with the names and types of the served model."""

from typing import Any
from urllib.parse import quote

import numpy as np

from components.model_spec import ModelInput, ModelOutput, classes_of
from components.predictor import responses
from components.predictor.requests import EXAMPLES, NULL_MARKERS, SIGNATURES, TAKES
from components.predictor.served_model import Facts
from components.predictor.settings import Settings

Json = dict[str, Any]

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_INT64_MAX = int(np.iinfo(np.int64).max)
_NUMBER = {"type": "number", "format": "float"}
_SHAPE = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_JSON, _BYTES = "application/json", "application/octet-stream"
_ERRORS = {
    "400": ("BadRequest", "The request is at fault; the error names row, feature and value."),
    "404": ("NotFound", "There is no such model or version here."),
    "405": ("MethodNotAllowed", "Another method is due; the header Allow names it."),
    "413": ("TooLarge", "The body is larger than max_body_bytes."),
    "415": ("Compressed", "The body is compressed; send it as it is."),
    "503": ("Unavailable", "There is no room for the request, or the server stops; try again after Retry-After."),
}
_FLAG = {"type": "boolean"}
_MOST_KNOWN = 50  # values of a feature that are listed


def document(facts: Facts, settings: Settings) -> bytes:
    """Writes the document, as JSON.

    Args:
        facts: of the served model.
        settings: whose limits hold for requests.
    """
    v1, v2 = f"/v1/models/{quote(facts.name, safe='')}", f"/v2/models/{quote(facts.name, safe='')}"
    version = {"name": "version", "in": "path", "required": True, "schema": {"enum": [facts.version]}}
    predict = _post("predict", "v1", "Predict rows", "PredictRequest", "PredictResponse", _row_bodies(facts))
    explain = _post("explain", "v1", "Explain predictions", "ExplainRequest", "ExplainResponse", _row_bodies(facts))
    paths = {
        f"{v1}:predict": {"post": predict},
        **({f"{v1}:explain": {"post": explain}} if settings.max_explained_rows else {}),
        "/v1/models": {"get": _get("listModelsV1", "v1", "List the model", {"$ref": "#/components/schemas/Models"})},
        v1: {"get": _get("modelStatusV1", "v1", "Tell whether the model is ready", _ready(facts), "503")},
        f"{v2}/infer": {"post": _infer("infer", facts)},
        f"{v2}/versions/{{version}}/infer": {"parameters": [version], "post": _infer("inferVersion", facts, "404")},
        v2: {"get": _get("modelMetadata", "v2", "Describe the model", _metadata(facts))},
        f"{v2}/versions/{{version}}": {
            "parameters": [version],
            "get": _get("versionMetadata", "v2", "Describe the version", _metadata(facts), "404"),
        },
        f"{v2}/ready": {"get": _get("modelReady", "v2", "Tell whether the model is ready", _ready(facts), "503")},
        f"{v2}/versions/{{version}}/ready": {
            "parameters": [version],
            "get": _get("versionReady", "v2", "Tell whether the version is ready", _ready(facts), "404", "503"),
        },
        "/v2/models": {"get": _get("listModels", "v2", "List the model", {"$ref": "#/components/schemas/Models"})},
        "/v2": {
            "get": _get(
                *("serverMetadata", "v2", "Describe the server"),
                _object({"name": _text(), "version": _text(), "extensions": {"type": "array", "items": _text()}}),
            )
        },
        "/v2/health/live": {"get": _get("live", "health", "Tell whether the server runs", _object({"live": _FLAG}))},
        "/v2/health/ready": {
            "get": _get("ready", "health", "Tell whether requests should come", _object({"ready": _FLAG}), "503")
        },
        "/metrics": {"get": _get("metrics", "server", "Metrics for Prometheus", {"type": "string"}, kind="text/plain")},
        "/openapi.json": {"get": _get("openapi", "server", "This document", {"type": "object"})},
    }
    return responses.as_json(
        {
            "openapi": "3.1.0",
            "info": {
                "title": facts.name,
                "version": facts.version,
                "description": f"{_described(facts)}, behind "
                "KServe's protocol v1 and the Open Inference Protocol (v2).",
            },
            "paths": paths,
            "components": {
                "schemas": {
                    **_schemas(facts, settings),
                    **(_explanation_schemas(facts, settings) if settings.max_explained_rows else {}),
                },
                "headers": {"RequestId": {"schema": _text(), "description": "The request's own id, or a new one."}},
                "parameters": {
                    "RequestId": {
                        "name": "x-request-id",
                        "in": "header",
                        "schema": _text(),
                        "description": "Comes back with the answer; up to 128 printable characters.",
                    }
                },
                "responses": {name: _error(code, says) for code, (name, says) in _ERRORS.items()},
            },
        }
    )


def _described(facts: Facts) -> str:
    label = facts.spec.label
    if label.kind == "anomaly_detection":
        return "An anomaly detection model"
    return "A clustering model" if label.kind == "clustering" else f"A {label.kind} model of '{label.name}'"


# ------------------------------------------------------------------------------------------------- operations


def _get(name: str, tag: str, summary: str, schema: Json, *errors: str, kind: str = _JSON) -> Json:
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": {kind: {"schema": schema}}}, **_refused(*errors, "405")},
    }


def _post(name: str, tag: str, summary: str, request: str, response: str, examples: Json) -> Json:
    answered = {
        "description": "OK",
        "headers": {"x-request-id": {"$ref": "#/components/headers/RequestId"}},
        "content": {_JSON: {"schema": {"$ref": f"#/components/schemas/{response}"}}},
    }
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "parameters": [{"$ref": "#/components/parameters/RequestId"}],
        "requestBody": {
            "required": True,
            "content": {_JSON: {"schema": {"$ref": f"#/components/schemas/{request}"}, "examples": examples}},
        },
        "responses": {"200": answered, **_refused("400", "405", "413", "415", "503")},
    }


def _infer(name: str, facts: Facts, *errors: str) -> Json:
    operation = _post(
        name, "v2", "Predict columns", "InferRequest", "InferResponse", {"typical": {"value": _columns(facts)}}
    )
    length = {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "schema": {"type": "integer", "minimum": 0},
        "description": "Of the binary extension: how many bytes are JSON; the tensors' bytes follow.",
    }
    operation["parameters"].append(length)
    binary = {"schema": {"type": "string", "format": "binary"}}
    operation["requestBody"]["content"][_BYTES] = binary
    operation["responses"]["200"]["content"][_BYTES] = binary
    operation["responses"] |= _refused(*errors)
    return operation


def _refused(*codes: str) -> Json:
    return {code: {"$ref": f"#/components/responses/{_ERRORS[code][0]}"} for code in codes}


def _error(code: str, says: str) -> Json:
    header = {"405": "Allow", "503": "Retry-After"}.get(code)
    return {
        "description": says,
        **({"headers": {header: {"schema": _text()}}} if header else {}),
        "content": {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
    }


# --------------------------------------------------------------------------------------------------- examples


def _row_bodies(facts: Facts) -> Json:
    return {"typical": {"summary": "A row with typical values", "value": {"instances": [facts.example]}}}


def _columns(facts: Facts) -> Json:
    tensors = responses.tensor_metadata(facts)["inputs"]
    given = [tensor for tensor in tensors if tensor["name"] in facts.example]
    return {"inputs": [{**tensor, "shape": [1], "data": [facts.example[tensor["name"]]]} for tensor in given]}


# ---------------------------------------------------------------------------------------------------- schemas


def _schemas(facts: Facts, settings: Settings) -> Json:
    inputs, outputs = facts.spec.inputs, facts.outputs
    tensors = [*(_tensor(i, facts) for i in inputs), *map(_key_tensor, facts.keys), _EXAMPLES_TENSOR]
    return {
        "Row": {
            "type": "object",
            "description": "A feature that is null or not named is missing.",
            "properties": {**{i.name: _feature(i, facts) for i in inputs}, **dict.fromkeys(facts.keys, _KEY)},
            "required": [i.name for i in inputs if i.required],
            "additionalProperties": False,
        },
        "Example": _object({"b64": _base64("A serialized tf.Example, in base64.")}, closed=True),
        "PredictRequest": _instances(settings.max_rows),
        "Prediction": _object({output.name: _output(output, facts) for output in outputs}),
        "PredictResponse": _object({"predictions": _list({"$ref": "#/components/schemas/Prediction"})}),
        "InferRequest": {
            "type": "object",
            "properties": {
                "id": {"type": "string", "maxLength": 256},
                "inputs": {
                    "description": "A feature without a tensor is missing in all rows.",
                    **_list({"oneOf": tensors}, 1),
                },
                "outputs": {
                    "description": "The wanted outputs; without any, all come.",
                    **_list(
                        {
                            "type": "object",
                            "properties": {
                                "name": {"enum": [output.name for output in outputs]},
                                "parameters": {"type": "object", "properties": {"binary_data": _FLAG}},
                            },
                            "required": ["name"],
                        }
                    ),
                },
                "parameters": {
                    "type": "object",
                    "properties": {
                        NULL_MARKERS: {
                            "description": "In bytes, NaN, the smallest int64 and an empty text are missing values.",
                            **_FLAG,
                        },
                        "binary_data_output": {"description": "Answer in the binary extension.", **_FLAG},
                    },
                },
            },
            "required": ["inputs"],
        },
        "InferResponse": _object(
            {
                "model_name": {"const": facts.name},
                "model_version": {"const": facts.version},
                "id": _text(),
                "outputs": _list({"$ref": "#/components/schemas/OutputTensor"}),
            }
        ),
        "OutputTensor": _object(
            {
                "name": {"enum": [output.name for output in outputs]},
                "datatype": {"enum": ["BYTES", "FP32"]},
                "shape": _SHAPE,
                "data": _list({"type": ["number", "string"]}),
            }
        ),
        "Models": _object({"models": _list({"const": facts.name})}),
        "Error": _object({"error": {"type": "string", "minLength": 1}}),
    }


_KEY = {
    "type": ["string", "integer", "null"],
    "description": "Identifies the row, and is no feature: the request log keeps it.",
}


def _key_tensor(name: str) -> Json:
    return {
        "type": "object",
        "description": _KEY["description"],
        "properties": {
            "name": {"const": name},
            "datatype": {"enum": ["BYTES", "INT64"]},
            "shape": _SHAPE,
            "data": {"type": "array", "items": {"type": _KEY["type"]}},
        },
        "required": ["name", "datatype", "shape"],
    }


_EXAMPLES_TENSOR = {
    "type": "object",
    "description": "Serialized tf.Examples, in base64, instead of all others.",
    "properties": {
        "name": {"const": EXAMPLES},
        "datatype": {"const": "BYTES"},
        "shape": _SHAPE,
        "data": {"type": "array", "items": {"type": "string", "contentEncoding": "base64"}},
    },
    "required": ["name", "datatype", "shape"],
}


def _explanation_schemas(facts: Facts, settings: Settings) -> Json:
    types = {"string": "string", "int64": "integer", "float32": "number"}
    return {
        "ExplainRequest": _instances(settings.max_explained_rows),
        "Explanation": _object(
            {
                "prediction": {"$ref": "#/components/schemas/Prediction"},
                "output": {"enum": [output.name for output in facts.outputs]},
                "class": _text(),
                "cluster": _text(),
                "value": _NUMBER,
                "reference": _NUMBER,
                "contributions": _object({i.name: _NUMBER for i in facts.spec.inputs}),
                "exact": _FLAG,
            },
            optional=("class", "cluster"),
        ),
        "ExplainResponse": _object(
            {
                "explanations": _list({"$ref": "#/components/schemas/Explanation"}),
                "reference": _object({i.name: {"type": [types[i.dtype], "null"]} for i in facts.spec.inputs}),
            }
        ),
    }


def _instances(most: int) -> Json:
    either = [_list({"$ref": f"#/components/schemas/{name}"}, 1, most) for name in ("Row", "Example")]
    return {
        "type": "object",
        "properties": {"instances": {"anyOf": either}, "signature_name": {"enum": [*SIGNATURES]}},
        "required": ["instances"],
        "additionalProperties": False,
    }


def _feature(i: ModelInput, facts: Facts) -> Json:
    """A value of a row: any of its type, the known ones by name."""
    known = sorted(facts.vocabularies.get(i.name, ()))
    kinds: list[Json] = []
    if known and len(known) <= _MOST_KNOWN and i.dtype == "string":
        kinds.append({"enum": known, "description": "Values that the model knows; others are taken, too."})
    kinds.append(_value(i))
    if i.dtype == "string":
        kinds.append(_object({"b64": _base64("UTF-8 text, in base64.")}, closed=True))
    if not i.required:
        kinds.append({"type": "null"})
    described = {"examples": [facts.example[i.name]]} if i.name in facts.example else {}
    return {**(kinds[0] if len(kinds) == 1 else {"anyOf": kinds}), **described}


def _value(i: ModelInput) -> Json:
    if i.dtype == "string":
        return {"type": "string", "minLength": 1} if i.required else {"type": "string"}
    if i.dtype == "int64":
        # The smallest int64 stands for a missing value.
        return {"type": "integer", "format": "int64", "minimum": -_INT64_MAX, "maximum": _INT64_MAX}
    return {**_NUMBER, "minimum": -_FLOAT32_MAX, "maximum": _FLOAT32_MAX}


def _tensor(i: ModelInput, facts: Facts) -> Json:
    value = _feature(i, facts)
    return {
        "type": "object",
        "properties": {
            "name": {"const": i.name},
            "datatype": {"enum": sorted(TAKES[i.dtype])},
            "shape": {"description": "[rows], or [rows, 1].", **_SHAPE, "minItems": 1, "maxItems": 2},
            "data": {"type": "array", "items": {"anyOf": [value, {"type": "array", "items": value}]}},
            "parameters": {
                "type": "object",
                "properties": {"binary_data_size": {"type": "integer", "minimum": 0}},
            },
        },
        "required": ["name", "datatype", "shape"],
    }


def _output(output: ModelOutput, facts: Facts) -> Json:
    one = {"enum": classes_of(facts.spec)} if output.dtype == "string" else _NUMBER
    return one if output.width is None else _list(one, output.width, output.width)


def _metadata(facts: Facts) -> Json:
    tensors = _list(_object({"name": _text(), "datatype": _text(), "shape": _list({"type": "integer"})}))
    return _object(
        {
            "name": {"const": facts.name},
            "versions": _list({"const": facts.version}),
            "platform": _text(),
            "inputs": tensors,
            "outputs": tensors,
            "properties": {"type": "object"},
        }
    )


def _ready(facts: Facts) -> Json:
    return _object({"name": {"const": facts.name}, "ready": {"const": True}})


def _object(properties: Json, optional: tuple[str, ...] = (), closed: bool = False) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        **({"additionalProperties": False} if closed else {}),
    }


def _list(items: Json, least: int | None = None, most: int | None = None) -> Json:
    limits = {name: limit for name, limit in (("minItems", least), ("maxItems", most)) if limit is not None}
    return {"type": "array", "items": items, **limits}


def _text() -> Json:
    return {"type": "string"}


def _base64(description: str) -> Json:
    return {"type": "string", "contentEncoding": "base64", "description": description}
