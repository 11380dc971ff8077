"""The node's connection to the API server: requests, and mirrors of the objects of a kind."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from tests.kubernetes.network import Outside

Object = dict[str, Any]
Key = tuple[str, str]
"""Namespace and name."""

REQUEST_S = 15.0
WATCH_S = 240
PAUSE_S = 0.2
"""Between two tries to reach an API server that is away."""
LINE_LIMIT = 8 * 1024 * 1024

_log = logging.getLogger("node.api")


class ApiError(Exception):
    """The API server refuses."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


UNREACHABLE = (aiohttp.ClientError, TimeoutError, OSError)


class Api:
    """`async with` holds the connections."""

    def __init__(self, server: str, folder: Path, outside: Outside) -> None:
        self._server = server
        self._context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        self._context.load_cert_chain(folder / "admin.crt", folder / "admin.key")
        self._outside = outside

    async def __aenter__(self) -> Api:
        connector = aiohttp.TCPConnector(
            ssl=self._context, limit=0, socket_factory=self._made_outside
        )
        self._session = aiohttp.ClientSession(
            self._server,
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=REQUEST_S),
            read_bufsize=LINE_LIMIT,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    def _made_outside(self, address: Any) -> socket.socket:
        return self._outside.stream(address[0])

    async def request(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> Object:
        """The answer's object.

        Raises:
            ApiError: the API server refuses.
            aiohttp.ClientError, TimeoutError: it cannot be reached.
        """
        content = json.dumps(body).encode() if body is not None else None
        headers = {"content-type": kind}
        async with self._session.request(method, path, data=content, headers=headers) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise ApiError(answer.status, text)
            found: Object = json.loads(text)
            return found

    async def patch_status(self, path: str, status: Object) -> None:
        """Merge a status as a kubelet does: conditions by their types."""
        kind = "application/strategic-merge-patch+json"
        await self.request("PATCH", f"{path}/status", {"status": status}, kind)

    async def follow(self, path: str, version: str, changed: Callable[[str, Object], None]) -> str:
        """Hand each event of a watch on; returns the last version when the watch ends.

        Raises:
            ApiError: the version is too old, or the API server refuses.
            aiohttp.ClientError, TimeoutError: it cannot be reached any more.
        """
        query = {
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "1",
            "timeoutSeconds": str(WATCH_S),
        }
        patience = aiohttp.ClientTimeout(total=None, sock_read=WATCH_S + REQUEST_S)
        async with self._session.get(path, params=query, timeout=patience) as answer:
            if answer.status >= 400:
                raise ApiError(answer.status, await answer.text())
            async for line in answer.content:
                try:
                    event = json.loads(line)
                except ValueError as error:
                    raise aiohttp.ClientPayloadError("an event was cut off") from error
                found = event["object"]
                if event["type"] == "ERROR":
                    raise ApiError(int(found.get("code", 500)), found.get("message", ""))
                version = found["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    changed(event["type"], found)
        return version


class Mirror:
    """The objects of one kind in the whole cluster, as they stand now."""

    def __init__(self, api: Api, path: str, changed: Callable[[Key, Object | None], None]) -> None:
        self._api = api
        self._path = path
        self._changed = changed
        self.objects: dict[Key, Object] = {}
        self.is_filled = asyncio.Event()

    async def run(self) -> None:
        """Follow the objects for ever, over any absence of the API server."""
        version = ""
        while True:
            try:
                if not version:
                    version = await self._list()
                version = await self._api.follow(self._path, version, self._event)
            except ApiError as error:
                if error.status != 410:
                    _log.warning("%s: %s", self._path, error)
                version = ""
                await asyncio.sleep(PAUSE_S)
            except UNREACHABLE as error:
                _log.info("%s: %r", self._path, error)
                await asyncio.sleep(PAUSE_S)

    async def _list(self) -> str:
        found = await self._api.request("GET", self._path)
        fresh = {key_of(item): item for item in found["items"]}
        for key in self.objects.keys() - fresh.keys():
            self._set(key, None)
        for key, item in fresh.items():
            self._set(key, item)
        self.is_filled.set()
        version: str = found["metadata"]["resourceVersion"]
        return version

    def _event(self, kind: str, found: Object) -> None:
        self._set(key_of(found), None if kind == "DELETED" else found)

    def _set(self, key: Key, item: Object | None) -> None:
        known = self.objects.pop(key, None)
        if known and item and known["metadata"]["uid"] != item["metadata"]["uid"]:
            # Another object under the same name: that the first one went was not seen.
            self._changed(key, None)
            known = None
        if item is not None:
            self.objects[key] = item
        if item is None or known is None or version_of(known) != version_of(item):
            self._changed(key, item)


def key_of(item: Object) -> Key:
    """Namespace (empty for none) and name of an object."""
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def version_of(item: Object) -> str:
    """What differs whenever something of an object does."""
    version: str = item["metadata"].get("resourceVersion", "")
    return version
