"""Asking a container whether it is well: by HTTP, gRPC, a connection or a command.

Until it has succeeded once, a startup or readiness probe is asked many times in its period and
without its initial delay, so that tests wait for servers and not for periods. Failures count once a
period, as with a kubelet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pointsman.sockets import loop_socket
from tests.kubernetes.api import Object

EAGER_S = 0.1
ACTIONS = ("httpGet", "grpc", "tcpSocket", "exec")

Run = Callable[[Sequence[str]], Awaitable[tuple[int, str]]]
"""Runs a command in the container: exit code and output."""


@dataclass(frozen=True)
class Patient:
    """The container that is asked."""

    ip: str
    ports: dict[str, int]
    """The container's ports by their names."""
    run: Run

    def port(self, given: int | str) -> int:
        """A port by number or name."""
        return given if isinstance(given, int) else self.ports.get(given, 0) or int(given)


async def ask(action: Object, patient: Patient) -> str:
    """What is wrong, or an empty text. It takes as long as the answer takes."""
    try:
        if "httpGet" in action:
            return await _http(action["httpGet"], patient)
        if "grpc" in action:
            return await _grpc(action["grpc"], patient)
        if "tcpSocket" in action:
            return await _tcp(action["tcpSocket"], patient)
        if "exec" in action:
            code, output = await patient.run(action["exec"].get("command") or ())
            return f"exit code {code}: {output.strip()}" if code else ""
    except (aiohttp.ClientError, grpc.aio.AioRpcError, OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return f"no action that is known here: {', '.join(action)}"


async def watch(
    probe: Object, patient: Patient, said: Callable[[bool, str], Any], *, is_eager: bool
) -> None:
    """Ask for ever; `said` hears of each change, and of the state at first.

    What it hears first is the first success, or failure as often as the threshold says.
    """
    period = probe.get("periodSeconds", 10)
    timeout_s = probe.get("timeoutSeconds", 1)
    if not is_eager:
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
    state: bool | None = None
    successes = failures = 0
    counted_at = -float(period)
    loop = asyncio.get_running_loop()
    while True:
        begun = loop.time()
        try:
            async with asyncio.timeout(timeout_s):
                trouble = await ask(probe, patient)
        except TimeoutError:
            trouble = f"no answer within {timeout_s} s"
        if not trouble:
            successes, failures = successes + 1, 0
            if state is not True and successes >= probe.get("successThreshold", 1):
                state = True
                said(True, "")
        else:
            successes = 0
            if begun - counted_at >= period or state is True:
                failures, counted_at = failures + 1, begun
            if state is not False and failures >= probe.get("failureThreshold", 3):
                state = False
                said(False, trouble)
        is_waiting = is_eager and state is not True
        await asyncio.sleep(EAGER_S if is_waiting else max(0.0, begun + period - loop.time()))


async def _http(action: Object, patient: Patient) -> str:
    scheme = action.get("scheme", "HTTP").lower()
    host = action.get("host") or patient.ip
    path = "/" + action.get("path", "/").lstrip("/")
    url = f"{scheme}://{host}:{patient.port(action['port'])}{path}"
    headers = {item["name"]: item["value"] for item in action.get("httpHeaders") or ()}
    connector = aiohttp.TCPConnector(ssl=False, force_close=True, socket_factory=loop_socket)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(url, headers=headers) as answer,
    ):
        return "" if 200 <= answer.status < 400 else f"status {answer.status}"


async def _grpc(action: Object, patient: Patient) -> str:
    async with grpc.aio.insecure_channel(f"{patient.ip}:{action['port']}") as channel:
        request = health_pb2.HealthCheckRequest(service=action.get("service") or "")
        answer = await health_pb2_grpc.HealthStub(channel).Check(request)
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            return ""
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


async def _tcp(action: Object, patient: Patient) -> str:
    host = action.get("host") or patient.ip
    _, writer = await asyncio.open_connection(host, patient.port(action["port"]))
    writer.close()
    return ""
