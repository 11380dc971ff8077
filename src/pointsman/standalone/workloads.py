"""Deployments as pods on this machine.

A Deployment's pods are named by a hash of its template. When the template changes, the pods of the
new one start first; those of the old one leave once the new ones are ready, so that a change drops
no request. A Deployment with an image that nobody knows keeps the pods it has and says why.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from pointsman.resources.apps import Deployment
from pointsman.resources.base import OwnerReference, Ref
from pointsman.resources.core import ConfigMap, Secret
from pointsman.standalone import images
from pointsman.standalone.addresses import Addresses, NoAddressError, Place
from pointsman.standalone.launchers import Launcher
from pointsman.standalone.pods import Outputs, PodPlan, RunningPod, containers_to_run
from pointsman.store import Change, Store

HASH_DIGITS = 10
LEAVE_S = 0.3
"""From the mark that a pod is leaving to its SIGTERM: Envoy and pickers learn of it first."""
RECHECK_S = 5.0
"""How often to look even when nothing changed: a pod that could not be made is tried again."""
MAX_PODS = 200
"""Of one instance; more local processes than this are a mistake on one machine."""

SetStatus = Callable[[Ref, dict[str, Any]], None]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Entry:
    pod: RunningPod
    task: asyncio.Task[None]
    deployment: Ref
    template: str
    is_leaving: bool = False
    failure: str = ""
    """Why the pod could not be made; it is forgotten after a while and tried again."""


class Workloads:
    """Keeps the pods of all Deployments as the store wants them."""

    def __init__(
        self,
        store: Store,
        addresses: Addresses,
        folder: Path,
        feed: Path,
        outputs: Outputs,
        set_status: SetStatus,
        launcher: Launcher,
    ) -> None:
        self._store = store
        self._addresses = addresses
        self._folder = folder
        self._feed = feed
        self._outputs = outputs
        self._set_status = set_status
        self._launcher = launcher
        self._entries: dict[Ref, _Entry] = {}

    @property
    def picker_sockets(self) -> list[Path]:
        """Where the pickers among the pods answer questions."""
        return [path for entry in self._entries.values() for path in entry.pod.admin_sockets]

    @property
    def waiting(self) -> list[str]:
        """Deployments that are not as they should be, with the reason."""
        return [
            f"{item.ref}: {condition['message']}"
            for item in self._store.list(Deployment)
            for condition in (item.status or {}).get("conditions", [])
            if condition["type"] == "Available" and condition["status"] != "True"
        ]

    async def run(self) -> None:
        """Follow the store until cancelled; then end every pod."""
        async with aiohttp.ClientSession() as session:
            try:
                with self._store.subscribe() as subscription:
                    while True:
                        self._reconcile(session)
                        with suppress(TimeoutError):
                            async with asyncio.timeout(RECHECK_S):
                                changes = await subscription.batch()
                            self._refresh_volumes(changes)
            finally:
                await self._end_all()

    def _refresh_volumes(self, changes: tuple[Change, ...]) -> None:
        sources = {(cls.KIND.group, cls.KIND.kind) for cls in (ConfigMap, Secret)}
        if any((change.ref.group, change.ref.kind) in sources for change in changes):
            for entry in self._entries.values():
                try:
                    entry.pod.refresh_volumes()
                except OSError as error:
                    log.error(
                        "volumes of %s: %s; they stay as they were", entry.pod.plan.ref, error
                    )

    def _reconcile(self, session: aiohttp.ClientSession) -> None:
        deployments = {item.ref: item for item in self._store.list(Deployment)}
        for ref, deployment in deployments.items():
            self._reconcile_one(deployment, session)
            self._set_status(ref, self._status(deployment))
        for entry in list(self._entries.values()):
            if entry.deployment not in deployments:
                self._leave(entry)

    def _reconcile_one(self, deployment: Deployment, session: aiohttp.ClientSession) -> None:
        mine = [
            entry
            for entry in self._entries.values()
            if entry.deployment == deployment.ref and not entry.is_leaving
        ]
        if unknown_images(deployment, self._launcher):
            return
        template = template_hash(deployment)
        current = [entry for entry in mine if entry.template == template]
        for index in range(deployment.spec.replicas):
            plan = _plan(deployment, template, index)
            if plan.ref not in self._entries and len(self._entries) < MAX_PODS:
                self._start(plan, deployment.ref, template, session)
        surplus = {
            entry.pod.plan.ref
            for entry in current
            if int(entry.pod.plan.name.rpartition("-")[2]) >= deployment.spec.replicas
        }
        ready = [entry for entry in current if entry.pod.is_ready]
        is_replaced = len(ready) >= deployment.spec.replicas
        for entry in mine:
            outdated = entry.template != template and is_replaced
            if outdated or entry.pod.plan.ref in surplus:
                self._leave(entry)

    def _start(
        self, plan: PodPlan, deployment: Ref, template: str, session: aiohttp.ClientSession
    ) -> None:
        try:
            place = self._addresses.take()
        except NoAddressError as error:
            log.error("%s: %s", plan.ref, error)
            return
        folder = self._folder / f"{plan.namespace}.{plan.name}"
        pod = RunningPod(
            plan, place, folder, self._feed, self._store, self._outputs, self._launcher
        )
        task = asyncio.create_task(pod.run(session), name=str(plan.ref))
        self._entries[plan.ref] = _Entry(pod, task, deployment, template)
        task.add_done_callback(lambda done: self._ended(plan.ref, place, done))

    def _leave(self, entry: _Entry) -> None:
        if entry.is_leaving:
            return
        entry.is_leaving = True
        entry.pod.mark_deleted()
        asyncio.get_running_loop().call_later(LEAVE_S, entry.task.cancel)

    def _ended(self, ref: Ref, place: Place, task: asyncio.Task[None]) -> None:
        self._addresses.give_back(place)
        problem = None if task.cancelled() else task.exception()
        entry = self._entries.get(ref)
        if problem is None or entry is None:
            self._entries.pop(ref, None)
            return
        log.error("%s cannot be made: %s", ref, problem)
        entry.failure = str(problem)
        owner = self._store.find(entry.deployment)
        if isinstance(owner, Deployment):
            self._set_status(owner.ref, self._status(owner))
        asyncio.get_running_loop().call_later(RECHECK_S, self._entries.pop, ref, None)

    async def _end_all(self) -> None:
        tasks = [entry.task for entry in self._entries.values()]
        for task in tasks:
            task.cancel()
        # What a pod's end raises has been told by `_ended`.
        await asyncio.gather(*tasks, return_exceptions=True)

    def _status(self, deployment: Deployment) -> dict[str, Any]:
        template = template_hash(deployment)
        mine = [entry for entry in self._entries.values() if entry.deployment == deployment.ref]
        staying = [entry for entry in mine if not entry.is_leaving]
        ready = sum(entry.pod.is_ready for entry in staying)
        wanted = deployment.spec.replicas
        unknown = unknown_images(deployment, self._launcher)
        if unknown:
            reason, message = "UnknownImage", unknown
        elif ready < wanted:
            reasons = [entry.failure for entry in staying if entry.failure]
            if len(self._entries) >= MAX_PODS:
                reasons.append(f"at most {MAX_PODS} pods run on one machine")
            told = "".join(f"; {text}" for text in dict.fromkeys(reasons))
            reason, message = "PodsNotReady", f"{ready} of {wanted} pods are ready{told}"
        else:
            reason, message = "PodsReady", f"{ready} of {wanted} pods are ready"
        condition = {
            "type": "Available",
            "status": "True" if not unknown and ready >= wanted else "False",
            "reason": reason,
            "message": message,
            "observedGeneration": deployment.metadata.generation,
        }
        return {
            "observedGeneration": deployment.metadata.generation,
            "replicas": len(staying),
            "updatedReplicas": sum(entry.template == template for entry in staying),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "conditions": [condition],
        }


def unknown_images(deployment: Deployment, launcher: Launcher) -> str:
    """What to say of images that nobody knows; "" where there are none."""
    unknown = [
        f"image {item.image!r} of container {item.name} is not known here"
        for item in containers_to_run(deployment.spec.template.spec)
        if not launcher.knows(item)
    ]
    if not unknown:
        return ""
    return f"{'; '.join(unknown)}; served are: {images.known_images()}"


def template_hash(deployment: Deployment) -> str:
    """Changes when what the pods are made from changes."""
    text = json.dumps(deployment.spec.template.to_dict(), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=HASH_DIGITS // 2).hexdigest()


def _plan(deployment: Deployment, template: str, index: int) -> PodPlan:
    meta = deployment.metadata
    source = deployment.spec.template
    return PodPlan(
        namespace=meta.namespace,
        name=f"{meta.name}-{template}-{index}",
        labels={**source.metadata.labels, "pod-template-hash": template},
        annotations=dict(source.metadata.annotations),
        spec=source.spec,
        owner=OwnerReference(
            api_version=deployment.KIND.api_version,
            kind=deployment.KIND.kind,
            name=meta.name,
            uid=meta.uid,
            controller=True,
        ),
    )
