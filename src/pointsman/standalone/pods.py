"""One pod: its volumes, its processes, its readiness, and the object that shows them."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp

from pointsman.resources.base import ObjectMeta, OwnerReference, Ref
from pointsman.resources.conditions import Condition, merge
from pointsman.resources.core import (
    PORTS_ANNOTATION,
    Container,
    Pod,
    PodSpec,
    Probe,
)
from pointsman.sources.clock import now_text
from pointsman.standalone import images, probes
from pointsman.standalone.addresses import Place
from pointsman.standalone.environment import variables, with_references
from pointsman.standalone.launchers import Launcher
from pointsman.standalone.processes import Command, Output, Process
from pointsman.standalone.volumes import write_volumes
from pointsman.store import Store

Outputs = Callable[[str], Output]
"""Gives the kept output of a process by its name."""


@dataclass(slots=True)
class _Running:
    """A container and its process."""

    container: Container
    process: Process
    probe: Probe | None
    is_ready: bool = False


@dataclass(frozen=True, slots=True)
class PodPlan:
    """What a pod is to be."""

    namespace: str
    name: str
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: PodSpec
    owner: OwnerReference

    @property
    def ref(self) -> Ref:
        """The Pod object's reference."""
        return Ref(Pod.KIND.group, Pod.KIND.kind, self.namespace, self.name)


class RunningPod:
    """A pod that lives for as long as `run` does; its object in the store follows it."""

    def __init__(
        self,
        plan: PodPlan,
        place: Place,
        folder: Path,
        feed: Path,
        store: Store,
        outputs: Outputs,
        launcher: Launcher,
    ) -> None:
        self.plan = plan
        self.place = place
        self._folder = folder
        self._feed = feed
        self._store = store
        self._outputs = outputs
        self._launcher = launcher
        self._containers: list[_Running] = []
        self._admin_sockets: list[Path] = []
        self._created = now_text()
        self._uid = str(uuid.uuid4())
        self._deleted: str | None = None

    @property
    def is_ready(self) -> bool:
        """Every container has said so, and the pod is not leaving."""
        return (
            self._deleted is None
            and bool(self._containers)
            and all(item.is_ready for item in self._containers)
        )

    @property
    def admin_sockets(self) -> tuple[Path, ...]:
        """Where pickers among its containers answer questions."""
        return tuple(self._admin_sockets)

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Run the containers until this is cancelled; then nothing of the pod is left."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.refresh_volumes()
        self._containers = [self._prepare(item) for item in containers_to_run(self.plan.spec)]
        try:
            async with AsyncExitStack() as stack:
                for item in self._containers:
                    await stack.enter_async_context(item.process.running())
                self._show()
                async with asyncio.TaskGroup() as group:
                    for item in self._containers:
                        group.create_task(self._watch(item, session))
        finally:
            self._store.apply(deleted=[self.plan.ref])
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    def refresh_volumes(self) -> None:
        """Bring the files of ConfigMaps and Secrets up to date."""
        write_volumes(self._store, self.plan.namespace, self.plan.spec, self._folder)

    def mark_deleted(self) -> None:
        """No new requests from now on: the object says that the pod is leaving."""
        if self._deleted is None:
            self._deleted = now_text()
            self._show()

    def _prepare(self, container: Container) -> _Running:
        volumes = write_volumes(self._store, self.plan.namespace, self.plan.spec, self._folder)
        mounts = {mount.mount_path: volumes[mount.name] for mount in container.volume_mounts}
        around = images.Surroundings(self.place, self._folder, self._feed, mounts)
        environment = self._environment(container, around)
        found = self._launcher.launch(with_references(container, environment), around)
        if found is None:
            raise ValueError(f"image {container.image!r} is not known")
        if found.admin_socket is not None:
            self._admin_sockets.append(found.admin_socket)
        name = f"{self.plan.namespace}/{self.plan.name}/{container.name}"
        command = Command(
            name,
            found.argv,
            environment,
            grace_s=float(self.plan.spec.termination_grace_period_seconds),
        )
        process = Process(command, self._outputs(name), self._show)
        return _Running(container, process, container.readiness_probe or found.readiness)

    def _environment(self, container: Container, around: images.Surroundings) -> dict[str, str]:
        fields = {
            "metadata.name": self.plan.name,
            "metadata.namespace": self.plan.namespace,
            "status.podIP": self.place.ip,
        }
        found = variables(container, fields, self._store, self.plan.namespace)
        # With its pod's name a model server says in its answers which one it is.
        names = {"POD_NAME": self.plan.name, "POD_NAMESPACE": self.plan.namespace}
        return names | {name: around.local_path(value) for name, value in found.items()}

    async def _watch(self, item: _Running, session: aiohttp.ClientSession) -> None:
        """Keep `is_ready` of a container true to what its probe says."""
        failures = 0
        while True:
            if item.process.is_running:
                ready = item.probe is None or await probes.is_ready(
                    session, item.probe, item.container, self.place
                )
                failures = 0 if ready else failures + 1
                if item.probe is not None and failures < item.probe.failure_threshold:
                    # A server that is busy answers late: that alone does not make it leave.
                    ready = ready or item.is_ready
            else:
                ready = False
            if ready != item.is_ready:
                item.is_ready = ready
                self._show()
            pause_s = probes.FIRST_PERIOD_S
            if item.probe is not None:
                pause_s = probes.period_s(item.probe, was_ready=item.is_ready)
            await item.process.changed(pause_s)

    def _show(self) -> None:
        """Put the Pod object into the store as the pod now is."""
        plan = self.plan
        annotations = dict(plan.annotations)
        if self.place.is_shared:
            pairs = (f"{port}={real}" for port, real in sorted(self.place.ports.items()))
            annotations[PORTS_ANNOTATION] = ",".join(pairs)
        for item in self._containers:
            item.is_ready = item.is_ready and item.process.is_running
        meta = ObjectMeta(
            name=plan.name,
            namespace=plan.namespace,
            labels=plan.labels,
            annotations=annotations,
            generation=1,
            uid=self._uid,
            creation_timestamp=self._created,
            deletion_timestamp=self._deleted,
            owner_references=(plan.owner,),
        )
        old = self._store.get(Pod, plan.namespace, plan.name)
        pod = Pod(api_version="v1", kind="Pod", metadata=meta, spec=plan.spec)
        self._store.apply([pod.with_status(self._status(old))])

    def _status(self, old: Pod | None) -> dict[str, Any]:
        ready = TRUE if self.is_ready else FALSE
        waiting = [item for item in self._containers if not item.is_ready]
        message = "; ".join(_waiting_for(item) for item in waiting)
        condition = Condition("Ready", ready, "Ready" if not waiting else "NotReady", message, 1)
        before = (old.status or {}).get("conditions", []) if old is not None else []
        return {
            "phase": "Running"
            if any(c.process.is_running for c in self._containers)
            else "Pending",
            "podIP": self.place.ip,
            "hostIP": self.place.ip,
            "startTime": self._created,
            "conditions": merge(before, [condition], now_text()),
            "containerStatuses": [
                {
                    "name": item.container.name,
                    "image": item.container.image,
                    "ready": item.is_ready,
                    "restartCount": item.process.restarts,
                }
                for item in self._containers
            ],
        }


TRUE: Literal["True"] = "True"
FALSE: Literal["False"] = "False"


def containers_to_run(spec: PodSpec) -> list[Container]:
    """The containers and sidecars of a pod.

    Other init containers prepare what the real image needs (a model on a disk); our stand-ins need
    none of it.
    """
    return [*(item for item in spec.init_containers if item.is_sidecar), *spec.containers]


def _waiting_for(item: _Running) -> str:
    if item.process.problem and not item.process.is_running:
        return f"container {item.container.name} {item.process.problem}"
    return f"container {item.container.name} is not ready"
