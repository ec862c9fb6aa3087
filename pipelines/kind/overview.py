"""What of the cluster is there, and how it is."""

from collections.abc import Mapping
from dataclasses import dataclass

from components import images
from pipelines import compiled
from pipelines.kind import node
from pipelines.kind.installation import PIPELINES, RUNTIME, SERVING, Installation
from pipelines.kind.kubectl import Kubectl, is_ready
from pipelines.kind.manifests import Object
from pipelines.kind.store import MODELS

READY = "ready"
_GATEWAY_CRD = "gateways.gateway.networking.k8s.io"
_BUNDLE = "gateway.networking.k8s.io/bundle-version"


@dataclass(frozen=True)
class Part:
    """A row of the table."""

    name: str
    state: str
    version: str = ""
    url: str = ""
    required: bool = True
    """Whether the cluster is not what kind-up makes without it."""

    @property
    def ready(self) -> bool:
        """Whether all of it is ready."""
        return self.state == READY


def overview(installation: Installation) -> list[Part]:
    """Looks at each part.

    Raises:
        InputError: the cluster of that name is not ours.
        UnavailableError: it does not answer.
    """
    here, kubectl = installation.node, installation.kubectl
    state = here.state()
    if state != "running":
        return [Part("cluster", state or "not there")]
    installation.require_running()
    ports = here.ports()
    return [
        Part("cluster", READY, _kubernetes(kubectl), here.context),
        *_gateway(kubectl, ports),
        _serving(kubectl),
        *_pipelines(kubectl, ports),
        _suite(kubectl),
        _images(here),
    ]


def _kubernetes(kubectl: Kubectl) -> str:
    return str(kubectl.get("nodes")["items"][0]["status"]["nodeInfo"]["kubeletVersion"])


def _gateway(kubectl: Kubectl, ports: Mapping[str, int]) -> list[Part]:
    if "GATEWAY_PORT" not in ports:
        return []
    kind = kubectl.get("crd", _GATEWAY_CRD)
    deployments = _deployments(kubectl, "traefik")
    return [
        Part("Gateway API", READY if kind else "not there", kind["metadata"]["annotations"][_BUNDLE] if kind else ""),
        Part("Traefik", _state(deployments), _tag(deployments, "traefik"), _local(ports, "GATEWAY_PORT")),
    ]


def _serving(kubectl: Kubectl) -> Part:
    deployments = _deployments(kubectl, "kserve")
    return Part("KServe", _state(deployments), _tag(deployments, "kserve-controller-manager"))


def _pipelines(kubectl: Kubectl, ports: Mapping[str, int]) -> list[Part]:
    found = _deployments(kubectl, PIPELINES)
    store = {name: one for name, one in found.items() if name == "seaweedfs"}
    rest = {name: one for name, one in found.items() if name not in store}
    settings = kubectl.get("configmap", "pipeline-install-config", f"--namespace={PIPELINES}")
    version = settings["data"]["appVersion"] if settings else ""
    api = {name: one for name, one in rest.items() if name == "ml-pipeline"}
    return [
        Part("Kubeflow Pipelines", _state(rest), version, _local(ports, "UI_PORT")),
        Part("its API", _state(api), version, _local(ports, "API_PORT")),
        Part(f"store s3://{MODELS}", _state(store), _tag(store, "seaweedfs"), _local(ports, "STORE_PORT")),
    ]


def _suite(kubectl: Kubectl) -> Part:
    runtime = kubectl.get("servingruntimes.serving.kserve.io", RUNTIME, f"--namespace={SERVING}")
    if runtime is None:
        return Part("suite", "not there")
    return Part("suite", READY, runtime["spec"]["containers"][0]["image"].rpartition(":")[2])


def _images(here: node.Node) -> Part:
    tag, inside = compiled.content_tag(), here.images()
    lacking = [name for name in images.NAMES if node.full_name(images.reference(name, tag=tag)) not in inside]
    state = f"not there: {', '.join(lacking)}; `make images kind-load`" if lacking else READY
    return Part("images", state, tag, required=False)


def _deployments(kubectl: Kubectl, namespace: str) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in kubectl.get("deployments", f"--namespace={namespace}")["items"]}


def _state(deployments: Mapping[str, Object]) -> str:
    if not deployments:
        return "not there"
    waiting = sorted(name for name, one in deployments.items() if not is_ready(one))
    return f"waiting for {', '.join(waiting)}" if waiting else READY


def _tag(deployments: Mapping[str, Object], name: str) -> str:
    if name not in deployments:
        return ""
    return str(deployments[name]["spec"]["template"]["spec"]["containers"][0]["image"]).rpartition(":")[2]


def _local(ports: Mapping[str, int], variable: str) -> str:
    return f"http://127.0.0.1:{ports[variable]}" if variable in ports else ""
