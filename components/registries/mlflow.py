"""MLflow: a version of the store is a model version, with a run that holds its metrics and parameters.

API: https://mlflow.org/docs/latest/rest-api.html. A version is found by the tag lockgate.version, so that exporting it
again finds what is there. Why no client of MLflow's: docs/adr/0011-registries-by-their-rest-interfaces.md.
"""

from collections.abc import Mapping
from typing import Any

from components.errors import InputError
from components.registries.entry import PREFIX, Entry, Exported
from components.registries.rest import Json, Rest

VARIABLES = "MLFLOW_TRACKING"
"""As MLflow's own client has them: MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."""
PRODUCTION = "production"
"""The alias of the version in production."""
_API = "/api/2.0/mlflow"
_VERSION = f"{PREFIX}version"
_MOST_PARAMETERS = 100
"""That one request may log."""


class MlflowRegistry:
    """The models of an MLflow server."""

    def __init__(self, url: str) -> None:
        """Names the server; InputError: the URL or the credentials are wrong."""
        self._rest = Rest(url, "MLflow", VARIABLES)

    def export(self, entry: Entry, production: str | None) -> Exported:
        """Brings a version, and which one is in production, to where they should be.

        Args:
            entry: the version.
            production: the store's version in production; None: there is none.

        Raises:
            InputError: the server refuses, or is something else.
            UnavailableError: it does not answer.
        """
        changes: list[str] = []
        with self._rest.understanding():
            model = self._model(entry, changes)
            found = self._find(entry.name, entry.version)
            if found is None:
                found = self._create(entry, changes)
            self._update_tags(entry, found, changes)
            self._update_alias(entry, model, production, changes)
            return Exported(f"{self._rest.url}/#/models/{entry.name}/versions/{found['version']}", changes)

    def _model(self, entry: Entry, changes: list[str]) -> Json:
        found = self._rest.get(f"{_API}/registered-models/get", {"name": entry.name})
        if found is None:
            body = {
                "name": entry.name,
                "description": entry.description,
                "tags": _tags({f"{PREFIX}owner": entry.owner}),
            }
            found = self._post("registered-models/create", body)
            changes.append(f"model {entry.name} made")
        return dict(found["registered_model"])

    def _find(self, name: str, version: str) -> Json | None:
        """Finds the version of MLflow that stands for one of the store."""
        wanted = f"name = '{name}' AND tag.`{_VERSION}` = '{version}'"
        found = self._rest.get(f"{_API}/model-versions/search", {"filter": wanted, "max_results": 1})
        versions = (found or {}).get("model_versions", [])
        return dict(versions[0]) if versions else None

    def _create(self, entry: Entry, changes: list[str]) -> Json:
        run = self._run(entry)
        body = {
            "name": entry.name,
            "source": _source(entry),
            "run_id": run,
            "description": entry.description,
            "tags": _tags(_version_tags(entry)),
        }
        changes.append(f"version {entry.version} made, with run {run}")
        return dict(self._post("model-versions/create", body)["model_version"])

    def _run(self, entry: Entry) -> str:
        """Makes the run with metrics and parameters; one that an interrupted export has left is gone on with."""
        experiment = self._experiment(entry.name)
        wanted = {
            "experiment_ids": [experiment],
            "filter": f"tags.`{_VERSION}` = '{entry.version}'",
            "max_results": 1,
        }
        moment = int(entry.created.timestamp() * 1000)
        if runs := self._post("runs/search", wanted).get("runs"):
            info = runs[0]["info"]
        else:
            body = {
                "experiment_id": experiment,
                "run_name": entry.version,
                "start_time": moment,
                "tags": _tags(_version_tags(entry)),
            }
            info = self._post("runs/create", body)["run"]["info"]
        run = str(info["run_id"])
        if info["status"] != "FINISHED":
            metrics = [
                {"key": name, "value": value, "timestamp": moment, "step": 0} for name, value in entry.metrics.items()
            ]
            self._post("runs/log-batch", {"run_id": run, "metrics": metrics})
            parameters = _tags(entry.parameters)
            for start in range(0, len(parameters), _MOST_PARAMETERS):
                part = parameters[start : start + _MOST_PARAMETERS]
                self._post("runs/log-batch", {"run_id": run, "params": part})
            self._post("runs/update", {"run_id": run, "status": "FINISHED", "end_time": moment})
        return run

    def _experiment(self, name: str) -> str:
        found = self._rest.get(f"{_API}/experiments/get-by-name", {"experiment_name": name})
        if found is None:
            return str(self._post("experiments/create", {"name": name})["experiment_id"])
        experiment = found["experiment"]
        if experiment["lifecycle_stage"] != "active":
            raise InputError(
                f"MLflow's experiment '{name}' was deleted; restore it (mlflow experiments restore), or purge it"
            )
        return str(experiment["experiment_id"])

    def _update_tags(self, entry: Entry, found: Json, changes: list[str]) -> None:
        there = {tag["key"]: tag["value"] for tag in found.get("tags", [])}
        for key, value in _version_tags(entry).items():
            if there.get(key) != value:
                self._post(
                    "model-versions/set-tag",
                    {"name": entry.name, "version": found["version"], "key": key, "value": value},
                )
                changes.append(f"tag {key}: {value}")

    def _update_alias(self, entry: Entry, model: Json, production: str | None, changes: list[str]) -> None:
        aliases = {one["alias"]: one["version"] for one in model.get("aliases", [])}
        there = aliases.get(PRODUCTION)
        wanted = self._find(entry.name, production) if production else None
        if wanted is not None and wanted["version"] != there:
            body = {"name": entry.name, "alias": PRODUCTION, "version": wanted["version"]}
            self._post("registered-models/alias", body)
            changes.append(f"alias {PRODUCTION}: {production}")
        elif wanted is None and there is not None:
            self._rest.send("DELETE", f"{_API}/registered-models/alias", {"name": entry.name, "alias": PRODUCTION})
            changes.append(f"alias {PRODUCTION} taken away, as {production or 'nothing'} is in production and not here")

    def _post(self, path: str, body: Mapping[str, Any]) -> Json:
        return self._rest.send("POST", f"{_API}/{path}", body)


def _source(entry: Entry) -> str:
    """Names the version where it is a file of this machine: MLflow takes no path outside its own folders."""
    return f"lockgate://{entry.name}/{entry.version}" if entry.uri.startswith("file:") else entry.uri


def _version_tags(entry: Entry) -> dict[str, str]:
    lineage = {f"{PREFIX}{name}": value for name, value in entry.lineage.items()}
    return {
        _VERSION: entry.version,
        f"{PREFIX}uri": entry.uri,
        **lineage,
        f"{PREFIX}retired": str(entry.retired).lower(),
    }


def _tags(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": name, "value": value} for name, value in values.items() if value]
