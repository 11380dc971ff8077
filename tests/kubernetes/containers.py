"""The life of one container: started, asked, started anew, and ended."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.kubernetes import probes
from tests.kubernetes.api import UNREACHABLE, ApiError, Object
from tests.kubernetes.container import Container
from tests.kubernetes.environment import ConfigError, Objects, environment, expand
from tests.kubernetes.images import ROOT, Image, image_for
from tests.kubernetes.linux import CAPABILITIES
from tests.kubernetes.names import resolver
from tests.kubernetes.volumes import Volumes

CHECKOUT = Path(__file__).parents[2]
BACKOFF_S = (0.5, 10.0)
"""Before the first and at most before any later start of one that ended; a kubelet takes longer."""
RETRY_S = 0.3
START_S = 30.0
LEAST_GRACE_S = 1.0
_DEFAULT = (
    "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW "
    "SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP"
)
DEFAULT_CAPABILITIES = tuple(_DEFAULT.split())
"""What the usual runtimes leave to a container that asks for nothing else."""

_log = logging.getLogger("node.containers")


class StartError(Exception):
    """The container's first process could not be started."""


@dataclass
class Scene:
    """What the containers of a pod share."""

    pod: Object
    objects: Objects
    volumes: Volumes
    folder: Path
    """For logs, and for who wants to enter a container."""
    network: int
    hosts: str
    changed: Any
    """Called when something of a status has changed."""


@dataclass
class Running:
    """A container's first process, and the launcher that waits for it."""

    pid: int
    launcher: asyncio.subprocess.Process
    started_at: str

    def kill(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


@dataclass
class Life:
    """One container of a pod."""

    spec: Object
    scene: Scene
    is_sidecar: bool = False
    must_succeed: bool = False
    """An init container that the pod waits for."""
    restarts: int = 0
    is_ready: bool = False
    has_started: bool = False
    state: Object = field(default_factory=lambda: _waiting("ContainerCreating"))
    last_state: Object = field(default_factory=dict)
    running: Running | None = None
    exit_code: int | None = None
    """Once it has ended for good."""
    is_kept: bool = False
    """It is, or was, run."""
    is_leaving: bool = False
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """It has started: what comes after a sidecar may start too."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """It will not be started any more."""
    _leave: asyncio.Event = field(default_factory=asyncio.Event)
    _ask: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def name(self) -> str:
        name: str = self.spec["name"]
        return name

    async def keep(self) -> None:
        """Run it as often as its policy says."""
        self.is_kept = True
        wait_s = BACKOFF_S[0]
        try:
            while not self.is_leaving:
                begun = asyncio.get_running_loop().time()
                code = await self._once()
                if self.is_leaving or not self._comes_again(code):
                    self.exit_code = code
                    break
                if asyncio.get_running_loop().time() - begun > 10 * BACKOFF_S[1]:
                    wait_s = BACKOFF_S[0]
                self.last_state = self.state
                self._set(_waiting("CrashLoopBackOff", f"back-off {wait_s:g}s restarting"))
                await _first(self._leave.wait(), asyncio.sleep(wait_s))
                wait_s = min(2 * wait_s, BACKOFF_S[1])
                self.restarts += 1
            if self.exit_code is None:
                self.exit_code = 0 if self.running is None else 137
        finally:
            self._kill(signal.SIGKILL)
            self.ended.set()
            self.scene.changed()

    async def stop(self, deadline: float, hurry: asyncio.Event) -> None:
        """Run its preStop hook, ask it to end, and end it at the deadline (of the loop's clock)."""
        loop = asyncio.get_running_loop()
        self.is_leaving = True
        self._leave.set()
        if self.running is not None:
            hook = (self.spec.get("lifecycle") or {}).get("preStop")
            if hook:
                await _first(
                    self._hook(hook),
                    hurry.wait(),
                    self.ended.wait(),
                    timeout_s=deadline - loop.time(),
                )
            number = self.scene.pod["spec"].get("stopSignal") or "SIGTERM"
            self._kill(signal.Signals[number])
            remaining = max(deadline - loop.time(), LEAST_GRACE_S)
            await _first(self.ended.wait(), hurry.wait(), timeout_s=remaining)
            self._kill(signal.SIGKILL)
        await self.ended.wait()

    def status(self) -> Object:
        """As a pod's status shows it."""
        found = {
            "name": self.name,
            "image": self.spec.get("image", ""),
            "imageID": f"local/{self.spec.get('image', '')}",
            "ready": self.is_ready,
            "started": self.has_started,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last_state,
        }
        if self.running is not None:
            found["containerID"] = f"process://{self.running.pid}"
        return found

    async def run(self, command: Sequence[str]) -> tuple[int, str]:
        """Exit code and output of a command in the container."""
        entry = self.scene.folder / f"{self.name}.json"
        try:
            line = entering(json.loads(entry.read_text()), command)
        except OSError as error:
            return 1, str(error)
        process = await asyncio.create_subprocess_exec(
            *line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        return process.returncode or 0, output.decode(errors="replace")

    def _comes_again(self, code: int) -> bool:
        policy = self.scene.pod["spec"].get("restartPolicy", "Always")
        if self.is_sidecar:
            return True
        if self.must_succeed:
            return code != 0 and policy != "Never"
        return policy == "Always" or (policy == "OnFailure" and code != 0)

    async def _once(self) -> int:
        """The exit code of one run."""
        while True:
            try:
                running = await self._started()
                break
            except (ConfigError, ApiError, *UNREACHABLE) as error:
                self._set(_waiting("CreateContainerConfigError", str(error)))
                await _first(self._leave.wait(), asyncio.sleep(RETRY_S))
                if self.is_leaving:
                    return 0
            except StartError as error:
                _log.warning("%s: %s", self.name, error)
                self._set(_ended(128, "StartError", _now(), str(error)))
                return 128
        self.running = running
        self._set({"running": {"startedAt": running.started_at}})
        if self.is_leaving:
            running.kill(signal.SIGKILL)
        asking = asyncio.create_task(self._watch_over())
        code = await running.launcher.wait()
        asking.cancel()
        (trouble,) = await asyncio.gather(asking, return_exceptions=True)
        if isinstance(trouble, Exception):
            _log.error("the probes of %s: %r", self.name, trouble)
        self.running = None
        self.is_ready = self.has_started = False
        reason = "Completed" if code == 0 else "Error"
        self._set(_ended(code, reason, running.started_at))
        return code

    async def _started(self) -> Running:
        variables = environment(self.spec, self.scene.pod, self.scene.objects)
        texts = {
            key: [expand(text, variables) for text in self.spec.get(key) or ()]
            for key in ("command", "args")
        }
        image = image_for({**self.spec, **texts})
        if image is None:
            raise ConfigError(f"nothing runs in the place of {self.spec.get('image')}")
        container = self._container(image, variables)
        log = self.scene.folder / f"{self.name}.{self.restarts}.log"
        reading, writing = os.pipe()
        try:
            with log.open("ab") as output:
                launcher = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-S", "-E", "-m", "tests.kubernetes.container"),
                    str(writing),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    pass_fds=(writing, self.scene.network),
                    cwd=CHECKOUT,
                )
        finally:
            os.close(writing)
        assert launcher.stdin is not None
        launcher.stdin.write(container.to_json().encode())
        launcher.stdin.close()
        answer = await asyncio.to_thread(_read_line, reading)
        if "pid" not in answer:
            with suppress(ProcessLookupError):
                launcher.kill()
            await launcher.wait()
            raise StartError(answer.get("error", "the launcher has ended"))
        entry = {
            "pid": answer["pid"],
            "user": container.user,
            "group": container.group,
            "environment": container.environment,
        }
        (self.scene.folder / f"{self.name}.json").write_text(json.dumps(entry))
        return Running(answer["pid"], launcher, _now())

    def _container(self, image: Image, variables: dict[str, str]) -> Container:
        pod = self.scene.pod
        whole = pod["spec"].get("securityContext") or {}
        own = {**whole, **(self.spec.get("securityContext") or {})}
        user = own.get("runAsUser", image.user)
        if own.get("runAsNonRoot") and user == ROOT:
            raise ConfigError("container has runAsNonRoot and image will run as root")
        groups = [*whole.get("supplementalGroups", ())]
        if "fsGroup" in whole:
            groups.append(whole["fsGroup"])
        name = pod["spec"].get("hostname") or pod["metadata"]["name"]
        path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        given = {
            "PATH": path,
            "HOME": "/root" if user == ROOT else "/",
            "HOSTNAME": name,
        }
        kept = {str(CHECKOUT), sys.prefix, sys.base_prefix}
        return Container(
            arguments=list(image.arguments),
            environment={**given, **variables},
            network=self.scene.network,
            hostname=name,
            files={
                "/etc/hosts": self.scene.hosts,
                "/etc/hostname": f"{name}\n",
                "/etc/resolv.conf": resolver(pod["metadata"]["namespace"]),
            },
            mounts=self.scene.volumes.mounts(self.spec, variables),
            kept=sorted(kept),
            user=user,
            group=own.get("runAsGroup", user),
            groups=groups,
            capabilities=_capabilities(own),
            may_gain_privileges=own.get("allowPrivilegeEscalation", True),
            is_root_read_only=own.get("readOnlyRootFilesystem", False),
            folder=self.spec.get("workingDir") or "/",
        )

    # --- Asking ---------------------------------------------------------------------------------

    async def _watch_over(self) -> None:
        """All of its probes, the startup probe first, until this is cancelled."""
        patient = self._patient()
        hook = (self.spec.get("lifecycle") or {}).get("postStart")
        if hook:
            trouble = await self._hook(hook)
            if trouble:
                _log.warning("postStart of %s: %s", self.name, trouble)
        if "startupProbe" in self.spec:
            started = asyncio.Event()

            def first(is_well: bool, trouble: str) -> None:
                if is_well:
                    started.set()
                else:
                    self._end_unwell(f"startup probe failed: {trouble}")

            watch = probes.watch(self.spec["startupProbe"], patient, first, is_eager=True)
            await _first(watch, started.wait())
        self.has_started = True
        self.begun.set()
        async with asyncio.TaskGroup() as group:
            if "readinessProbe" in self.spec:
                readiness = self.spec["readinessProbe"]
                group.create_task(probes.watch(readiness, patient, self._set_ready, is_eager=True))
            else:
                self._set_ready(True, "")
            if "livenessProbe" in self.spec:
                liveness = self.spec["livenessProbe"]
                group.create_task(probes.watch(liveness, patient, self._set_alive, is_eager=False))

    def _patient(self) -> probes.Patient:
        ports = {
            item["name"]: item["containerPort"]
            for item in self.spec.get("ports") or ()
            if item.get("name")
        }
        return probes.Patient(self.scene.pod["status"]["podIP"], ports, self.run)

    def _set_ready(self, is_ready: bool, trouble: str) -> None:
        if trouble:
            _log.info("%s is not ready: %s", self.name, trouble)
        self.is_ready = is_ready
        self.scene.changed()

    def _set_alive(self, is_alive: bool, trouble: str) -> None:
        if not is_alive:
            self._end_unwell(f"liveness probe failed: {trouble}")

    def _end_unwell(self, trouble: str) -> None:
        _log.warning("%s is ended: %s", self.name, trouble)
        self._kill(signal.SIGTERM)
        grace = self.scene.pod["spec"].get("terminationGracePeriodSeconds", 30)
        running = self.running

        def end() -> None:
            if running is not None and self.running is running:
                running.kill(signal.SIGKILL)

        asyncio.get_running_loop().call_later(grace, end)

    async def _hook(self, hook: Object) -> str:
        if "sleep" in hook:
            await asyncio.sleep(hook["sleep"].get("seconds", 0))
            return ""
        return await probes.ask(hook, self._patient())

    def _kill(self, number: signal.Signals) -> None:
        if self.running is not None:
            self.running.kill(number)

    def _set(self, state: Object) -> None:
        self.state = state
        self.scene.changed()


def entering(entry: Object, command: Sequence[str]) -> list[str]:
    """The command line that runs a command in a container, as its user and in its environment."""
    who = (f"--reuid={entry['user']}", f"--regid={entry['group']}", "--clear-groups")
    variables = [f"{key}={value}" for key, value in entry["environment"].items()]
    return [
        *("nsenter", f"--target={entry['pid']}", "--mount", "--net", "--pid", "--ipc", "--uts"),
        # What is run ends with who asked for it.
        *("--root", "--wd", "setpriv", "--pdeathsig", "KILL", *who),
        *("env", "-i", *variables, *command),
    ]


def _capabilities(context: Object) -> list[str]:
    if context.get("privileged"):
        return list(CAPABILITIES)
    asked = context.get("capabilities") or {}
    dropped = {name.removeprefix("CAP_") for name in asked.get("drop") or ()}
    added = [name.removeprefix("CAP_") for name in asked.get("add") or ()]
    kept = [] if "ALL" in dropped else [n for n in DEFAULT_CAPABILITIES if n not in dropped]
    return [*kept, *(CAPABILITIES if "ALL" in added else added)]


def _read_line(handle: int) -> Object:
    with os.fdopen(handle) as file:
        line = file.readline()
    found: Object = json.loads(line) if line else {}
    return found


def _waiting(reason: str, message: str = "") -> Object:
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def _ended(code: int, reason: str, started_at: str, message: str = "") -> Object:
    about = {"exitCode": code, "reason": reason, "startedAt": started_at, "finishedAt": _now()}
    if code > 128 and reason == "Error":
        about["signal"] = code - 128
    return {"terminated": {**about, **({"message": message} if message else {})}}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def _first(*waits: Any, timeout_s: float | None = None) -> None:
    """Until the first of these has ended, which ends the others; an error of it is raised."""
    tasks = [asyncio.ensure_future(item) for item in waits]
    try:
        limit = max(timeout_s, 0) if timeout_s is not None else None
        done, _ = await asyncio.wait(tasks, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
