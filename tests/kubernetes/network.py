"""The network of a node for tests: a namespace with a bridge, and one namespace for each pod.

It has no way out: no route leads to the network that the tests run in, and whatever a pod asks of
an address that is not of the cluster fails at once. All of it exists only while somebody holds it
open, so nothing is left however the node ends. The addresses are the same in each cluster.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TypeVar

from pointsman.sockets import LoopSocket
from tests.kubernetes import linux

SERVICE_RANGE = "10.96.0.0/24"
API_ADDRESS = "10.96.0.1"
"""The Service `kubernetes`: the API server gives itself the first address of the range."""
POD_RANGE = IPv4Network("10.97.0.0/16")
NODE_ADDRESS = str(POD_RANGE[1])
BRIDGE = "pods"
BRIDGE_LINK_ADDRESS = "02:00:00:00:00:01"
"""A bridge that is given none takes the lowest of its ports: each new pod may change it, and until
the older ones ask again (after eight seconds) what they send to the node is lost."""
CLUSTER_DOMAIN = "cluster.local"
COMMAND_S = 20.0

T = TypeVar("T")


class NetworkError(Exception):
    """A command of iproute2 has failed; the message has its complaint."""


class Outside:
    """The network that the node was started in: makes sockets there."""

    def __init__(self, namespace: int) -> None:
        self._thread = ThreadPoolExecutor(1, "outside", linux.enter, (namespace, linux.NEW_NETWORK))

    def stream(self, family: int = socket.AF_INET) -> socket.socket:
        """A stream socket that does not block; where it was made is where it stays."""
        return self._thread.submit(LoopSocket, family).result()

    def listener(self, host: str, port: int) -> socket.socket:
        """A socket that is bound to an address of the machine.

        Raises:
            OSError: the address is taken.
        """
        return bound(self.stream(), host, port)


def bound(made: socket.socket, host: str, port: int) -> socket.socket:
    """The same socket, bound to an address, or closed.

    Raises:
        OSError: the address is taken.
    """
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made


@dataclass(frozen=True)
class PodNetwork:
    """The network namespace of one pod."""

    ip: str
    namespace: int
    """An open file that holds it."""
    link: str
    """Its end on the node."""


class Network:
    """The node's network; the process that makes it lives in it from then on."""

    def __init__(self) -> None:
        self._given = 1

    async def set_up(self) -> None:
        """Make the bridge, in the namespace that this process is in.

        Raises:
            NetworkError: `ip` refuses.
        """
        await _ip(
            "link set lo up",
            f"link add {BRIDGE} address {BRIDGE_LINK_ADDRESS} type bridge",
            f"address add {NODE_ADDRESS}/{POD_RANGE.prefixlen} dev {BRIDGE}",
            f"link set {BRIDGE} up",
            # Any address of Services is one of the node's own.
            f"route add local {SERVICE_RANGE} dev lo",
        )

    async def add_pod(self, sysctls: Mapping[str, str]) -> PodNetwork:
        """A namespace with an address that no pod has had lately.

        Raises:
            NetworkError: `ip` refuses.
            OSError: a sysctl does not exist or does not take that value.
        """
        self._given = self._given + 1 if self._given < POD_RANGE.num_addresses - 3 else 2
        ip = str(POD_RANGE[self._given])
        link = link_of(ip)
        namespace = _in_thread(_new_namespace)
        try:
            path = f"/proc/self/fd/{namespace}"
            await _ip(
                f"link add {link} type veth peer name eth0 netns {path}",
                f"link set {link} master {BRIDGE} up",
                files=(namespace,),
            )
            await _ip(
                "link set lo up",
                f"address add {ip}/{POD_RANGE.prefixlen} dev eth0",
                "link set eth0 up",
                f"route add default via {NODE_ADDRESS}",
                files=(namespace,),
                inside=path,
            )
            _in_thread(lambda: _set(namespace, sysctls))
        except BaseException:
            os.close(namespace)
            raise
        return PodNetwork(ip, namespace, link)

    async def remove_pod(self, pod: PodNetwork) -> None:
        """The address answers no more."""
        os.close(pod.namespace)
        await _ip(f"link delete {pod.link}")


def link_of(ip: str) -> str:
    """The node's end of what connects the pod with that address."""
    return f"pod{int(IPv4Address(ip)) - int(POD_RANGE[0])}"


async def _ip(*commands: str, files: tuple[int, ...] = (), inside: str = "") -> None:
    enter = ("nsenter", f"--net={inside}") if inside else ()
    # A file and no pipe: an end that comes early is told by its own words, not by a broken pipe.
    batch = os.memfd_create("batch")
    try:
        os.write(batch, "\n".join(commands).encode() + b"\n")
        os.lseek(batch, 0, os.SEEK_SET)
        process = await asyncio.create_subprocess_exec(
            *(*enter, "ip", "-batch", "-"),
            stdin=batch,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=files,
        )
    finally:
        os.close(batch)
    async with asyncio.timeout(COMMAND_S):
        _, complaint = await process.communicate()
    if process.returncode != 0:
        text = complaint.decode().strip() or f"ended with {process.returncode}"
        raise NetworkError(f"ip {'; '.join(commands)}: {text}")


def _new_namespace() -> int:
    linux.unshare(linux.NEW_NETWORK)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _set(namespace: int, sysctls: Mapping[str, str]) -> None:
    # What is below net/ there is that of the thread that looks.
    linux.enter(namespace, linux.NEW_NETWORK)
    for name, value in sysctls.items():
        Path("/proc/sys", *name.split(".")).write_text(value)


def _in_thread(work: Callable[[], T]) -> T:
    """What `work` returns or raises in a thread of its own, which may go where it likes."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
