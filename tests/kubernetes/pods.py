"""What a scheduler and a kubelet do: each pod is bound to the node, run, reported and ended."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.kubernetes.api import PAUSE_S, UNREACHABLE, Api, ApiError, Key, Mirror, Object
from tests.kubernetes.containers import Life, Scene
from tests.kubernetes.environment import ConfigError
from tests.kubernetes.images import image_for
from tests.kubernetes.network import (
    CLUSTER_DOMAIN,
    NODE_ADDRESS,
    Network,
    NetworkError,
    PodNetwork,
)
from tests.kubernetes.services import Services
from tests.kubernetes.volumes import Volumes

RETRY_S = 0.3
TICK_S = 20.0
"""How often volumes are looked at without a change: tokens are renewed."""

SAFE_SYSCTLS = re.compile(
    r"net\.ipv4\.(ip_unprivileged_port_start|ip_local_port_range|ip_local_reserved_ports"
    r"|ping_group_range|tcp_(syncookies|keepalive_time|keepalive_intvl|keepalive_probes|fin_timeout"
    r"|rmem|wmem))"
)
"""Those that a kubelet takes without being told to, as far as they belong to a network."""

_log = logging.getLogger("node.pods")


@dataclass
class References:
    """The objects that pods refer to."""

    config_maps: Mapping[Key, Object]
    secrets: Mapping[Key, Object]
    services: Mapping[Key, Object]


class Pods:
    """All pods of the cluster: there is one node."""

    def __init__(
        self, api: Api, network: Network, services: Services, node: str, folder: Path
    ) -> None:
        self._api = api
        self._network = network
        self._node = node
        self._folder = folder
        self._pods = Mirror(api, "/api/v1/pods", self._changed)
        self._config_maps = Mirror(api, "/api/v1/configmaps", self._source_changed)
        self._secrets = Mirror(api, "/api/v1/secrets", self._source_changed)
        self._references = References(
            self._config_maps.objects, self._secrets.objects, services.services.objects
        )
        self._lives: dict[str, Pod] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Follow the cluster for ever."""
        async with asyncio.TaskGroup() as self._group:
            self._group.create_task(self._config_maps.run())
            self._group.create_task(self._secrets.run())
            await self._config_maps.is_filled.wait()
            await self._secrets.is_filled.wait()
            self._group.create_task(self._pods.run())

    def _changed(self, key: Key, found: Object | None) -> None:
        if found is None:
            for life in [item for item in self._lives.values() if item.key == key]:
                life.vanish()
            return
        spec, meta = found["spec"], found["metadata"]
        if not spec.get("nodeName"):
            if "deletionTimestamp" not in meta and not spec.get("schedulingGates"):
                self._spawn(self._bind(found))
            return
        if spec["nodeName"] != self._node:
            return
        if meta["uid"] in self._lives:
            self._lives[meta["uid"]].update(found)
        elif (found.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            self._begin(found)

    def _begin(self, found: Object) -> None:
        namespace, name = found["metadata"]["namespace"], found["metadata"]["name"]
        folder = self._folder / "pods" / namespace / name
        # A pod of the same name may have been here before.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        life = Pod(found, self._api, self._network, self._references, folder)
        self._lives[found["metadata"]["uid"]] = life

        async def live() -> None:
            try:
                await life.run()
            except Exception:
                _log.exception("pod %s/%s", namespace, name)
            finally:
                del self._lives[life.uid]

        self._spawn(live())

    def _source_changed(self, key: Key, found: Object | None) -> None:
        for life in self._lives.values():
            if life.key[0] == key[0]:
                life.refresh.set()

    async def _bind(self, pod: Object) -> None:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "uid": pod["metadata"]["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": self._node},
        }
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/binding"
        while True:
            try:
                await self._api.request("POST", path, body)
            except ApiError as error:
                # Bound already, or gone.
                if error.status not in (404, 409):
                    _log.warning("binding %s/%s: %s", namespace, name, error)
            except UNREACHABLE:
                await asyncio.sleep(PAUSE_S)
                continue
            return

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._group is not None
        self._group.create_task(work)


class Pod:
    """The life of one pod on the node."""

    def __init__(
        self,
        found: Object,
        api: Api,
        network: Network,
        references: References,
        folder: Path,
    ) -> None:
        self.found = found
        self.uid: str = found["metadata"]["uid"]
        self.key: Key = (found["metadata"]["namespace"], found["metadata"]["name"])
        self.refresh = asyncio.Event()
        self._api = api
        self._network = network
        self._references = references
        self._folder = folder
        self._volumes = Volumes(folder / "volumes", api, references)
        self._place: PodNetwork | None = None
        self._waits_for = "ContainerCreating"
        self._message = ""
        self._failure = ""
        self._init: list[Life] = []
        self._main: list[Life] = []
        self._is_initialized = False
        self._changed = asyncio.Event()
        self._leaving = asyncio.Event()
        self._hurry = asyncio.Event()
        self._has_vanished = False
        self._conditions: dict[str, Object] = {}
        self._sent: Object = {}

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self.key[0]}/pods/{self.key[1]}"

    def update(self, found: Object) -> None:
        """The object has changed."""
        status = self.found.get("status") or {}
        self.found = {**found, "status": {**(found.get("status") or {}), **_addresses(status)}}
        for life in (*self._init, *self._main):
            life.scene.pod = self.found
        if "deletionTimestamp" in found["metadata"]:
            self._leaving.set()
        self.refresh.set()

    def vanish(self) -> None:
        """The object is gone: nothing is waited for any more."""
        self._has_vanished = True
        self._leaving.set()
        self._hurry.set()

    async def run(self) -> None:
        """From the first look to the last word about it."""
        if "deletionTimestamp" in self.found["metadata"]:
            self._leaving.set()
        async with asyncio.TaskGroup() as group:
            reports = group.create_task(self._report())
            refreshes = group.create_task(self._keep_volumes())
            living = group.create_task(self._live(group))
            await self._leaving.wait()
            living.cancel()
            await self._end()
            reports.cancel()
            refreshes.cancel()
        if self._place is not None:
            with suppress(NetworkError):
                await self._network.remove_pod(self._place)
        await self._say_last_word()
        # Logs stay for who looks for a fault; what the pod wrote does not.
        shutil.rmtree(self._folder / "volumes", ignore_errors=True)

    async def _live(self, group: asyncio.TaskGroup) -> None:
        if not await self._is_admitted():
            return
        await self._prepare()
        scene = self._scene()
        spec = self.found["spec"]
        self._init = [
            Life(
                item,
                scene,
                is_sidecar=item.get("restartPolicy") == "Always",
                must_succeed=item.get("restartPolicy") != "Always",
            )
            for item in spec.get("initContainers") or ()
        ]
        self._main = [Life(item, scene) for item in spec["containers"]]
        self._changed.set()
        for life in self._init:
            group.create_task(life.keep())
            await (life.begun if life.is_sidecar else life.ended).wait()
            if life.must_succeed and life.exit_code != 0:
                return
        self._is_initialized = True
        for life in self._main:
            group.create_task(life.keep())
        for life in self._main:
            await life.ended.wait()
        # All have ended for good; sidecars have nobody to serve.
        loop = asyncio.get_running_loop()
        for life in reversed([item for item in self._init if item.is_sidecar]):
            await life.stop(loop.time() + self._grace_s(), self._hurry)

    async def _is_admitted(self) -> bool:
        """Whether it can ever run here; an unknown image may change, a sysctl may not."""
        sysctls = self._sysctls()
        for name in sysctls:
            if not SAFE_SYSCTLS.fullmatch(name):
                self._failure = "SysctlForbidden"
                self._message = f'forbidden sysctl: "{name}" not allowlisted'
                self._changed.set()
                return False
        while True:
            spec = self.found["spec"]
            containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
            unknown = [item["image"] for item in containers if image_for(item) is None]
            if not unknown:
                return True
            self._waits_for = "ImagePullBackOff"
            self._message = f"nothing runs here in the place of {', '.join(unknown)}"
            self._changed.set()
            await self.refresh.wait()
            self.refresh.clear()

    async def _prepare(self) -> None:
        self._waits_for, self._message = "ContainerCreating", ""
        self._changed.set()
        while True:
            try:
                if self._place is None:
                    self._place = await self._network.add_pod(self._sysctls())
                    status = self.found.get("status") or {}
                    addresses = _addresses({"podIP": self._place.ip})
                    self.found = {**self.found, "status": {**status, **addresses}}
                    self._changed.set()
                await self._volumes.fill(self.found)
                return
            except (ConfigError, ApiError, NetworkError, *UNREACHABLE) as error:
                self._message = str(error)
                self._changed.set()
                await asyncio.sleep(RETRY_S)

    async def _keep_volumes(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self.refresh.wait()
            if not self._main:
                # Who prepares the pod looks by itself.
                await asyncio.sleep(RETRY_S)
                continue
            self.refresh.clear()
            try:
                await self._volumes.fill(self.found)
            except (ConfigError, ApiError, *UNREACHABLE) as error:
                _log.info("volumes of %s/%s: %s", *self.key, error)
                await asyncio.sleep(RETRY_S)
                self.refresh.set()

    async def _end(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._grace_s()
        begun = [life for life in self._main if self._is_initialized]
        await asyncio.gather(*(life.stop(deadline, self._hurry) for life in begun))
        for life in reversed(self._init):
            if life.is_kept:
                await life.stop(deadline, self._hurry)
            else:
                life.is_leaving = True

    def _grace_s(self) -> float:
        meta, spec = self.found["metadata"], self.found["spec"]
        given = meta.get("deletionGracePeriodSeconds")
        return float(given if given is not None else spec.get("terminationGracePeriodSeconds", 30))

    async def _say_last_word(self) -> None:
        """The last status, and that the object may go."""
        while not self._has_vanished:
            try:
                await self._send(self._status())
                body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
                await self._api.request("DELETE", self._path, body)
            except ApiError as error:
                if error.status not in (404, 409):
                    _log.warning("deleting %s/%s: %s", *self.key, error)
            except UNREACHABLE:
                await asyncio.sleep(PAUSE_S)
                continue
            return

    def _scene(self) -> Scene:
        assert self._place is not None
        name = self.found["spec"].get("hostname") or self.key[1]
        return Scene(
            pod=self.found,
            objects=self._references,
            volumes=self._volumes,
            folder=self._folder,
            network=self._place.namespace,
            hosts=self._hosts(name, self._place.ip),
            changed=self._changed.set,
        )

    def _hosts(self, name: str, ip: str) -> str:
        spec = self.found["spec"]
        own = name
        if spec.get("subdomain"):
            own = f"{name}.{spec['subdomain']}.{self.key[0]}.svc.{CLUSTER_DOMAIN} {name}"
        lines = ["127.0.0.1 localhost", "::1 localhost", f"{ip} {own}"]
        aliases = spec.get("hostAliases") or ()
        lines += [f"{item['ip']} {' '.join(item.get('hostnames') or ())}" for item in aliases]
        return "\n".join(lines) + "\n"

    def _sysctls(self) -> dict[str, str]:
        context = self.found["spec"].get("securityContext") or {}
        return {item["name"]: item["value"] for item in context.get("sysctls") or ()}

    # --- What is said about it ------------------------------------------------------------------

    async def _report(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._send(self._status())
            except ApiError as error:
                if error.status != 404:
                    _log.warning("status of %s/%s: %s", *self.key, error)
            except UNREACHABLE:
                self._changed.set()
                await asyncio.sleep(PAUSE_S)

    async def _send(self, status: Object) -> None:
        if status != self._sent:
            await self._api.patch_status(self._path, status)
            self._sent = status

    def _status(self) -> Object:
        phase = self._phase()
        are_ready = bool(self._main) and all(life.is_ready for life in self._main)
        sidecars = [life for life in self._init if life.is_sidecar]
        are_ready = are_ready and all(life.is_ready for life in sidecars)
        gates = self.found["spec"].get("readinessGates") or ()
        passed = all(self._has_passed(item["conditionType"]) for item in gates)
        for kind, holds in (
            ("PodReadyToStartContainers", self._place is not None),
            ("Initialized", self._is_initialized),
            ("ContainersReady", are_ready),
            ("Ready", are_ready and passed),
            ("PodScheduled", True),
        ):
            self._condition(kind, holds)
        status: Object = {
            "phase": phase,
            "conditions": list(self._conditions.values()),
            "hostIP": NODE_ADDRESS,
            "hostIPs": [{"ip": NODE_ADDRESS}],
            "containerStatuses": self._statuses(self._main, "containers"),
            "initContainerStatuses": self._statuses(self._init, "initContainers"),
            "startTime": self._conditions["PodScheduled"]["lastTransitionTime"],
            **_addresses(self.found.get("status") or {}),
        }
        if self._failure:
            status |= {"reason": self._failure, "message": self._message}
        return status

    def _statuses(self, lives: list[Life], group: str) -> list[Object]:
        if lives:
            return [life.status() for life in lives]
        reason = {"reason": self._waits_for, "message": self._message}
        return [
            {
                "name": item["name"],
                "image": item.get("image", ""),
                "imageID": "",
                "ready": False,
                "started": False,
                "restartCount": 0,
                "state": {"waiting": {key: text for key, text in reason.items() if text}},
            }
            for item in self.found["spec"].get(group) or ()
        ]

    def _phase(self) -> str:
        if self._failure:
            return "Failed"
        if any(life.must_succeed and life.exit_code for life in self._init):
            return "Failed"
        if not self._is_initialized:
            return "Pending"
        codes = [life.exit_code for life in self._main]
        if all(code is not None for code in codes):
            return "Succeeded" if not any(codes) else "Failed"
        if all("waiting" in life.state and not life.restarts for life in self._main):
            return "Pending"
        return "Running"

    def _condition(self, kind: str, holds: bool) -> None:
        known = self._conditions.get(kind)
        status = "True" if holds else "False"
        if known is None or known["status"] != status:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            fresh = {"type": kind, "status": status, "lastTransitionTime": now}
            if not holds and kind in ("Ready", "ContainersReady"):
                fresh["reason"] = "ContainersNotReady"
            self._conditions[kind] = fresh

    def _has_passed(self, kind: str) -> bool:
        conditions = (self.found.get("status") or {}).get("conditions") or ()
        return any(item["type"] == kind and item["status"] == "True" for item in conditions)


def _addresses(status: Object) -> Object:
    ip = status.get("podIP")
    return {"podIP": ip, "podIPs": [{"ip": ip}]} if ip else {}
