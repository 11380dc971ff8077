"""Model servers that already run, named on the command line: a gateway with no YAML at all.

Each becomes a Pod with an address, and all of them one pool behind one listener; which of them
serve a model, the picker learns from their lists of models. What kind of server it is shows in how
it answers; a server is ready while its kind's health path answers.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from pointsman.resources.base import Resource
from pointsman.resources.conditions import Condition, merge
from pointsman.resources.core import PORTS_ANNOTATION, Pod
from pointsman.resources.gateway_api import Gateway, GatewayClass, HTTPRoute
from pointsman.resources.inference_extension import InferencePool
from pointsman.resources.parse import parse_object
from pointsman.sources.clock import now_text
from pointsman.store import Store

POOL = "servers"
"""Name of the pool, the Gateway, the class and the route."""
PORT = 8000
"""The pool's port; each Pod's annotation says which port is behind it."""
ENGINE_LABEL = "llm-d.ai/engine-type"
POOL_LABEL = "pointsman.dev/pool"

PROBE_TIMEOUT_S = 2.0
PROBE_PERIOD_S = 1.0
FAILURE_THRESHOLD = 3
"""Questions in a row that a server may leave unanswered before it gets no more requests."""
RESOLVE_TIMEOUT_S = 5.0
MAX_SERVERS = 1000
_SNIFFED_BYTES = 256 * 1024
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?")
_PATHS = ("", "/", "/v1", "/v1/")

log = logging.getLogger(__name__)


class ServerError(ValueError):
    """A server that cannot be named so; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A kind of model server, and how it is told from the others."""

    name: str
    health: str
    """The path that answers 200 while it is well."""
    metrics_prefix: bytes = b""
    """How its own metrics begin."""
    own_path: str = ""
    """A path that only it answers with JSON."""


ENGINES = (
    Engine("vllm", "/health", b"vllm:", ""),
    Engine("sglang", "/health", b"sglang:", "/get_model_info"),
    Engine("llama.cpp", "/health", b"llamacpp:", "/props"),
    Engine("tgi", "/health", b"tgi_", "/info"),
    Engine("ollama", "/api/version", b"", "/api/version"),
)
"""Metrics decide first; a server without them is known by its own path."""

OPENAI = Engine("openai", "/v1/models")
"""Anything else that speaks the API."""


@dataclass(slots=True)
class External:
    """One server."""

    name: str
    host: str
    port: int
    ip: str = ""
    engine: Engine | None = None
    is_ready: bool = False
    problem: str = "not asked yet"
    models: tuple[str, ...] = ()
    """What it lists, as far as was read."""
    created: str = ""

    @property
    def url(self) -> str:
        """Where it answers."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def parse_servers(values: Iterable[str]) -> list[External]:
    """Servers from `NAME=URL[,URL...]`, each named NAME-0, NAME-1 and so on.

    Raises:
        ServerError: a value is not of that form.
    """
    result: list[External] = []
    for value in values:
        name, equals, urls = value.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise ServerError(
                f"expected NAME=URL[,URL...] with a name of lower-case letters, digits and '-', "
                f"got {value!r}"
            )
        taken = sum(item.name.rpartition("-")[0] == name for item in result)
        for index, url in enumerate(urls.split(",")):
            result.append(_parse_server(f"{name}-{taken + index}", url.strip()))
    if len(result) > MAX_SERVERS:
        raise ServerError(f"at most {MAX_SERVERS} servers, got {len(result)}")
    return result


def _parse_server(name: str, url: str) -> External:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ServerError(f"{url!r} is no URL: {error}") from error
    if parts.scheme != "http" or not parts.hostname or parts.path not in _PATHS or parts.username:
        raise ServerError(f"expected http://HOST[:PORT], got {url!r}")
    return External(name, parts.hostname, port or 80)


class ExternalServers:
    """Keeps the Pods of servers that run elsewhere as the servers are."""

    def __init__(self, store: Store, servers: Sequence[External], listener_port: int) -> None:
        self._store = store
        self._servers = tuple(servers)
        self._listener_port = listener_port

    @property
    def models(self) -> list[str]:
        """The models that the servers list, the first server's first."""
        return list(dict.fromkeys(name for item in self._servers for name in item.models))

    @property
    def is_settled(self) -> bool:
        """At least one is ready, or there is none."""
        return not self._servers or any(item.is_ready for item in self._servers)

    async def start(self) -> None:
        """Resolve the names and put the objects into the store.

        Raises:
            ServerError: a host has no address.
        """
        if not self._servers:
            return
        await asyncio.gather(*(_resolve(item) for item in self._servers))
        for item in self._servers:
            item.created = now_text()
        self._store.apply([*_objects(self._listener_port), *map(self._pod, self._servers)])

    async def run(self) -> None:
        """Ask every server how it is, until cancelled."""
        timeout = aiohttp.ClientTimeout(PROBE_TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            asyncio.TaskGroup() as group,
        ):
            for item in self._servers:
                group.create_task(self._watch(item, session))
            if not self._servers:
                await asyncio.get_running_loop().create_future()

    async def _watch(self, item: External, session: aiohttp.ClientSession) -> None:
        failures = 0
        while True:
            before = (item.engine, item.is_ready, item.problem)
            if item.engine is None:
                item.engine = await recognize(item, session)
                item.models = await _models(item, session)
            is_well, problem = await _health(item, session)
            failures = 0 if is_well else failures + 1
            if is_well or failures >= FAILURE_THRESHOLD or not item.is_ready:
                # A server that is busy answers late: that alone does not make it leave.
                item.is_ready, item.problem = is_well, problem
            if not item.is_ready:
                # What comes back at that address may be another kind.
                item.engine = None
            if before != (item.engine, item.is_ready, item.problem):
                self._store.apply([self._pod(item)])
                if item.is_ready and item.engine is not None:
                    log.info("%s at %s is %s", item.name, item.url, item.engine.name)
            await asyncio.sleep(PROBE_PERIOD_S)

    def _pod(self, item: External) -> Resource:
        old = self._store.get(Pod, "default", item.name)
        before = (old.status or {}).get("conditions", []) if old is not None else []
        ready = Condition(
            "Ready",
            "True" if item.is_ready else "False",
            "Ready" if item.is_ready else "NotReady",
            item.problem,
            1,
        )
        labels = {POOL_LABEL: POOL}
        if item.engine is not None:
            labels[ENGINE_LABEL] = item.engine.name
        return _made(
            {
                "apiVersion": Pod.KIND.api_version,
                "kind": Pod.KIND.kind,
                "metadata": {
                    "name": item.name,
                    "namespace": "default",
                    "labels": labels,
                    "annotations": {PORTS_ANNOTATION: f"{PORT}={item.port}"},
                    "generation": 1,
                    "creationTimestamp": item.created,
                },
                "status": {
                    "phase": "Running" if item.is_ready else "Unknown",
                    "podIP": item.ip,
                    "containerStatuses": [
                        {"name": "server", "ready": item.is_ready, "restartCount": 0}
                    ],
                    "conditions": merge(before, [ready], now_text()),
                },
            }
        )


async def _resolve(item: External) -> None:
    try:
        item.ip = str(ipaddress.ip_address(item.host))
        return
    except ValueError:
        pass  # a name
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await loop.getaddrinfo(item.host, item.port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        raise ServerError(f"{item.host} has no address: {error}") from error
    # Envoy's listeners speak IPv4 by default, so an IPv4 address is preferred.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    item.ip = str(found[0][4][0])


async def recognize(item: External, session: aiohttp.ClientSession) -> Engine | None:
    """The kind of a server; None while nobody answers."""
    metrics = await _get(session, f"{item.url}/metrics")
    for engine in ENGINES:
        if engine.metrics_prefix and metrics is not None:
            lines = metrics[1].splitlines()
            if any(line.startswith(engine.metrics_prefix) for line in lines):
                return engine
    for engine in ENGINES:
        if engine.own_path:
            answer = await _get(session, f"{item.url}{engine.own_path}")
            if answer is not None and answer[0] == 200 and answer[1].lstrip()[:1] == b"{":
                return engine
    models = await _get(session, f"{item.url}{OPENAI.health}")
    return OPENAI if models is not None and models[0] == 200 else None


async def _models(item: External, session: aiohttp.ClientSession) -> tuple[str, ...]:
    answer = await _get(session, f"{item.url}{OPENAI.health}")
    try:
        listed = json.loads(answer[1])["data"] if answer is not None else []
        return tuple(str(entry["id"]) for entry in listed)
    except (ValueError, KeyError, TypeError):
        return ()


async def _health(item: External, session: aiohttp.ClientSession) -> tuple[bool, str]:
    if item.engine is None:
        return False, f"no model server answers at {item.url}"
    answer = await _get(session, f"{item.url}{item.engine.health}")
    if answer is None:
        return False, f"{item.url} does not answer"
    if answer[0] != 200:
        return False, f"{item.engine.health} answers {answer[0]}"
    return True, f"{item.engine.name} at {item.url}"


async def _get(session: aiohttp.ClientSession, url: str) -> tuple[int, bytes] | None:
    """Status and beginning of an answer; None where there is none."""
    try:
        async with session.get(url, allow_redirects=False) as answer:
            return answer.status, await answer.content.read(_SNIFFED_BYTES)
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None


def _objects(listener_port: int) -> list[Resource]:
    """The gateway in front of the pool."""
    meta: dict[str, Any] = {"name": POOL, "generation": 1, "creationTimestamp": now_text()}
    pool_ref = {"group": InferencePool.KIND.group, "kind": InferencePool.KIND.kind, "name": POOL}
    listener = {"name": "http", "protocol": "HTTP", "port": listener_port}
    specs: list[tuple[type[Resource], dict[str, Any]]] = [
        (GatewayClass, {"controllerName": "pointsman.dev/gateway-controller"}),
        (Gateway, {"gatewayClassName": POOL, "listeners": [listener]}),
        (HTTPRoute, {"parentRefs": [{"name": POOL}], "rules": [{"backendRefs": [pool_ref]}]}),
        (
            InferencePool,
            {
                "selector": {"matchLabels": {POOL_LABEL: POOL}},
                "targetPorts": [{"number": PORT}],
                "endpointPickerRef": {
                    "name": "picker",
                    "port": {"number": 9002},
                    "failureMode": "FailOpen",
                },
            },
        ),
    ]
    return [
        _made(
            {
                "apiVersion": cls.KIND.api_version,
                "kind": cls.KIND.kind,
                "metadata": meta,
                "spec": spec,
            }
        )
        for cls, spec in specs
    ]


def _made(data: dict[str, Any]) -> Resource:
    found = parse_object(data)
    if found.resource is None:
        raise ValueError("; ".join(map(str, found.problems)))
    return found.resource
