"""From a published version to a decision and its report."""

import uuid
from pathlib import Path

from components import storage
from components.artifacts import MODEL_VERSION, whole, write_whole
from components.deploy_model.cluster import Cluster
from components.deploy_model.decision import DECISION, Decision
from components.deploy_model.deployment import Candidate, ServiceDeployment, version_of
from components.deploy_model.page import page
from components.errors import InputError
from components.golden import read_golden
from components.settings import Deployment


def serve(
    model_uri: str,
    predictions: str,
    name: str,
    deployment: Deployment,
    run_name: str,
    decision: str,
    report: str,
) -> Decision:
    """Deploys a model, and writes down how that went; the arguments are those of the component.

    Raises:
        InputError: the model, the predictions, the cluster or the settings do not fit.
        UnavailableError: no end before the deadline; a later run goes on.
    """
    rows = read_golden(predictions, deployment.golden.rows)
    uri = storage_uri(model_uri)
    require_model(uri)
    service = deployment.service or name
    cluster = Cluster(deployment.namespace, deployment.timeout_seconds)
    # A run that is started again has the same name, and must not take itself for the one that died.
    holder = f"{run_name}/{uuid.uuid4().hex[:8]}"
    candidate = Candidate(service, uri, version_of(uri), run_name, rows)
    decided = ServiceDeployment(cluster, deployment, service, holder).deploy(candidate)
    with whole(decision) as folder:
        (folder / DECISION).write_text(decided.model_dump_json(indent=1), encoding="utf-8")
    write_whole(report, page(decided))
    return decided


def storage_uri(model_uri: str) -> str:
    """Spells a model's URI for KServe.

    Raises:
        InputError: it is a path of this machine.
    """
    if "://" not in model_uri or model_uri.startswith("file://"):
        raise InputError(
            f"model '{model_uri}' is on this machine, where the cluster cannot read it; set publication.store to gs:// "
            "or s3://"
        )
    # On s3 a prefix without the slash takes what begins alike, e.g. v10 with v1.
    return f"{model_uri.rstrip('/')}/" if model_uri.startswith(("s3://", "gs://")) else model_uri


def require_model(uri: str) -> None:
    """Makes sure that a model is at a URI on gs:// or s3://; a model server without one waits for ever.

    Raises:
        InputError: there is none.
    """
    if uri.partition("://")[0] not in storage.SCHEMES:
        return
    fs, path = storage.filesystem(uri)
    graphs = [str(Path(folder, MODEL_VERSION, "saved_model.pb")) for folder in (f"{path}/model", path)]
    with storage.reaching(uri):
        if not any(fs.exists(graph) for graph in graphs):
            raise InputError(
                f"'{uri}' has no {MODEL_VERSION}/saved_model.pb; give the version that publish_model wrote"
            )
