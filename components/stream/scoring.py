"""What predicts: the model in the stream's own process, or a model server."""

import re
from typing import Any, Protocol

import numpy as np
import orjson
import urllib3

from components.errors import InputError, UnavailableError
from components.model_spec import DATATYPES, ModelInput, ModelOutput
from components.predictor.faults import RowError
from components.predictor.served_model import Facts, ServedModel
from components.reasons import Reasoner
from components.rows import Arrays, marker
from components.typical_row import arrays_of

_ROW = re.compile(r"row (\d+)(?:, |: )(.*)", re.DOTALL)
_DTYPES: dict[str, Any] = {datatype: dtype for dtype, datatype in DATATYPES.items()}


class Scorer(Protocol):
    """A model, wherever it runs."""

    name: str
    version: str
    """Of the model that answered last."""
    inputs: list[ModelInput]
    outputs: list[ModelOutput]
    threshold: float | None

    def predict(self, arrays: Arrays) -> Arrays:
        """Predicts rows.

        Args:
            arrays: by the names of `inputs`, [rows], with the markers of rows.py.

        Raises:
            RowError: a row is refused; without it, the others may be predicted.
            UnavailableError: nobody answers.
        """
        ...

    def reasons(self, arrays: Arrays) -> list[Any]:
        """Gives the reasons for the predictions of some rows."""
        ...


class LocalScorer:
    """A model in this process."""

    def __init__(self, facts: Facts, threads: int = 1, reasons: int = 0) -> None:
        """Loads it, and warms it up.

        Args:
            facts: of the model.
            threads: inside one operation of TensorFlow.
            reasons: that a decision gives.

        Raises:
            InputError: the model is damaged.
        """
        self._model = ServedModel(facts, threads)
        self.name, self.version = facts.name, facts.version
        self.inputs, self.outputs, self.threshold = facts.spec.inputs, facts.outputs, facts.threshold
        reference = arrays_of([facts.example], facts.spec.inputs)
        self._reasoner = Reasoner(facts.spec, self._model.predict, reference, reasons) if reasons else None

    def predict(self, arrays: Arrays) -> Arrays:
        """As Scorer says."""
        try:
            return self._model.predict(arrays)
        except Exception as error:
            rows = len(next(iter(arrays.values())))
            if rows == 1:
                if not self._model.is_input_error(error):
                    raise
                says = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
                raise RowError(0, f"the model refuses the row: {says}") from error
        # One row at fault must not fail the others: which one it is, halves tell.
        return self._halves(arrays, rows)

    def _halves(self, arrays: Arrays, rows: int) -> Arrays:
        half = rows // 2
        parts = []
        for start, end in ((0, half), (half, rows)):
            try:
                parts.append(self.predict({name: values[start:end] for name, values in arrays.items()}))
            except RowError as error:
                raise RowError(start + error.row, error.says) from error
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def reasons(self, arrays: Arrays) -> list[Any]:
        """As Scorer says."""
        return self._reasoner.reasons(arrays).to_pylist() if self._reasoner else []


class EndpointScorer:
    """A model server that speaks the Open Inference Protocol."""

    def __init__(self, url: str, seconds: float) -> None:
        """Asks it what it serves.

        Args:
            url: up to and with /v2/models/NAME.
            seconds: that a call may take.

        Raises:
            InputError: it is no such server, or has no such model.
            UnavailableError: nobody answers.
        """
        self._url = url.rstrip("/")
        self._http = urllib3.PoolManager(maxsize=1, timeout=seconds, retries=False)
        told = self._ask("GET", "", None)
        properties = told.get("properties", {})
        required = set(properties.get("required", []))
        self.name = str(told["name"])
        self.version = ", ".join(told.get("versions") or ["unknown"])
        self.threshold: float | None = properties.get("threshold")
        self.inputs = [
            ModelInput(name=i["name"], tensor=i["name"], dtype=self._dtype(i), required=i["name"] in required)
            for i in told["inputs"]
        ]
        self.outputs = [
            ModelOutput(name=o["name"], dtype=self._dtype(o), width=o["shape"][1] if len(o["shape"]) > 1 else None)
            for o in told["outputs"]
        ]

    def predict(self, arrays: Arrays) -> Arrays:
        """As Scorer says."""
        inputs = [
            {"name": i.name, "datatype": DATATYPES[i.dtype], "shape": [len(arrays[i.name])], "data": _listed(i, arrays)}
            for i in self.inputs
        ]
        answer = self._ask("POST", "/infer", orjson.dumps({"inputs": inputs}))
        self.version = answer.get("model_version") or self.version
        tensors = {tensor["name"]: tensor for tensor in answer["outputs"]}
        return {output.name: _array(output, tensors[output.name]) for output in self.outputs}

    def reasons(self, arrays: Arrays) -> list[Any]:
        """Gives none: the settings refuse reasons together with an endpoint."""
        return []

    def _dtype(self, tensor: Any) -> Any:
        if tensor["datatype"] not in _DTYPES:
            raise InputError(
                f"endpoint '{self._url}': tensor '{tensor['name']}' is {tensor['datatype']}; give a server with "
                f"{', '.join(_DTYPES)} only, such as Lockgate's"
            )
        return _DTYPES[tensor["datatype"]]

    def _ask(self, method: str, path: str, body: bytes | None) -> Any:
        try:
            answer = self._http.request(method, self._url + path, body=body)
        except urllib3.exceptions.HTTPError as error:
            raise UnavailableError(f"endpoint '{self._url}' does not answer: {error}; check that it runs") from error
        said = answer.data[:300].decode(errors="replace")
        if answer.status == 400 and body is not None:
            row = _ROW.match(_error(answer.data))
            if row:
                raise RowError(int(row[1]), row[2])
        if answer.status in (408, 425, 429) or answer.status >= 500:
            raise UnavailableError(f"endpoint '{self._url}' answers {answer.status}: {said}")
        if answer.status != 200:
            raise InputError(f"endpoint '{self._url}' answers {answer.status}: {said}; check stream.endpoint")
        try:
            return orjson.loads(answer.data)
        except orjson.JSONDecodeError as error:
            raise InputError(f"endpoint '{self._url}' answers no JSON: {said}; check stream.endpoint") from error


def _error(body: bytes) -> str:
    try:
        return str(orjson.loads(body)["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""


def _listed(i: ModelInput, arrays: Arrays) -> list[Any]:
    values = arrays[i.name].tolist()
    if i.dtype == "float32":
        return [None if value != value else value for value in values]
    missing = marker(i.dtype)
    if i.dtype == "string":
        return [None if value == missing else value.decode() for value in values]
    return [None if value == missing else value for value in values]


def _array(output: ModelOutput, tensor: Any) -> np.ndarray[Any, Any]:
    if output.dtype == "string":
        made = np.empty(len(tensor["data"]), object)
        made[:] = [value.encode() for value in tensor["data"]]
        return made
    return np.array(tensor["data"], np.float32).reshape(tensor["shape"])
