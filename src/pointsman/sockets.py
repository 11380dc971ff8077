"""Sockets that are given to the event loop.

uvloop may close the connection of a socket (the other side has reset it at once) before it has made
a note of the socket, which then still says that it has the descriptor. When the garbage collector
closes it, that is another connection by then: one that is never heard of again, or that makes the
next one fail (uvloop issues 645, 653, 738; seen with uvloop 0.23 and aiohttp 3.14, over TLS).
"""

from __future__ import annotations

import socket

import aiohttp


class LoopSocket(socket.socket):
    """One that does not block, and is closed by who has it and never by itself.

    aiohttp and asyncio close what they could not use; what they could is the loop's.
    """

    def __init__(
        self, family: int = -1, kind: int = -1, protocol: int = -1, fileno: int | None = None
    ) -> None:
        super().__init__(family, kind, protocol, fileno)
        self.setblocking(False)

    def __del__(self) -> None:
        self.detach()


def loop_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    """A socket for `aiohttp.TCPConnector(socket_factory=...)`."""
    family, kind, protocol, _, _ = info
    return LoopSocket(family, kind, protocol)
