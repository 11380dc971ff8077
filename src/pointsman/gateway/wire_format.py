"""Putting protobuf messages together from parts that are bytes already.

In protobuf's wire format the entries of a repeated field may stand anywhere in their message, so
that entries made earlier can be appended to a message that was made without them.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import Message

_LENGTH_DELIMITED = 2


def with_entries(message: Message, field: str, entries: Iterable[bytes]) -> bytes:
    """The bytes of `message` with `entries`, each a message's bytes, in its repeated `field`.

    >>> from envoy.config.route.v3 import route_components_pb2 as pb2
    >>> route = pb2.Route(name="first")
    >>> content = with_entries(pb2.VirtualHost(name="a"), "routes", [route.SerializeToString()])
    >>> content == pb2.VirtualHost(name="a", routes=[route]).SerializeToString()
    True
    """
    number = message.DESCRIPTOR.fields_by_name[field].number
    tag = _varint(number << 3 | _LENGTH_DELIMITED)
    parts = [message.SerializeToString(deterministic=True)]
    for entry in entries:
        parts += (tag, _varint(len(entry)), entry)
    return b"".join(parts)


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)
