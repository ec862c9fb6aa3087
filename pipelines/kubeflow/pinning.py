"""Makes of a pipeline one that a schedule can start: its first task pins what `submit` pins.

A schedule starts the same pipeline with the same arguments each time. Window, data digest and the model in production
would be those of the day on which the schedule was made.
"""

import copy
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from kfp import compiler, dsl

from components import images
from components.errors import InputError
from pipelines import compiled
from pipelines.kubeflow.submitting import images_in, written

DIGEST = "settings_digest"
_TASK = "pin-inputs"
_LIKE = "exec-ingest-data"
"""It reads the same source: it has the credentials."""
PINNED = ("data", "data_digest", "inputs_digest", "production_model")


@dsl.component(base_image=images.BASE, install_kfp_package=False)
def pin_inputs(
    data: dict,  # type: ignore[type-arg]
    publication: dict,  # type: ignore[type-arg]
    name: str,
    settings_digest: str,
    window_features: dict = {},  # type: ignore[type-arg]  # noqa: B006  (compiled to a constant)
) -> NamedTuple(  # type: ignore[valid-type]
    "Pinned", [("data", dict), ("data_digest", str), ("inputs_digest", str), ("production_model", str)]
):
    """Pins window and split to the spans that are there now, and the model in production to its version.

    Args:
        data: section `data` of pipeline.yaml, with a window such as `last 12 months`.
        publication: section `publication` of pipeline.yaml.
        name: of the model.
        settings_digest: of everything else that decides the result.
        window_features: section `window_features` of pipeline.yaml; empty: there is none.

    Returns:
        What `submit` would have put into the arguments.
    """
    import hashlib
    from collections import namedtuple

    from components.model_store import ModelStore
    from components.settings import WindowFeatures
    from components.spans import before, listing_digest, pin_data, resolve
    from components.stage import stage

    with stage("pin_inputs"):
        files = resolve(data["source"], data["window"])
        read = files
        if window_features:
            windows = WindowFeatures.model_validate(window_features)
            read = [*files, *before(data["source"], files, windows.look_back)[0]]
        pinned, digest = pin_data(data, files), listing_digest(read)
        window = pinned["window"]
        inputs = hashlib.sha256(f"{settings_digest} {window} {digest}".encode()).hexdigest()
        store = ModelStore(publication["store"], name)
        version = store.latest()
        # The model of an unchanged rerun is measured against what it replaced, see docs/adr/0003.
        if version and (card := store.card(version)).inputs_digest == inputs:
            version = card.parent
        production = store.uri_of(version) if version else ""
        print(f"{window}; in production: {production or 'nothing'}")
        outputs = namedtuple("outputs", ["data", "data_digest", "inputs_digest", "production_model"])
        return outputs(pinned, digest, inputs, production)


def pinning(text: str, pinned_names: Collection[str] = PINNED) -> str:
    """Puts the task that pins before all others of a compiled pipeline.

    Args:
        text: of the pipeline.
        pinned_names: which arguments each run pins.

    Raises:
        InputError: the pipeline takes nothing that could be pinned.
    """
    documents = compiled.documents(text)
    spec = documents[0]
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    if not {"data", "data_digest", "production_model", "name"} <= inputs.keys():
        raise InputError(f"pipeline '{spec['pipelineInfo']['name']}' cannot be scheduled: it takes no data to pin")
    for task in spec["root"]["dag"]["tasks"].values():
        values = task.get("inputs", {}).get("parameters", {})
        for name, value in values.items():
            if (pinned := value.get("componentInputParameter")) in pinned_names:
                values[name] = {"taskOutputParameter": {"producerTask": _TASK, "outputParameterKey": pinned}}
                task["dependentTasks"] = sorted({*task.get("dependentTasks", []), _TASK})
    own = _compiled()
    registry, tag = images_in(text)
    executor = own["deploymentSpec"]["executors"][f"exec-{_TASK}"]
    executor["container"]["image"] = f"{registry}/base:{tag}"
    like = spec["deploymentSpec"]["executors"].get(_LIKE, {}).get("container", {})
    executor["container"] |= {"resources": like["resources"]} if "resources" in like else {}
    for platform in documents[1:]:
        pods = platform["platforms"]["kubernetes"].get("deploymentSpec", {}).get("executors", {})
        if _LIKE in pods:
            pod = pods[f"exec-{_TASK}"] = copy.deepcopy(pods[_LIKE])
            labels = pod.get("podMetadata", {}).get("labels", {})
            labels |= {key: "pin_inputs" for key, value in labels.items() if value == "ingest_data"}
    spec["components"] |= own["components"]
    spec["deploymentSpec"]["executors"][f"exec-{_TASK}"] = executor
    spec["root"]["dag"]["tasks"][_TASK] = {
        "cachingOptions": {},
        "componentRef": {"name": f"comp-{_TASK}"},
        "inputs": {
            "parameters": {
                name: {"componentInputParameter": name}
                for name in ("data", "publication", "name", "window_features", DIGEST)
            }
        },
        "taskInfo": {"name": _TASK},
    }
    inputs[DIGEST] = {"parameterType": "STRING"}
    inputs.setdefault("publication", {"parameterType": "STRUCT"})  # where the model in production is looked up
    return written(documents)


def _compiled() -> dict:  # type: ignore[type-arg]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pin.yaml")
        compiler.Compiler().compile(pin_inputs, str(path))
        return dict(compiled.documents(path.read_text(encoding="utf-8"))[0])
