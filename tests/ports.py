"""Ports that are free, and stay so until they are used.

Not from the range from which the system gives ports to connections: there any client's connection
may take one in the moment between finding it and binding it.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence

FIRST, LAST = 12_000, 32_000
"""Below what Linux gives away by itself (32,768 and up)."""

_given: set[int] = set()
_random = random.SystemRandom()


def free_port(hosts: Sequence[str] = ("127.0.0.1",)) -> int:
    """A port that nobody has on any of `hosts`, another one at each call."""
    while True:
        port = _random.randrange(FIRST, LAST)
        if port not in _given and all(_is_free(host, port) for host in hosts):
            _given.add(port)
            return port


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
