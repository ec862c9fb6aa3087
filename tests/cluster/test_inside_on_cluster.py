"""deploy_model in a pod, as Kubeflow Pipelines runs it: the service account's token, Services by name, the base image.

Needs: what test_deploy_on_cluster.py needs, and LOCKGATE_TEST_BASE_IMAGE: a base image of this code, on the nodes.
"""

import base64
import json
import os
from typing import Any

import pytest

from tests.cluster.lab import Lab

IMAGE = os.environ.get("LOCKGATE_TEST_BASE_IMAGE", "")


@pytest.mark.skipif(not IMAGE, reason="LOCKGATE_TEST_BASE_IMAGE is not set")
def test_a_pod_with_the_deployers_role_deploys(lab: Lab) -> None:
    lab.apply(_predictions(lab))
    for model, action in (("one", "created"), ("two", "promoted"), ("wrong", "rolled back")):
        lab.apply(_pod(lab, model))
        lab.kubectl("wait", f"pod/deploy-{model}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=180s")
        decision = json.loads(lab.kubectl("logs", f"deploy-{model}").splitlines()[-1])
        assert decision["action"] == action, decision["reason"]
    assert lab.get("isvc", "flights")["spec"]["predictor"]["model"]["storageUri"] == "pvc://models/two"


def _predictions(lab: Lab) -> dict[str, Any]:
    files = {path.name: path for path in lab.predictions.rglob("*") if path.is_file()}
    data = {name: base64.b64encode(path.read_bytes()).decode() for name, path in files.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "predictions"}, "binaryData": data}


def _pod(lab: Lab, model: str) -> dict[str, Any]:
    code = (
        "import sys\n"
        "from components.deploy_model.serving import serve\n"
        "from components.settings import Deployment\n"
        "settings, uri = sys.argv[1:]\n"
        "decided = serve(uri, '/predictions', 'flights', Deployment.model_validate_json(settings), 'run', '/tmp/d',\n"
        "                '/tmp/report.html')\n"
        "print(decided.model_dump_json())\n"
    )
    container = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", code, json.dumps(lab.settings), f"pvc://models/{model}"],
        "volumeMounts": [{"name": "predictions", "mountPath": "/predictions"}],
    }
    items = [{"key": "part-00000.parquet", "path": "eval/part-00000.parquet"}]
    items += [{"key": name, "path": name} for name in ("manifest.json", "spec.json")]
    volume = {"name": "predictions", "configMap": {"name": "predictions", "items": items}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"deploy-{model}", "labels": {"app": "deploy"}},
        "spec": {
            "serviceAccountName": "pipeline",
            "restartPolicy": "Never",
            "containers": [container],
            "volumes": [volume],
        },
    }
