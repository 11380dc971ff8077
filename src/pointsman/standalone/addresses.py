"""Addresses for pods on one machine.

On Linux the whole of 127.0.0.0/8 is loopback, so each pod gets an address of its own and keeps its
ports, and localhost of a sidecar can be told apart from its neighbour's. An instance claims one
/24 of it; the claim is an abstract Unix socket, which lives in the same network namespace as the
addresses and is gone when the process is. Elsewhere all pods share 127.0.0.1 and every container
port is mapped to a free one.
"""

from __future__ import annotations

import errno
import random
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

SHARED_ADDRESS = "127.0.0.1"
HOSTS = range(2, 255)
CLAIM_TRIES = 64


class NoAddressError(RuntimeError):
    """All addresses of this instance are taken."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pod lives."""

    ip: str
    is_shared: bool = False
    ports: dict[int, int] = field(default_factory=dict)
    """Container port to real port, where the address is shared."""

    def port(self, container_port: int) -> int:
        """The real port behind a container port."""
        if not self.is_shared:
            return container_port
        if container_port not in self.ports:
            self.ports[container_port] = free_port(self.ip)
        return self.ports[container_port]


class Addresses(Protocol):
    """Gives places to pods."""

    def take(self) -> Place:
        """A place that nobody else has."""

    def give_back(self, place: Place) -> None:
        """The place is free again."""


class OwnAddresses:
    """A /24 of the loopback network."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._free = [f"{prefix}.{host}" for host in reversed(HOSTS)]

    def take(self) -> Place:
        """The lowest free address first."""
        if not self._free:
            raise NoAddressError(f"all addresses of {self._prefix}.0/24 are taken")
        return Place(self._free.pop())

    def give_back(self, place: Place) -> None:
        """Last in the row: an address rests before it is used again."""
        self._free.insert(0, place.ip)


class SharedAddress:
    """One address for all, with ports of their own."""

    def take(self) -> Place:
        """The shared address with an empty port map."""
        return Place(SHARED_ADDRESS, is_shared=True)

    def give_back(self, place: Place) -> None:
        """Nothing to do: ports free themselves."""


@contextmanager
def claimed_addresses(*, shared: bool | None = None) -> Iterator[Addresses]:
    """Addresses for one instance; `shared` decides, unset means by what the machine has."""
    if shared if shared is not None else not _has_loopback_network():
        yield SharedAddress()
        return
    claim, prefix = _claim()
    try:
        yield OwnAddresses(prefix)
    finally:
        claim.close()


def free_port(ip: str) -> int:
    """A TCP port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((ip, 0))
        port: int = probe.getsockname()[1]
        return port


def _has_loopback_network() -> bool:
    if sys.platform != "linux":
        return False
    with socket.socket() as probe:
        try:
            probe.bind(("127.77.77.77", 0))
        except OSError:
            return False
    return True


def _claim() -> tuple[socket.socket, str]:
    for _ in range(CLAIM_TRIES):
        prefix = f"127.{random.randint(64, 254)}.{random.randint(0, 255)}"
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0pointsman-addresses-{prefix}")
        except OSError as error:
            claim.close()
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        return claim, prefix
    raise NoAddressError("no part of 127.0.0.0/8 is free for this instance")
