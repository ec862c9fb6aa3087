"""Deploying: a new model proves itself beside the one in service, then takes its place.

    <service>          the InferenceService that is called; its Service keeps its address for ever
    <service>-canary   the new model, while it proves itself
    <service>          the HTTPRoute with the shares of the traffic, where there is a gateway
    <service>-deployment   the Lease: who deploys, what is served, what was served before

The objects are the state: a run that was killed is picked up where they stand. Traffic never goes to pods that have
not passed the golden test, and always leaves pods before they go.
"""

import contextlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import httpx2

from components import golden
from components.deploy_model import canary, inference_service, rollout, route
from components.deploy_model.cluster import (
    DEPLOYMENT,
    EVENT,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    LEASE,
    POD,
    REPLICA_SET,
    SERVING_RUNTIME,
    Cluster,
    MissingKindError,
    Object,
)
from components.deploy_model.decision import Action, Decision, Golden, Happening
from components.deploy_model.inference_service import canary_name, workload_name
from components.deploy_model.lease import DeploymentLease, Served
from components.errors import InputError, UnavailableError
from components.golden import GoldenRows
from components.settings import Deployment

_VERSION = re.compile(r"v(\d{4,})(-[0-9a-f]{8})?")
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_POLL_SECONDS = 1.0
_ANSWER_SECONDS = 20.0
"""How long a Service may take to lead to pods that are ready."""


@dataclass(frozen=True)
class Candidate:
    """The model to deploy."""

    service: str
    storage_uri: str
    version: str
    run: str
    rows: GoldenRows | None
    """None: no golden test."""


class UnfitError(Exception):
    """The new model must not serve; the text is the cause, in one line."""

    def __init__(self, cause: str, log: Sequence[str] = ()) -> None:
        super().__init__(cause)
        self.log = list(log)


def version_of(storage_uri: str) -> str:
    """Names a model by the last part of its URI."""
    return storage_uri.rstrip("/").rpartition("/")[2]


def require_name(service: str, namespace: str) -> None:
    """Makes sure that Kubernetes takes the names that are made of a service's.

    Raises:
        InputError: it does not.
    """
    longest = workload_name(canary_name(service))
    if not _NAME.fullmatch(service) or len(longest) > 63 or len(f"{canary_name(service)}-{namespace}") > 63:
        raise InputError(
            f"service '{service}' in namespace '{namespace}': the name must be lower case letters, digits and dashes, "
            f"begin with a letter, and leave '{longest}' and '{canary_name(service)}-{namespace}' at 63 characters or "
            "fewer; set deployment.service"
        )


class ServiceDeployment:
    """One service, and what is done to it.

    Every method raises:
        InputError: the cluster lacks something, or refuses.
        UnavailableError: the deadline is over, or somebody else took over.
    """

    def __init__(self, cluster: Cluster, settings: Deployment, service: str, holder: str) -> None:
        """Names the service.

        Args:
            cluster: with its namespace.
            settings: section `deployment`.
            service: its name.
            holder: who deploys; never the same twice.
        """
        require_name(service, settings.namespace)
        self._cluster = cluster
        self.settings = settings
        self.service = service
        self.lease = DeploymentLease(cluster, service, holder)
        self._happenings: list[Happening] = []
        self._steps: list[canary.Step] = []
        self._golden: list[Golden] = []
        self._routed = bool(settings.gateway)
        self._takes_tensors = False

    # ----------------------------------------------------------------------------------------------- deploy

    def deploy(self, candidate: Candidate) -> Decision:
        """Puts a model into service, or finds out why it must not be."""
        self._require_prerequisites()
        with self.lease.held():
            stable = self._cluster.get(INFERENCE_SERVICE, self.service)
            before = self._remembered(stable)
            if before and _is_newer(before.version, candidate.version):
                reason = f"{before.version} is in service, which is newer than {candidate.version}"
                return self._decide(candidate, before, "pass", "overtaken", reason)
            try:
                action = self._put_into_service(candidate, stable, before)
            except UnfitError as refused:
                events = rollout.lines_of(self.events(self.service) + self.events(canary_name(self.service)))
                kept = self._roll_back(before)
                reason = f"{candidate.version or candidate.storage_uri}: {refused}; {kept}"
                return self._decide(candidate, before, "fail", "rolled back", reason, events, refused.log)
            except InputError:
                if before:
                    # What was refused is what must be told, whatever comes of the way back.
                    with contextlib.suppress(UnfitError, InputError, UnavailableError):
                        self._roll_back(before)
                raise
            self._remember(candidate.version, self._predictor(candidate))
            reason = f"{candidate.version or candidate.storage_uri} is in service ({action})"
            return self._decide(candidate, before, "pass", action, reason)

    def _put_into_service(self, candidate: Candidate, stable: Object | None, before: Served | None) -> Action:
        spec, notes = self._predictor(candidate), self._notes(candidate)
        name = canary_name(self.service)
        current, proven = (
            live is not None and inference_service.is_current(live, spec, self.service, notes)
            for live in (stable, self._cluster.get(INFERENCE_SERVICE, name))
        )
        if before is None:
            self._serve(self.service, candidate)
            self._route(0)
            return "created"
        if not current:
            self._prove(candidate)
            self._promote(candidate)
            return "promoted"
        if proven:
            self._say("an earlier run was stopped while it promoted this model: going on")
            self._promote(candidate)
            return "promoted"
        self._serve(self.service, candidate)
        self._route(0)
        self._delete_canary()
        return "unchanged"

    def _prove(self, candidate: Candidate) -> None:
        """Serves the model as canary: first without traffic, then with more and more."""
        name = canary_name(self.service)
        live = self._cluster.get(INFERENCE_SERVICE, name)
        wanted, notes = self._predictor(candidate), self._notes(candidate)
        if live is None or not inference_service.is_current(live, wanted, self.service, notes):
            self._route(0)
        self._serve(name, candidate)
        if not self._routed:
            self._say("no gateway is set: the model goes into service without canary steps")
            return
        at = self._percent()
        if at:
            self._say(f"an earlier run was stopped at {at} % of the traffic: going on there")
        # Read before it has traffic: the first request may be the one that it does not survive.
        restarts = rollout.restarts(self._pods(name))
        for percent in self.settings.canary.steps:
            if percent >= at:
                self._route(percent)
                self._watch(percent, restarts)

    def _promote(self, candidate: Candidate) -> None:
        """Makes the stable service serve what the canary does; its traffic waits at the canary."""
        if self._routed:
            self._route(100)
        self._serve(self.service, candidate)
        self._route(0)
        self._delete_canary()

    def _roll_back(self, before: Served | None) -> str:
        """Takes all traffic from the new model, and restores the one before where it was replaced.

        Returns:
            What is served now.
        """
        stable = self._cluster.get(INFERENCE_SERVICE, self.service)
        if before is None:
            self._say("no model was in service before: the service is removed")
            self._cluster.delete(INFERENCE_SERVICE, self.service)
            return "no model is in service"
        if stable is None or not inference_service.serves(stable, before.predictor):
            self._say(f"restoring {before.version or before.storage_uri}")
            self._write(self.service, before.predictor, self._notes_before(before))
            try:
                self._wait(self.service, before.predictor)
            except UnfitError as again:
                raise UnavailableError(
                    f"the model before cannot be restored: {again}; see to the cluster, then start the same run again"
                ) from again
        self._route(0)
        self._delete_canary()
        return f"{before.version or before.storage_uri} stays in service"

    # ------------------------------------------------------------------------------------------- by hand

    def restore(self, served: Served, take_over: bool) -> str:
        """Puts a model back into service at once, without a canary; its pods replace the others one by one."""
        with self.lease.held(take_over):
            self._route(0)
            self._write(self.service, served.predictor, self._notes_before(served))
            self._wait(self.service, served.predictor)
            self._delete_canary()
            self._remember(served.version, served.predictor)
        return f"{served.version or served.storage_uri} is in service"

    def abandon(self, take_over: bool) -> str:
        """Takes all traffic from the canary, and removes it."""
        with self.lease.held(take_over):
            self._route(0)
            self._delete_canary()
        return "the canary is removed; the stable model has all traffic"

    def promote(self, take_over: bool) -> str:
        """Puts the model of the canary into service, without the steps that are left."""
        with self.lease.held(take_over):
            live = self._cluster.get(INFERENCE_SERVICE, canary_name(self.service))
            if live is None:
                raise InputError(f"service '{self.service}' has no canary; deploy a model first")
            spec = live["spec"]["predictor"]
            uri = inference_service.storage_uri_of(spec)
            version = (live["metadata"].get("annotations") or {}).get(inference_service.VERSION, version_of(uri))
            self._wait(canary_name(self.service), spec)
            self._route(100)
            self._write(self.service, spec, self._notes_of(version, self.lease.name))
            self._wait(self.service, spec)
            self._route(0)
            self._delete_canary()
            self._remember(version, spec)
        return f"{version or uri} is in service"

    def delete(self, take_over: bool) -> str:
        """Removes the service, its canary, its route, and in the end what is remembered of it."""
        with self.lease.held(take_over):
            if self._routed:
                self._cluster.delete(HTTP_ROUTE, self.service)
            for name in (canary_name(self.service), self.service):
                self._cluster.delete(INFERENCE_SERVICE, name)
        self._cluster.delete(LEASE, self.lease.name)
        return f"service '{self.service}' is removed"

    # ------------------------------------------------------------------------------------------------ parts

    def _serve(self, name: str, candidate: Candidate) -> None:
        """Makes an InferenceService serve the model, and tests it.

        Raises:
            UnfitError: its pods do not become ready, or answer wrongly.
        """
        spec = self._predictor(candidate)
        self._write(name, spec, self._notes(candidate))
        self._wait(name, spec)
        if candidate.rows is not None:
            self._test(name, candidate.rows)

    def _write(self, name: str, spec: Object, notes: dict[str, str]) -> None:
        settings = self.settings
        self._cluster.apply(
            INFERENCE_SERVICE,
            name,
            lambda live: inference_service.changed(live, name, settings.namespace, self.service, spec, notes),
        )

    def _wait(self, name: str, spec: Object) -> None:
        """Waits until all pods are of the wanted kind and ready.

        Raises:
            UnfitError: they cannot be, or are not in time.
        """
        self._say(f"{name}: rolling out {inference_service.storage_uri_of(spec)}")
        end, since = time.monotonic() + self.settings.rollout_seconds, datetime.now(UTC)
        while True:
            patience = self.settings.scheduling_seconds
            found = rollout.read(self.observe(name), spec, patience, since, datetime.now(UTC))
            if found.state == "done":
                self._say(f"{name}: {found.detail}")
                # A Service's address leads to a pod only when the node of the caller has heard that it is ready.
                self._cluster.pause(self.settings.settle_seconds, "the nodes follow")
                return
            if found.state == "failed":
                raise self._failure(name, found)
            if time.monotonic() > end:
                limit = f"{self.settings.rollout_seconds:g} s (deployment.rollout_seconds)"
                raise UnfitError(f"{name}: {found.detail} after {limit}")
            self._cluster.pause(_POLL_SECONDS, f"{name}: {found.detail}")

    def _failure(self, name: str, found: rollout.Rollout) -> UnfitError:
        if found.log_of is None:
            return UnfitError(f"{name}: {found.detail}")
        log = self._cluster.log(*found.log_of, previous=True) or self._cluster.log(*found.log_of, previous=False)
        said = next((line.strip() for line in reversed(log) if line.strip()), "")
        tail = f": {said[:300]}" if said and said not in found.detail else ""
        return UnfitError(f"{name}: {found.detail}{tail}", log)

    def observe(self, name: str) -> rollout.Observed:
        """Reads what a rollout is judged by."""
        workload = workload_name(name)
        labels = {"serving.kserve.io/inferenceservice": name}
        return rollout.Observed(
            service=self._cluster.get(INFERENCE_SERVICE, name),
            deployment=self._cluster.get(DEPLOYMENT, workload),
            replica_sets=self._cluster.find(REPLICA_SET, labels),
            pods=self._cluster.find(POD, labels),
            events=self.events(name),
        )

    def events(self, name: str) -> list[Object]:
        """Reads the events of an InferenceService and of what belongs to it."""
        names = re.compile(rf"{re.escape(name)}(-predictor(-.*)?)?")
        return [e for e in self._cluster.find(EVENT) if names.fullmatch(e["involvedObject"].get("name", ""))]

    def _test(self, name: str, rows: GoldenRows) -> None:
        """Sends the golden rows through the Service.

        Raises:
            UnfitError: the answers are not the evaluated ones.
        """
        settings, end = self.settings.golden, time.monotonic() + _ANSWER_SECONDS
        instances = rows.tensors if self._takes_tensors else rows.instances
        while True:
            try:
                response = self._cluster.ask_service(
                    workload_name(name), f"/v1/models/{self.service}:predict", {"instances": instances}
                )
                if response.status_code == 200:
                    break
                fault = f"HTTP {response.status_code}: {' '.join(response.text.split())[:200]}"
                final = 400 <= response.status_code < 500 and response.status_code not in (404, 429)
            except httpx2.TransportError as error:
                fault, final = f"{type(error).__name__}: {error}", False
            if final or time.monotonic() > end:
                self._golden.append(
                    Golden(
                        service=name, rows=len(rows.expected), differing=len(rows.expected), largest=None, cause=fault
                    )
                )
                raise UnfitError(f"{name}: golden test: {fault}")
            self._cluster.pause(_POLL_SECONDS, f"{name}: golden test: {fault}")
        try:
            answer: Any = response.json()
        except ValueError:
            answer = None
        found = golden.compare(rows, answer, settings.tolerance, settings.tolerances)
        self._golden.append(
            Golden(
                service=name,
                rows=found.rows,
                differing=found.differing,
                largest=found.largest if found.largest != float("inf") else None,
                cause=found.cause,
            )
        )
        if found.cause:
            raise UnfitError(f"{name}: golden test: {found.cause}")
        self._say(f"{name}: golden test: {found.rows} rows, largest difference {found.largest:.2g}")

    def _route(self, percent: int) -> None:
        """Sends a share of the traffic to the canary, and waits until the gateway follows.

        Raises:
            InputError: the gateway does not take the route.
        """
        if not self._routed:
            return
        settings = self.settings
        changes: list[Object] = []

        def change(live: Object | None) -> Object | None:
            wanted = route.changed(live, settings, self.service, percent)
            changes[:] = [wanted] if wanted else []
            return wanted

        self._cluster.apply(HTTP_ROUTE, self.service, change)
        end = time.monotonic() + self.settings.rollout_seconds
        while (live := self._cluster.get(HTTP_ROUTE, self.service)) is not None:
            refusal = route.refusal(live, settings)
            # The last backend's endpoints may be a moment behind: a refusal counts when it stays.
            if refusal == "":
                break
            if refusal and time.monotonic() > end - settings.rollout_seconds + _ANSWER_SECONDS:
                raise InputError(f"route '{self.service}': {refusal}; check deployment.gateway and who may use it")
            if time.monotonic() > end:
                raise InputError(
                    f"route '{self.service}': gateway '{settings.gateway}' says nothing about it; check that it exists"
                )
            self._cluster.pause(_POLL_SECONDS, f"route '{self.service}' waits for gateway '{settings.gateway}'")
        if changes:
            self._say(f"route: {percent} % to the canary" if percent else "route: all traffic to the stable service")
            self._cluster.pause(settings.settle_seconds, "the gateway follows")

    def _percent(self) -> int:
        live = self._cluster.get(HTTP_ROUTE, self.service) if self._routed else None
        return route.canary_percent(live, self.service)

    def _watch(self, percent: int, restarts: int) -> None:
        """Holds a step, and compares canary and stable.

        Args:
            percent: of the traffic.
            restarts: of the canary's pods before they had any.

        Raises:
            UnfitError: the canary is worse, its pods crash, or none of them is ready.
        """
        limits, name = self.settings.canary, canary_name(self.service)
        started, end = time.monotonic(), time.monotonic() + limits.hold_seconds
        before = {one: self._counters(one) for one in (name, self.service)}
        while True:
            pods = self._pods(name)
            crashed = rollout.restarts(pods) - restarts
            if crashed > 0:
                raise UnfitError(f"{name}: at {percent} % of the traffic: {crashed} restarts (allowed: 0)")
            if time.monotonic() >= end:
                break
            self._cluster.pause(min(5.0, max(0.1, end - time.monotonic())), f"step {percent} %")
        if not any(map(rollout.is_ready, pods)):
            raise UnfitError(f"{name}: at {percent} % of the traffic: none of its pods is ready")
        after = {one: self._counters(one) for one in (name, self.service)}
        seconds = time.monotonic() - started
        counted = {one: canary.total(before[one], after[one]) for one in before}
        step = canary.judge(percent, round(seconds, 1), counted[name], counted[self.service], limits)
        self._steps.append(step)
        details = "; ".join(check.detail for check in step.checks if check.detail) or "no worse than the stable model"
        count = "" if step.canary_requests is None else f"{step.canary_requests} requests to the canary: "
        self._say(f"{percent} %: {count}{details}")
        if step.cause:
            raise UnfitError(f"{name}: {step.cause}")

    def _pods(self, name: str) -> list[Object]:
        return self._cluster.find(POD, {"serving.kserve.io/inferenceservice": name})

    def _counters(self, name: str) -> dict[str, canary.Counters]:
        texts = {pod["metadata"]["name"]: self._cluster.read_pod(pod, "/metrics") for pod in self._pods(name)}
        counters = {pod: canary.parse(text) for pod, text in texts.items() if text is not None}
        return {pod: one for pod, one in counters.items() if one is not None}

    def _delete_canary(self) -> None:
        name = canary_name(self.service)
        if self._cluster.get(INFERENCE_SERVICE, name) is not None:
            self._cluster.delete(INFERENCE_SERVICE, name)
            self._say(f"{name}: removed")

    def _predictor(self, candidate: Candidate) -> Object:
        return inference_service.predictor(self.settings, self.service, candidate.storage_uri)

    def _notes(self, candidate: Candidate) -> dict[str, str]:
        return self._notes_of(candidate.version, candidate.run)

    def _notes_of(self, version: str, run: str) -> dict[str, str]:
        ours = {inference_service.VERSION: version, inference_service.RUN: run}
        return {**inference_service.annotations(self.settings), **ours}

    def _notes_before(self, served: Served) -> dict[str, str]:
        return served.annotations or self._notes_of(served.version, self.lease.name)

    def _remember(self, version: str, spec: Object) -> None:
        """Makes what the stable service serves the model that was deployed last."""
        live = self._cluster.get(INFERENCE_SERVICE, self.service)
        uri, notes = inference_service.storage_uri_of(spec), inference_service.own_annotations(live or {"metadata": {}})
        self.lease.remember(Served(version=version, storage_uri=uri, predictor=spec, annotations=notes))

    def _remembered(self, stable: Object | None) -> Served | None:
        """Gives what was served last; an InferenceService that others made counts, too."""
        if stable is None:
            return None
        live = self.lease.live()
        if live is not None:
            return live
        notes = stable["metadata"].get("annotations") or {}
        routed = self._routed and self._cluster.get(HTTP_ROUTE, self.service) is not None
        if inference_service.RUN in notes and not routed:
            return None  # ours, and never finished
        spec = stable["spec"]["predictor"]
        uri = inference_service.storage_uri_of(spec)
        return Served(
            version=notes.get(inference_service.VERSION, ""),
            storage_uri=uri,
            predictor=spec,
            annotations=inference_service.own_annotations(stable),
        )

    def _require_prerequisites(self) -> None:
        settings = self.settings
        try:
            runtime = self._cluster.get(SERVING_RUNTIME, settings.runtime)
        except MissingKindError as error:
            raise InputError("the cluster has no KServe (serving.kserve.io); install it first") from error
        if runtime is None:
            raise InputError(
                f"ServingRuntime '{settings.runtime}' is not in namespace '{settings.namespace}'; "
                "kubectl apply -k manifests/suite/overlays/cluster, or set deployment.runtime"
            )
        # KServe's name for TensorFlow Serving's own gRPC protocol.
        self._takes_tensors = "grpc-v1" in (runtime["spec"].get("protocolVersions") or [])
        if self._takes_tensors:
            self._say(f"runtime '{settings.runtime}' is TensorFlow Serving: canary steps are held, but not judged")
        if not self._routed:
            return
        try:
            self._cluster.get(HTTP_ROUTE, self.service)
        except MissingKindError:
            self._say("the cluster has no Gateway API: the model goes into service without canary steps")
            self._routed = False

    def _decide(
        self,
        candidate: Candidate,
        before: Served | None,
        verdict: Literal["pass", "fail"],
        action: Action,
        reason: str,
        events: Sequence[str] = (),
        log: Sequence[str] = (),
    ) -> Decision:
        inside = f"http://{workload_name(self.service)}.{self.settings.namespace}.svc.cluster.local"
        path = f"/v1/models/{self.service}:predict"
        outside = f"http://{self.settings.hostname}" if self._routed else inside
        self._say(reason)
        return Decision(
            verdict=verdict,
            reason=reason,
            action=action,
            namespace=self.settings.namespace,
            service=self.service,
            version=candidate.version,
            storage_uri=candidate.storage_uri,
            previous_version=before.version if before else "",
            previous_storage_uri=before.storage_uri if before else "",
            url=outside + path,
            cluster_url=inside + path,
            golden=self._golden,
            steps=self._steps,
            happenings=self._happenings,
            events=list(events),
            log=list(log),
        )

    def _say(self, text: str) -> None:
        self._happenings.append(Happening(at=datetime.now(UTC), text=text))
        print(f"deploy_model: {text}", flush=True)


def _is_newer(live: str, candidate: str) -> bool:
    """Tells whether a version of the model store has been overtaken."""
    numbers = [_VERSION.fullmatch(version) for version in (live, candidate)]
    return all(numbers) and int(numbers[0][1]) > int(numbers[1][1])  # type: ignore[index]
