"""The cluster from nothing to the suite's manifests, in steps that each look at what is there already."""

import base64
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from components import images
from components.errors import InputError, UnavailableError
from pipelines import compiled
from pipelines.environments import ROOT
from pipelines.kind import manifests, node, preflight, tools, vendor
from pipelines.kind.kubectl import Kubectl
from pipelines.kind.manifests import KIND, SUITE, Object
from pipelines.kind.node import Node
from pipelines.kind.sources import VENDORED, Platform
from pipelines.kind.steps import Steps
from pipelines.kind.store import MODELS, REGION, Store
from pipelines.project import LoadedProject

PIPELINES, SERVING = "kubeflow", "lockgate"
"""Namespaces of Kubeflow Pipelines and of the served models."""
RUNTIME = "lockgate-predictor"
"""The ServingRuntime of our model server."""

_APPLY_SECONDS = 120.0
_ESTABLISHED = "--for=condition=Established"
_STORAGE = "lockgate-storage"
_STORE_HOST = f"seaweedfs.{PIPELINES}:9000"
_PAUSE_SECONDS = 1.0
# A proxy of this machine does not know its loopback.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Settings:
    """What the variables of `make kind-up` say."""

    name: str
    node_image: str
    ports: Mapping[str, int] = field(default_factory=dict)
    gateway: bool = True
    manifests: Path | None = None
    """In place of the vendored sources."""
    git_source: str = vendor.GIT_SOURCE
    image_registry: str = ""
    """In place of every image's own registry; empty: as they are."""
    seconds: float = 120.0
    """How long a part may take to get ready."""

    @property
    def folder(self) -> Path:
        """Where what is generated for the cluster goes."""
        return ROOT / "build" / "kind" / self.name


class Installation:
    """A cluster, there or not."""

    def __init__(self, settings: Settings, platform: Platform) -> None:
        """Finds the programs.

        Raises:
            InputError, UnavailableError: one is missing; the message says what to do.
        """
        self.settings = settings
        self._platform = platform
        self._docker = preflight.docker_info()
        self.node = Node(tools.require("kind", platform.tools["kind"]), settings.name, settings.folder)
        self.kubectl = Kubectl(tools.require("kubectl", platform.tools["kubectl"]), self.node.context)

    def up(self, steps: Steps, check: bool) -> None:
        """Brings it up, or goes on where it stopped.

        Args:
            steps: where progress is shown.
            check: whether to look at the machine first.
        """
        with steps.step("machine") as step:
            if self.node.state() and not self.node.is_unfinished():
                self._require_ours()
            if check:
                self._check_machine()
            step.note = (
                f"Docker {self._docker['ServerVersion']}, {self._docker['NCPU']} cores, "
                f"{self._docker['MemTotal'] / preflight.GIB:.0f} GiB"
            )
        for warning in preflight.warnings(self._docker):
            steps.warn(warning)
        with steps.step("sources") as step:
            step.note = self._fetch(step.say)
        with steps.step("cluster") as step:
            step.note = self._make_cluster(step.say)
        with steps.step("images") as step:
            step.note = self._load_cached(step.say)
        with steps.step("objects") as step:
            step.note = self._apply_platform(step.say)
        if self.settings.gateway:
            with steps.step("gateway") as step:
                self._wait(self._gateway, step.say)
                self.kubectl(
                    *("wait", "gateway/kserve-ingress-gateway", "--namespace=kserve"),
                    *("--for=condition=Programmed", f"--timeout={self.settings.seconds:.0f}s"),
                )
                step.note = f"http://127.0.0.1:{self.settings.ports['GATEWAY_PORT']}"
        with steps.step("KServe") as step:
            self._wait(self._kserve, step.say)
            step.note = self._platform.source("kserve").version
        with steps.step("Kubeflow Pipelines") as step:
            self._wait(self._pipelines, step.say)
            self._wait_for_answer(f"http://127.0.0.1:{self.settings.ports['API_PORT']}/apis/v2beta1/healthz", step.say)
            step.note = f"http://127.0.0.1:{self.settings.ports['UI_PORT']}"
        with steps.step("model store") as step:
            self.store.make_buckets(self.settings.seconds, step.say)
            step.note = f"s3://{MODELS}"
        with steps.step("suite") as step:
            step.note = self.apply_suite()

    def pull(self, steps: Steps) -> None:
        """Gets into Docker what the platform's manifests name, so that `up` needs no registry.

        Raises:
            UnavailableError: an image cannot be pulled.
        """
        for image in (self.settings.node_image, *self._images):
            if not node.in_docker(image):
                with steps.step("image") as step:
                    step.say(image)
                    node.pull(image)
                    step.note = image

    def load(self, steps: Steps, registry: str, tag: str) -> None:
        """Copies the suite's images into the node, and makes served models use the new server from now on.

        Raises:
            InputError: there is no cluster, or an image was not built.
        """
        self.require_running()
        inside = self.node.images()
        for name in images.NAMES:
            image = images.reference(name, registry, tag)
            with steps.step(name) as step:
                if node.full_name(image) in inside:
                    step.note = f"{image} is there"
                    continue
                if not node.in_docker(image):
                    raise InputError(f"image '{image}' is not on this machine; run `make images`")
                step.say("copying into the node")
                if said := self.node.load([image]):
                    raise UnavailableError(f"image '{image}' could not be copied into the node: {said}")
                step.note = image
        with steps.step("suite") as step:
            step.note = self.apply_suite(images.reference("predictor", registry, tag))

    def put(self, steps: Steps, project: LoadedProject) -> str:
        """Copies a project's data into the object store; gives the source that has them."""
        with steps.step("data") as step:
            self.store.make_buckets(self.settings.seconds, step.say)
            step.note = source = self.store.put(project, step.say)
        return source

    @cached_property
    def store(self) -> Store:
        """The object store, as this machine reaches it, with the credentials of Kubeflow Pipelines' own Secret."""
        found = self.kubectl.get("secret", "mlpipeline-minio-artifact", f"--namespace={PIPELINES}")
        if found is None:
            raise InputError(f"namespace '{PIPELINES}' has no object store; run `make kind-up`")
        data = {name: base64.b64decode(value).decode() for name, value in found["data"].items()}
        port = self.node.ports()["STORE_PORT"]
        return Store(f"http://127.0.0.1:{port}", data["accesskey"], data["secretkey"])

    @property
    def variables(self) -> dict[str, str]:
        """The environment in which this machine's commands reach the cluster."""
        return {"LOCKGATE_KFP_HOST": f"http://127.0.0.1:{self.node.ports()['API_PORT']}", **self.store.variables}

    def require_running(self) -> None:
        """Refuses to go on without a cluster of ours.

        Raises:
            InputError: there is none.
        """
        if self.node.state() != "running":
            raise InputError(f"there is no running kind cluster '{self.settings.name}'; run `make kind-up`")
        self._require_ours()
        self.node.export()

    def down(self) -> str:
        """Removes the cluster, if it is ours."""
        state = self.node.state()
        if state and not self.node.is_unfinished():
            self._require_ours()
        self.node.delete()
        shutil.rmtree(self.settings.folder, ignore_errors=True)
        return f"cluster '{self.settings.name}' is removed" if state else f"there is no cluster '{self.settings.name}'"

    def apply_suite(self, predictor: str = "") -> str:
        """Applies the suite's manifests, with the image of the model server that the node has."""
        default = images.reference("predictor", tag=images.VERSION)
        image = predictor or self._predictor_there() or default
        objects = self.kubectl.render(SUITE / "overlays" / "kind")
        manifests.change_images(objects, lambda name: image if name == default else name)
        first, rest = manifests.split(objects)
        self.kubectl.apply(first, _APPLY_SECONDS)
        self.kubectl.apply([*rest, *self._storage()], _APPLY_SECONDS)
        return f"model server {image}"

    def _predictor_there(self) -> str:
        """Gives the model server's image for the code as it is, else the one in use, if the node has it."""
        runtime = self.kubectl.get("servingruntimes.serving.kserve.io", RUNTIME, f"--namespace={SERVING}")
        in_use = [runtime["spec"]["containers"][0]["image"]] if runtime else []
        inside = self.node.images()
        for image in (images.reference("predictor", tag=compiled.content_tag()), *in_use):
            if node.full_name(image) in inside:
                return str(image)
        return ""

    def _check_machine(self) -> None:
        taken = self.settings.ports if not self.node.state() else {}
        found = list(preflight.faults(self._docker, taken))
        if found:
            raise InputError(f"{found[0]}" + (f" ({len(found)} in all: {'; '.join(found[1:])})" if found[1:] else ""))

    def _fetch(self, say: Callable[[str], None]) -> str:
        folder = self._sources
        if self.settings.manifests is None:
            fetch(self._platform, self.settings.git_source, folder, say)
        if lacking := list(vendor.missing(self._platform.sources, folder)):
            raise InputError(
                f"MANIFESTS={folder} has no {lacking[0]}/kustomization.yaml; see docs/kind.md for its layout"
            )
        versions = [f"{source.name} {source.version}" for source in self._platform.sources]
        return ", ".join(versions) if self.settings.manifests is None else f"as they are in {folder}"

    @property
    def _sources(self) -> Path:
        return self.settings.manifests or VENDORED

    def _make_cluster(self, say: Callable[[str], None]) -> str:
        state = self.node.state()
        if state and self.node.is_unfinished():
            say("removing what is left of an interrupted start")
            self.node.delete()
            state = ""
        if not state:
            say("starting the node")
            self.node.create(self.settings.node_image, self.settings.ports)
        else:
            if state != "running":
                say(f"the node is {state}: starting it")
                self.node.start()
            self._require_same()
            self.node.export()
            self._wait_for_node()
        version = self.kubectl.get("nodes")["items"][0]["status"]["nodeInfo"]["kubeletVersion"]
        return f"{self.settings.name}, Kubernetes {version}"

    def _wait_for_node(self) -> None:
        """Waits for a node that may have been started just now: its API server first refuses, then forbids."""
        end = time.monotonic() + self.settings.seconds
        while True:
            try:
                self.kubectl("wait", "nodes", "--all", "--for=condition=Ready", "--timeout=20s")
                return
            except UnavailableError:
                if time.monotonic() > end:
                    raise
            time.sleep(_PAUSE_SECONDS)

    def _require_ours(self) -> None:
        if not self.node.is_ours():
            name = self.settings.name
            raise InputError(
                f"there is a kind cluster '{name}' that kind-up did not make; set KIND_CLUSTER to another name, "
                f"or remove it: `kind delete cluster --name {name}`"
            )

    def _require_same(self) -> None:
        there = self.node.ports()
        for variable, wanted in self.settings.ports.items():
            if variable not in there:
                raise InputError(
                    f"the cluster was made without {variable}, and gets no port later; `make kind-down` first"
                )
            if (port := there[variable]) != wanted:
                raise InputError(
                    f"the cluster has {variable}={port}, not {wanted}, and ports cannot be changed later; "
                    f"set {variable}={port}, or `make kind-down` first"
                )
        if (image := self.node.image()) != self.settings.node_image:
            raise InputError(
                f"the cluster's node is '{image}', not '{self.settings.node_image}'; "
                "set NODE_IMAGE to it, or `make kind-down` first"
            )

    def _rendered(self, part: str, entries: Iterable[Path], *components: str) -> list[Object]:
        folder = manifests.kustomization(
            self.settings.folder / part, list(entries), [KIND / component for component in components]
        )
        objects = self.kubectl.render(folder)
        version = self._platform.source("kserve").version

        def change(image: str) -> str:
            image = manifests.pinned(image, "kserve/", version)
            return manifests.mirrored(image, self.settings.image_registry) if self.settings.image_registry else image

        manifests.change_images(objects, change)
        return objects

    def _entries(self, name: str) -> list[Path]:
        return [self._sources / name / entry for entry in self._platform.source(name).entries]

    @cached_property
    def _gateway(self) -> list[Object]:
        return self._rendered("gateway", [*self._entries("gateway-api"), KIND / "gateway"])

    @cached_property
    def _kserve(self) -> list[Object]:
        return self._rendered(
            "kserve", self._entries("kserve"), "kserve", *(() if self.settings.gateway else ("without-gateway",))
        )

    @cached_property
    def _pipelines(self) -> list[Object]:
        return self._rendered("pipelines", self._entries("pipelines"), "pipelines")

    @property
    def _gateway_objects(self) -> list[Object]:
        return self._gateway if self.settings.gateway else []

    @property
    def _images(self) -> list[str]:
        return manifests.images_of([*self._gateway_objects, *self._kserve, *self._pipelines])

    def _certified(self) -> list[Object]:
        """Gives KServe's objects with the certificate of its webhook."""
        from pipelines.kind import webhook  # cryptography takes a moment to import

        live = self.kubectl.get("secret", webhook.SECRET, f"--namespace={webhook.NAMESPACE}")
        certificate = webhook.secret(live, datetime.now(UTC))
        webhook.trust(self._kserve, certificate)
        return [*self._kserve, certificate]

    def _load_cached(self, say: Callable[[str], None]) -> str:
        say("rendering the manifests")
        wanted = self._images
        inside = self.node.images()
        outside = [image for image in wanted if node.full_name(image) not in inside]
        cached = [image for image in outside if node.in_docker(image)]
        say(f"copying {len(cached)} from Docker")
        if cached and (said := self.node.load(cached)):
            return f"the node pulls them, as they could not be copied from Docker: {said}"
        return (
            f"{len(wanted) - len(outside)} were there, {len(cached)} copied from Docker, "
            f"{len(outside) - len(cached)} pulled where they are needed"
        )

    def _apply_platform(self, say: Callable[[str], None]) -> str:
        first, rest = manifests.split([*self._gateway_objects, *self._certified(), *self._pipelines])
        say("kinds and namespaces")
        self.kubectl.apply(first, _APPLY_SECONDS)
        kinds = [f"crd/{one['metadata']['name']}" for one in first if one["kind"] == "CustomResourceDefinition"]
        self.kubectl("wait", *kinds, _ESTABLISHED, f"--timeout={_APPLY_SECONDS:.0f}s")
        say("all others")
        self.kubectl.apply(rest, _APPLY_SECONDS)
        return f"{len(first) + len(rest)}"

    def _wait(self, objects: list[Object], say: Callable[[str], None]) -> None:
        wanted = [
            (one["metadata"]["namespace"], one["metadata"]["name"]) for one in objects if one["kind"] == "Deployment"
        ]
        self.kubectl.wait_for_deployments(wanted, self.settings.seconds, say)

    def _wait_for_answer(self, url: str, say: Callable[[str], None]) -> None:
        end = time.monotonic() + self.settings.seconds
        while True:
            try:
                with _DIRECT.open(url, timeout=5):
                    return
            except OSError as error:
                if time.monotonic() > end:
                    raise UnavailableError(f"{url} does not answer: {error}; see `make kind-status`") from error
            say(f"waiting for {url}")
            time.sleep(_PAUSE_SECONDS)

    def _storage(self) -> list[Object]:
        """Gives what stages and model servers reach the store with, as each reads it, where there is nothing yet."""
        inside = replace(self.store, endpoint=f"http://{_STORE_HOST}").variables
        keys = {name: inside.pop(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        described = {
            "serving.kserve.io/s3-endpoint": _STORE_HOST,
            "serving.kserve.io/s3-usehttps": "0",
            "serving.kserve.io/s3-region": REGION,
        }
        wanted = (
            {**_named("Secret", PIPELINES), "stringData": keys},
            {**_named("ConfigMap", PIPELINES), "data": inside},
            {**_named("Secret", SERVING, described), "stringData": keys},
            {**_named("ConfigMap", SERVING), "data": inside},
        )
        return [
            one
            for one in wanted
            if self.kubectl.get(one["kind"], _STORAGE, f"--namespace={one['metadata']['namespace']}") is None
        ]


def fetch(platform: Platform, origin: str, output: Path, say: Callable[[str], None]) -> None:
    """Fetches the sources that are not there at their commits."""
    for source in platform.sources:
        if not vendor.is_vendored(source, output):
            say(f"{source.name} {source.version} from {origin}")
            vendor.vendor(source, platform.sources, origin, output)


def _named(kind: str, namespace: str, annotations: Mapping[str, str] | None = None) -> Object:
    metadata = {"name": _STORAGE, "namespace": namespace, "labels": {"app.kubernetes.io/part-of": "lockgate"}}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata}
