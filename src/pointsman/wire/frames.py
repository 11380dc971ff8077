"""The frames of HTTP/2: their numbers, and how to build the few that a server sends.

Source: RFC 9113, sections 4 and 6.
"""

from __future__ import annotations

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA = 0
HEADERS = 1
PRIORITY = 2
RST_STREAM = 3
SETTINGS = 4
PUSH_PROMISE = 5
PING = 6
GOAWAY = 7
WINDOW_UPDATE = 8
CONTINUATION = 9

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY_FLAG = 0x20

SETTINGS_HEADER_TABLE_SIZE = 1
SETTINGS_ENABLE_PUSH = 2
SETTINGS_MAX_CONCURRENT_STREAMS = 3
SETTINGS_INITIAL_WINDOW_SIZE = 4
SETTINGS_MAX_FRAME_SIZE = 5
SETTINGS_MAX_HEADER_LIST_SIZE = 6

DEFAULT_WINDOW_BYTES = 65_535
LARGEST_WINDOW_BYTES = 2**31 - 1
DEFAULT_FRAME_BYTES = 16_384
LARGEST_FRAME_BYTES = 2**24 - 1
STREAM_ID_MASK = 0x7FFF_FFFF

HEAD = struct.Struct(">HBBBI")
"""High 16 bits of the length, its low 8 bits, type, flags, stream id."""
HEAD_BYTES = HEAD.size
U32 = struct.Struct(">I")
SETTING = struct.Struct(">HI")


class ErrorCode(IntEnum):
    """Why a stream or a connection ended (RFC 9113, section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11


class ConnectionBrokenError(Exception):
    """The peer broke a rule that ends the whole connection; `code` goes into the GOAWAY."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """One frame, head and payload."""
    length = len(payload)
    return HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream_id) + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(*item) for item in values.items()))


def window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame: the peer may send `increment` bytes more."""
    return frame(WINDOW_UPDATE, 0, stream_id, U32.pack(increment))


def reset(stream_id: int, code: ErrorCode) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream_id, U32.pack(code))


def goaway(last_stream_id: int, code: ErrorCode, reason: str = "") -> bytes:
    """A GOAWAY frame: nothing above `last_stream_id` was or will be looked at."""
    payload = U32.pack(last_stream_id) + U32.pack(code) + reason.encode()
    return frame(GOAWAY, 0, 0, payload)


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload without the padding that its flags announce."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionBrokenError(
            ErrorCode.PROTOCOL_ERROR, "the padding is longer than the frame"
        )
    return payload[1 : len(payload) - payload[0]]
