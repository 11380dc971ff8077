"""How commands ask a running instance: the admin API from the other side of its socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import aiohttp
import orjson

from pointsman.admin.instances import choose

REQUEST_DEADLINE_S = 30.0
CONNECT_DEADLINE_S = 5.0
SILENCE_DEADLINE_S = 15.0
"""A watch says something every 5 s; three times that is a dead instance."""
MAX_LINE_BYTES = 64 * 2**20
"""Of one event of a watch."""


class AdminError(Exception):
    """The instance did not answer, or said no; the text says which."""

    def __init__(self, message: str, status: int = 0) -> None:
        """`status` is the HTTP status, 0 when there was no answer."""
        super().__init__(message)
        self.status = status


class AdminClient:
    """The admin API of one instance, for use with `async with`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def of(cls, instance: str | None) -> AdminClient:
        """The instance of that name, or the only one; InstanceError when that is not clear."""
        return cls(choose(instance))

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(self._path)),
            read_bufsize=2**18,
            timeout=aiohttp.ClientTimeout(total=REQUEST_DEADLINE_S, connect=CONNECT_DEADLINE_S),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def version(self) -> dict[str, str]:
        """Names and versions of the parts of the instance."""
        answer = await self._get("/version")
        return {str(name): str(version) for name, version in answer.items()}

    async def status(self) -> dict[str, Any]:
        """Conditions, listeners, acknowledgements, endpoints."""
        return await self._get("/status")

    async def kinds(self) -> list[dict[str, Any]]:
        """The kinds that the instance knows."""
        return list((await self._get("/api/kinds"))["items"])

    async def objects(
        self, kind: str = "", namespace: str | None = None, name: str | None = None
    ) -> list[dict[str, Any]]:
        """Objects of a kind (any word for it), of all namespaces unless one is named."""
        answer = await self._get("/api/objects", kind=kind, namespace=namespace, name=name)
        return list(answer["items"])

    async def decisions(
        self, limit: int, only: Mapping[str, str] = MappingProxyType({})
    ) -> list[dict[str, Any]]:
        """The picker's latest decisions, the newest first; `only` as `Decisions` has it."""
        answer = await self._get("/api/decisions", limit=str(limit), **only)
        return list(answer["items"])

    async def watch(
        self,
        kinds: Iterable[tuple[str, str]] = (),
        namespace: str | None = None,
        name: str | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """The events of the watch stream, heartbeats left out; `kinds` are (group, kind)."""
        words = ",".join(f"{kind}.{group}" for group, kind in kinds)
        async for line in self._lines("/api/watch", kinds=words, namespace=namespace, name=name):
            event = orjson.loads(line)
            if event.get("type") != "HEARTBEAT":
                yield event

    async def logs(
        self, name: str, *, tail: int | None = None, follow: bool = False
    ) -> AsyncIterator[str]:
        """The lines that a process has written, and with `follow` those it still writes."""
        lines = self._lines(
            "/api/logs",
            silence_s=None if follow else SILENCE_DEADLINE_S,
            name=name,
            tail=None if tail is None else str(tail),
            follow="1" if follow else None,
        )
        async for line in lines:
            yield line.decode(errors="replace")

    async def _get(self, path: str, **query: str | None) -> dict[str, Any]:
        try:
            async with self._opened().get(_url(path), params=_given(query)) as response:
                body = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._failed(error) from error
        return _answer(response.status, body)

    async def _lines(
        self, path: str, silence_s: float | None = SILENCE_DEADLINE_S, **query: str | None
    ) -> AsyncIterator[bytes]:
        timeout = aiohttp.ClientTimeout(connect=CONNECT_DEADLINE_S, sock_read=silence_s)
        try:
            async with self._opened().get(
                _url(path), params=_given(query), timeout=timeout
            ) as response:
                if response.status != 200:
                    _answer(response.status, await response.read())
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield line
                    if len(rest) > MAX_LINE_BYTES:
                        raise AdminError(f"{self._path} sent a line without end")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._failed(error) from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use `async with` before asking")
        return self._session

    def _failed(self, error: Exception) -> AdminError:
        if isinstance(error, TimeoutError | asyncio.TimeoutError):
            return AdminError(f"the instance at {self._path} does not answer in time")
        if isinstance(error, aiohttp.ClientConnectorError | FileNotFoundError):
            return AdminError(f"no instance answers at {self._path}")
        return AdminError(f"the instance at {self._path} ended the connection")


def _url(path: str) -> str:
    return f"http://localhost{path}"


def _given(query: dict[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in query.items() if value is not None}


def _answer(status: int, body: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = {"error": body.decode(errors="replace").strip()[:200]}
    if status != 200 or not isinstance(answer, dict):
        message = answer.get("error") if isinstance(answer, dict) else None
        raise AdminError(str(message or f"the instance answered {status}"), status)
    return answer
