"""The names of Services, answered as the DNS of a cluster answers them.

A query is a question of one name (RFC 1035, section 4): addresses of Services with a cluster
address, of the endpoints of headless ones, and of an endpoint with a host name below its Service.
Every other name does not exist.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from contextlib import suppress
from typing import cast

from tests.kubernetes.network import CLUSTER_DOMAIN, NODE_ADDRESS
from tests.kubernetes.services import Services

PORT = 53
TTL_S = 5
HEADER = struct.Struct("!HHHHHH")
TYPE_A = 1
CLASS_IN = 1
RESPONSE = 0x8480
"""An answer by who knows, which can ask others."""
NO_SUCH_NAME = 3
NAME_POINTER = 0xC00C
"""The name in the question, which begins after the header."""
LARGEST_DATAGRAM = 512
TCP_S = 10.0

_log = logging.getLogger("node.names")


def resolver(namespace: str) -> str:
    """/etc/resolv.conf of a pod."""
    ends = (f"{namespace}.svc.{CLUSTER_DOMAIN}", f"svc.{CLUSTER_DOMAIN}", CLUSTER_DOMAIN)
    return f"nameserver {NODE_ADDRESS}\nsearch {' '.join(ends)}\noptions ndots:5\n"


class Names:
    """The node's DNS server."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def start(self) -> None:
        """Answer from now on, over UDP and TCP.

        Raises:
            OSError: the port is taken.
        """
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=(NODE_ADDRESS, PORT)
        )
        self._server = await asyncio.start_server(self._serve, NODE_ADDRESS, PORT)

    def addresses(self, name: str) -> list[str] | None:
        """The addresses of a name in lower case; None where there is no such name."""
        labels = name.removesuffix(".").removesuffix(f".svc.{CLUSTER_DOMAIN}").split(".")
        if not name.removesuffix(".").endswith(f".svc.{CLUSTER_DOMAIN}") or len(labels) > 3:
            return None
        if len(labels) < 2:
            return None
        key = (labels[-1], labels[-2])
        service = self._services.services.objects.get(key)
        if service is None:
            return None
        endpoints = list(self._services.endpoints(key))
        if len(labels) == 3:
            endpoints = [item for item in endpoints if item.get("hostname") == labels[0]]
            found = [address for item in endpoints for address in item["addresses"]]
            return found or None
        cluster_ip = service["spec"].get("clusterIP")
        if cluster_ip and cluster_ip != "None":
            return [cluster_ip]
        return [address for item in endpoints for address in item["addresses"]]

    def answer(self, query: bytes) -> bytes | None:
        """The answer to a query; None for what is none."""
        try:
            number, flags, questions, *_ = HEADER.unpack_from(query)
            name, end = _name(query, HEADER.size)
            kind, _ = struct.unpack_from("!HH", query, end)
        except (struct.error, IndexError, UnicodeDecodeError):
            return None
        if flags & 0x8000 or questions != 1:
            return None
        found = self.addresses(name.lower())
        addresses = found if found is not None and kind == TYPE_A else []
        # Whether recursion is desired is said back.
        code = RESPONSE | (flags & 0x0100) | (NO_SUCH_NAME if found is None else 0)
        records = b"".join(
            struct.pack("!HHHIH", NAME_POINTER, TYPE_A, CLASS_IN, TTL_S, 4)
            + socket.inet_aton(address)
            for address in addresses
        )
        header = HEADER.pack(number, code, 1, len(addresses), 0, 0)
        return header + query[HEADER.size : end + 4] + records

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(TCP_S):
                while True:
                    (size,) = struct.unpack("!H", await reader.readexactly(2))
                    answer = self.answer(await reader.readexactly(size))
                    if answer is None:
                        break
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, names: Names) -> None:
        self._names = names

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        answer = self._names.answer(data)
        if answer is None:
            return
        if len(answer) > LARGEST_DATAGRAM:
            # The question alone with the mark "cut": the client comes again over TCP.
            question = HEADER.unpack_from(answer)
            _, end = _name(answer, HEADER.size)
            answer = (
                HEADER.pack(question[0], question[1] | 0x0200, 1, 0, 0, 0)
                + (answer[HEADER.size : end + 4])
            )
        self._transport.sendto(answer, address)


def _name(message: bytes, start: int) -> tuple[str, int]:
    """The name that begins there, and where what follows it begins."""
    labels = []
    position = start
    while message[position]:
        size = message[position]
        labels.append(message[position + 1 : position + 1 + size].decode("ascii"))
        position += 1 + size
    return ".".join(labels), position + 1
