"""Kubeflow's Model Registry: a version of the store is a model version with a model artifact.

API: v1alpha3, https://www.kubeflow.org/docs/components/model-registry/reference/rest-api/. Names find what is there, so
that exporting again changes nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from components.registries.entry import PREFIX, Entry, Exported
from components.registries.rest import Json, Rest

VARIABLES = "LOCKGATE_MODEL_REGISTRY"
STAGE = f"{PREFIX}stage"
"""The property that says `production` of one version."""
_API = "/api/model_registry/v1alpha3"
_PAGE = 100


class KubeflowRegistry:
    """The models of a Model Registry of Kubeflow."""

    def __init__(self, url: str) -> None:
        """Names the server; InputError: the URL or the credentials are wrong."""
        self._rest = Rest(url, "Kubeflow's Model Registry", VARIABLES)

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
            version = self._version(entry, model, production, changes)
            self._artifact(entry, version, changes)
            self._move_stage(model, production, changes)
        return Exported(f"{self._rest.url}{_API}/model_versions/{version}", changes)

    def _model(self, entry: Entry, changes: list[str]) -> str:
        found = self._get("registered_model", name=entry.name)
        if found is None:
            body = {"name": entry.name, "description": entry.description, "owner": entry.owner, "state": "LIVE"}
            found = self._rest.send("POST", f"{_API}/registered_models", _filled(body))
            changes.append(f"model {entry.name} made")
        return str(found["id"])

    def _version(self, entry: Entry, model: str, production: str | None, changes: list[str]) -> str:
        properties = _properties(entry, entry.version == production)
        state = "ARCHIVED" if entry.retired else "LIVE"
        found = self._get("model_version", name=entry.version, parentResourceId=model)
        if found is None:
            body = {
                "name": entry.version,
                "registeredModelId": model,
                "description": entry.description,
                "author": entry.owner,
                "state": state,
                "customProperties": properties,
            }
            found = self._rest.send("POST", f"{_API}/model_versions", _filled(body))
            changes.append(f"version {entry.version} made")
        # Properties of others stay as they are.
        there = found.get("customProperties", {})
        if found.get("state") != state or any(there.get(name) != value for name, value in properties.items()):
            self._change(str(found["id"]), {"state": state, "customProperties": {**there, **properties}})
            changes.append(f"version {entry.version} brought up to date")
        return str(found["id"])

    def _artifact(self, entry: Entry, version: str, changes: list[str]) -> None:
        wanted = {
            "artifactType": "model-artifact",
            "name": f"{entry.name}-{entry.version}",
            "uri": f"{entry.uri}/model",
            "modelFormatName": "tensorflow",
            "modelFormatVersion": "2",
            "modelSourceKind": "lockgate",
            "modelSourceName": entry.lineage.get("run", ""),
            "state": "DELETED" if entry.retired else "LIVE",
        }
        path = f"model_versions/{version}/artifacts"
        for there in self._items(path):
            if there.get("name") == wanted["name"]:
                changed = {key: value for key, value in _filled(wanted).items() if there.get(key) != value}
                if changed:
                    body = {"artifactType": "model-artifact", **changed}
                    self._rest.send("PATCH", f"{_API}/model_artifacts/{there['id']}", body)
                    changes.append(f"artifact of {entry.version} brought up to date")
                return
        self._rest.send("POST", f"{_API}/{path}", _filled(wanted))
        changes.append(f"artifact of {entry.version} made")

    def _move_stage(self, model: str, production: str | None, changes: list[str]) -> None:
        for there in self._items(f"registered_models/{model}/versions"):
            properties = there.get("customProperties", {})
            if STAGE not in properties:
                continue  # not ours
            wanted = _text("production" if there["name"] == production else "none")
            if properties[STAGE] != wanted:
                self._change(str(there["id"]), {"customProperties": {**properties, STAGE: wanted}})
                changes.append(f"{STAGE} of {there['name']}: {wanted['string_value']}")

    def _change(self, version: str, body: Mapping[str, Any]) -> None:
        self._rest.send("PATCH", f"{_API}/model_versions/{version}", body)

    def _items(self, path: str) -> Iterator[Json]:
        token = ""
        while True:
            page = self._get(path, pageSize=_PAGE, **({"nextPageToken": token} if token else {})) or {}
            yield from page.get("items") or []
            token = page.get("nextPageToken", "")
            if not token:
                return

    def _get(self, path: str, **parameters: str | int) -> Json | None:
        return self._rest.get(f"{_API}/{path}", parameters)


def _properties(entry: Entry, in_production: bool) -> Json:
    return {
        f"{PREFIX}uri": _text(entry.uri),
        STAGE: _text("production" if in_production else "none"),
        **{f"{PREFIX}{name}": _text(value) for name, value in entry.lineage.items()},
        **{f"parameter.{name}": _text(value) for name, value in entry.parameters.items()},
        **{
            f"metric.{name}": {"metadataType": "MetadataDoubleValue", "double_value": value}
            for name, value in entry.metrics.items()
        },
    }


def _text(value: str) -> Json:
    return {"metadataType": "MetadataStringValue", "string_value": value}


def _filled(values: Mapping[str, Any]) -> Json:
    return {name: value for name, value in values.items() if value != ""}
