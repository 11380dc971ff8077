"""Asks a container whether it is ready, the way a kubelet does.

Two things differ: until a container is ready for the first time it is asked ten times a second and
without the initial delay, because on one machine somebody is waiting; and a probe by command is not
run, since our stand-ins are not the images the command was written for.
"""

from __future__ import annotations

import asyncio

import aiohttp
import grpc

from pointsman.resources.core import Container, Probe
from pointsman.standalone.addresses import Place

FIRST_PERIOD_S = 0.1
HEALTH_METHOD = "/grpc.health.v1.Health/Check"
_SERVING = b"\x08\x01"
"""HealthCheckResponse{status: SERVING} on the wire."""


def period_s(probe: Probe, *, was_ready: bool) -> float:
    """How long to wait before asking again."""
    return max(float(probe.period_seconds), FIRST_PERIOD_S) if was_ready else FIRST_PERIOD_S


async def is_ready(
    session: aiohttp.ClientSession, probe: Probe, container: Container, place: Place
) -> bool:
    """One question, within the probe's own timeout."""
    timeout_s = float(max(probe.timeout_seconds, 1))
    try:
        async with asyncio.timeout(timeout_s):
            if probe.http_get is not None:
                return await _http(session, probe, container, place)
            if probe.grpc is not None:
                return await _grpc(probe, place)
            if probe.tcp_socket is not None:
                return await _tcp(probe, container, place)
    except (TimeoutError, OSError, aiohttp.ClientError, grpc.RpcError):
        return False
    return True


async def _http(
    session: aiohttp.ClientSession, probe: Probe, container: Container, place: Place
) -> bool:
    action = probe.http_get
    if action is None:
        return False
    port = _port(action.port, container)
    if port is None:
        return False
    url = f"{action.scheme.lower()}://{place.ip}:{place.port(port)}/{action.path.lstrip('/')}"
    # A kubelet does not check certificates either.
    async with session.get(url, ssl=False, allow_redirects=False) as answer:
        return 200 <= answer.status < 400


async def _grpc(probe: Probe, place: Place) -> bool:
    action = probe.grpc
    if action is None:
        return False
    service = action.service.encode()
    request = b"\x0a" + bytes((len(service),)) + service if service else b""
    async with grpc.aio.insecure_channel(f"{place.ip}:{place.port(action.port)}") as channel:
        answer: bytes = await channel.unary_unary(HEALTH_METHOD)(request)
        return answer == _SERVING


async def _tcp(probe: Probe, container: Container, place: Place) -> bool:
    action = probe.tcp_socket
    port = _port(action.port, container) if action is not None else None
    if port is None:
        return False
    _, writer = await asyncio.open_connection(place.ip, place.port(port))
    writer.close()
    return True


def _port(port: int | str, container: Container) -> int | None:
    """A port by number, or by the name of one of the container's."""
    if isinstance(port, int):
        return port
    if port.isascii() and port.isdigit():
        return int(port)
    return next((item.container_port for item in container.ports if item.name == port), None)
