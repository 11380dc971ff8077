"""Options of sockets, as this machine's system numbers them: keepalive and kernel buffers."""

from __future__ import annotations

import socket
from typing import Any

from pointsman.resources.backend_settings import TCPKeepalive
from pointsman.resources.durations import gateway_seconds

_IDLE = int(getattr(socket, "TCP_KEEPIDLE", 0) or getattr(socket, "TCP_KEEPALIVE", 0))
"""The name differs between Linux and macOS."""


def keepalive(settings: TCPKeepalive) -> list[dict[str, Any]]:
    """Probes on idle connections, for a listener's socket (whose connections inherit them)."""
    result = [_option(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1, "keepalive")]
    if settings.probes is not None:
        result.append(
            _option(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, settings.probes, "keepalive probes")
        )
    if settings.idle_time is not None:
        idle_s = round(gateway_seconds(settings.idle_time))
        result.append(_option(socket.IPPROTO_TCP, _IDLE, idle_s, "keepalive idle time"))
    if settings.interval is not None:
        interval_s = round(gateway_seconds(settings.interval))
        result.append(
            _option(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval_s, "keepalive interval")
        )
    return result


def buffers(size: int) -> list[dict[str, Any]]:
    """The kernel's buffers of a socket, in bytes each way."""
    return [
        _option(socket.SOL_SOCKET, socket.SO_RCVBUF, size, "receive buffer"),
        _option(socket.SOL_SOCKET, socket.SO_SNDBUF, size, "send buffer"),
    ]


def _option(level: int, name: int, value: int, description: str) -> dict[str, Any]:
    return {
        "description": description,
        "level": int(level),
        "name": int(name),
        "int_value": value,
        "state": "STATE_PREBIND",
    }
