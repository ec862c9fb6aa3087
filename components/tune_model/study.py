"""Trials that are kept, so that a run that goes on, or is started again, does not repeat them."""

import hashlib
import importlib.metadata
import json
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np

from components import storage
from components.artifacts import write_whole
from components.json_files import parse_record
from components.models.examples import Matrix
from components.settings import Model
from components.tune_model.comparison import Comparison
from components.tune_model.records import Experiment, TrialResult
from components.tune_model.trial import is_lagging

_COMPONENTS = Path(__file__).parent.parent


class Study:
    """A folder with two files a trial: what it predicted, and, written last, its result.

    Use it as a context manager.
    """

    def __init__(self, uri: str, experiment: Experiment, comparison: Comparison) -> None:
        """Args: uri: under which studies are kept, by what decides them; empty: this one is forgotten at its end."""
        self._uri = f"{uri.rstrip('/')}/{_key(experiment, comparison)}" if uri else ""
        self._is_random = experiment.tuning.sampler == "random"
        self._temporary = tempfile.TemporaryDirectory()
        self._folder = Path(self._temporary.name)

    def __enter__(self) -> "Study":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._temporary.cleanup()

    def find(self, model: Model, limits: dict[int, float]) -> TrialResult | None:
        """Finds a trial of a model.

        One that was given up counts if it would be again; of a random search always, as those that it lagged behind may
        have been tried elsewhere.
        """
        name = _name(model)
        if not self._fetch(f"{name}.json"):
            return None
        path = self._folder / f"{name}.json"
        result = parse_record(TrialResult, path.read_bytes(), f"{self._uri}/{path.name}", "remove it, then run again")
        if result.state == "pruned":
            return result if self._is_random or is_lagging(result.curves[0], limits) else None
        return result if self._fetch(f"{name}.npy") else None

    def keep(self, result: TrialResult, predictions: Matrix | None) -> None:
        """Keeps a trial, unless it failed: another time it may not."""
        name = _name(result.model)
        if predictions is not None:
            np.save(self._folder / f"{name}.npy", predictions)
            self._put(f"{name}.npy")
        write_whole(self._folder / f"{name}.json", result.model_dump_json(indent=1))
        if result.state != "failed":
            self._put(f"{name}.json")

    def predictions(self, model: Model) -> Matrix:
        """Gives what a complete trial of a model predicted."""
        predictions: Matrix = np.load(self._folder / f"{_name(model)}.npy", allow_pickle=False)
        return predictions

    def _fetch(self, name: str) -> bool:
        if (self._folder / name).is_file():
            return True
        if not self._uri:
            return False
        uri = f"{self._uri}/{name}"
        fs, path = storage.filesystem(uri)
        with storage.reaching(uri):
            if not fs.exists(path):
                return False
            fs.get_file(path, str(self._folder / name))
        return True

    def _put(self, name: str) -> None:
        if not self._uri:
            return
        uri = f"{self._uri}/{name}"
        fs, path = storage.filesystem(uri)
        with storage.reaching(uri):
            if storage.is_remote(uri):
                fs.put_file(str(self._folder / name), path)
            else:
                write_whole(path, (self._folder / name).read_bytes())


def _name(model: Model) -> str:
    return f"{model.kind}-{hashlib.sha256(model.model_dump_json().encode()).hexdigest()[:16]}"


def _key(experiment: Experiment, comparison: Comparison) -> str:
    """Names what decides how a model fares: the rows and their division, the settings, the code, the libraries."""
    digest = hashlib.sha256()
    examples = comparison.examples
    folds = [part for fold in comparison.folds for part in (fold.learned, fold.held_out, fold.compared)]
    for matrix in (examples.numbers, examples.categories, examples.labels, *folds):
        digest.update(f"{matrix.shape}".encode() + np.ascontiguousarray(matrix).tobytes())
    for file in (*sorted((_COMPONENTS / "models").glob("*.py")), Path(__file__).with_name("trial.py")):
        digest.update(file.read_bytes())
    libraries = {one.metadata["Name"]: one.version for one in importlib.metadata.distributions()}
    facts = [
        comparison.spec.model_dump(mode="json"),
        experiment.task.model_dump(mode="json"),
        experiment.training.model_dump(mode="json"),
        experiment.user_module,
        libraries,
    ]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    return digest.hexdigest()[:16]
