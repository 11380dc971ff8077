"""Short ways to write the well-known protobuf messages.

Protobuf messages take nested dictionaries for their fields and strings for their enums; what is
left to shorten are durations, wrappers and `Any`.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

ADS = {"ads": {}, "resource_api_version": "V3"}
"""A config source: the resource comes over the aggregated stream."""


def packed(message: Message) -> AnyMessage:
    """`message` as an Any; its bytes do not depend on the order of map entries."""
    result = AnyMessage()
    result.Pack(message, deterministic=True)
    return result


def seconds(value: float) -> Duration:
    """A duration of `value` seconds, to the nanosecond."""
    nanos = round(value * 1_000_000_000)
    return Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)


def wrapped(value: bool | float) -> dict[str, Any]:
    """A wrapper (`UInt32Value`, `BoolValue`...): set, even where it is zero."""
    return {"value": value}


def socket_address(host: str, port: int) -> dict[str, Any]:
    """An address of IP (or name) and TCP port."""
    return {"socket_address": {"address": host, "port_value": port}}


def pipe_address(path: str) -> dict[str, Any]:
    """A Unix socket's address."""
    return {"pipe": {"path": path}}
