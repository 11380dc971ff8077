"""An API server: requests, lists in pages, and watches, each with its deadline.

Rules (Kubernetes API concepts): a list ends with a resource version, from which a watch goes on; a
watch that is told 410 must list anew; BOOKMARK events say how far a silent watch has come.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from pointsman.resources.base import Kind
from pointsman.sockets import loop_socket
from pointsman.sources.kubernetes.access import Access, AccessError

REQUEST_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0
WATCH_SILENCE_S = 150.0
"""A watch in which not even a bookmark comes (one a minute) is dead."""
PAGE = 500
"""Objects in one page of a list."""
MAX_LINE_BYTES = 4 * 1024 * 1024
"""Of one event; an API server takes objects of up to 3 MiB."""
CONNECTIONS = 256
"""At once; each watch holds one."""
THROTTLED_TRIES = 5
"""How often a request is sent that is answered with 429."""
LONGEST_RETRY_AFTER_S = 10.0

MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
JSON = "application/json"
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"
METADATA_ONLY_WATCH = (
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json"
)

_KEEPALIVE = (
    ("TCP_KEEPIDLE", 15),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 30_000),
)
"""A peer that vanished without a word is noticed within half a minute."""


class ApiError(Exception):
    """The API server refused a request, or cannot be reached (`status` 0)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else message)
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def is_missing(self) -> bool:
        """No such object, or no such kind."""
        return self.status == 404

    @property
    def is_conflict(self) -> bool:
        """Somebody was faster: the object is another by now, or exists already."""
        return self.status == 409

    @property
    def is_gone(self) -> bool:
        """The version that was asked for is too old."""
        return self.status == 410

    @property
    def is_forbidden(self) -> bool:
        """We have no right to do that."""
        return self.status in (401, 403)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a watch."""

    type: str
    """ADDED, MODIFIED, DELETED, BOOKMARK."""
    object: dict[str, Any]


def path_of(kind: Kind, version: str = "", namespace: str = "", name: str = "") -> str:
    """The path of a collection or an object.

    >>> path_of(Kind("apps", "v1", "Deployment", "deployments"), namespace="a", name="b")
    '/apis/apps/v1/namespaces/a/deployments/b'
    >>> path_of(Kind("", "v1", "Pod", "pods"))
    '/api/v1/pods'
    """
    version = version or kind.version
    start = f"/apis/{kind.group}/{version}" if kind.group else f"/api/{version}"
    scope = f"/namespaces/{namespace}" if namespace and kind.namespaced else ""
    return f"{start}{scope}/{kind.plural}" + (f"/{name}" if name else "")


class Api:
    """One API server, spoken to over a few connections that are kept."""

    def __init__(self, access: Access, user_agent: str = "pointsman") -> None:
        self._access = access
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None

    @property
    def namespace(self) -> str:
        """The namespace that counts where none is said."""
        return self._access.namespace

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=CONNECTIONS, socket_factory=_socket)
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"user-agent": self._user_agent},
            read_bufsize=MAX_LINE_BYTES // 2,
            trust_env=True,
            auto_decompress=True,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(
        self, path: str, params: Mapping[str, str] | None = None, *, accept: str = JSON
    ) -> dict[str, Any]:
        """What stands at a path.

        Raises:
            ApiError: it was refused, or there is no way to the API server.
        """
        return await self.request("GET", path, params=params, accept=accept)

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> dict[str, Any]:
        """One request and its answer; throttling (429) is waited for.

        Raises:
            ApiError: it was refused, or there is no way to the API server.
        """
        content = orjson.dumps(body) if body is not None else None
        headers = {"accept": accept}
        if content is not None:
            headers["content-type"] = content_type
        timeout = aiohttp.ClientTimeout(REQUEST_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        for tries_left in range(THROTTLED_TRIES - 1, -1, -1):
            async with self._answer(
                method, path, headers, timeout, params=params, content=content
            ) as answer:
                if answer.status == 429 and tries_left:
                    pause_s = _retry_after_s(answer)
                else:
                    return await _body(answer)
            await asyncio.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    async def pages(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        accept: str = JSON,
        size: int = PAGE,
    ) -> AsyncIterator[tuple[list[dict[str, Any]], str]]:
        """The objects of a collection, page by page, each with the resource version of the list.

        Raises:
            ApiError: also 410, where the list has changed too much while it was read.
        """
        given = {**(params or {}), "limit": str(size)}
        while True:
            page = await self.get(path, given, accept=accept)
            meta = page.get("metadata") or {}
            yield page.get("items") or [], str(meta.get("resourceVersion", ""))
            proceed = meta.get("continue")
            if not proceed:
                return
            given["continue"] = proceed

    async def watch(
        self,
        path: str,
        params: Mapping[str, str],
        *,
        accept: str = JSON,
        on_open: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[Event]:
        """The events of a collection, until the API server ends the watch.

        `on_open` is called when it has begun: the first event may be long in coming.

        Raises:
            ApiError: also where an ERROR event comes, with its code.
        """
        timeout = aiohttp.ClientTimeout(
            total=None, connect=CONNECT_TIMEOUT_S, sock_read=WATCH_SILENCE_S
        )
        given = {**params, "watch": "true", "allowWatchBookmarks": "true"}
        async with self._answer("GET", path, {"accept": accept}, timeout, params=given) as answer:
            if answer.status != 200:
                await _body(answer)
            on_open()
            try:
                while line := await answer.content.readline():
                    yield _event(line)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise _unreachable(error) from error
            except ValueError as error:
                raise ApiError(0, "Malformed", f"a line of a watch: {error}") from error

    def _answer(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
        *,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> _Answer:
        if self._session is None:
            raise RuntimeError("an Api is used inside `async with`")
        return _Answer(self._session, self._access, method, path, headers, timeout, params, content)


class _Answer:
    """An answer that is asked for again, once, where the credentials had run out."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        access: Access,
        method: str,
        path: str,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
        params: Mapping[str, str] | None,
        content: bytes | None,
    ) -> None:
        self._session = session
        self._access = access
        self._method = method
        self._path = path
        self._headers = headers
        self._timeout = timeout
        self._params = params
        self._content = content
        self._answer: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> aiohttp.ClientResponse:
        answer = await self._ask(renew=False)
        if answer.status == 401:
            answer.release()
            answer = await self._ask(renew=True)
        self._answer = answer
        return answer

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._answer is not None:
            # What was not read to its end (a watch that is given up) costs the connection.
            self._answer.close()

    async def _ask(self, *, renew: bool) -> aiohttp.ClientResponse:
        try:
            where = await self._access.connection(renew=renew)
            headers = dict(self._headers)
            if where.authorization is not None:
                headers["authorization"] = where.authorization
            return await self._session.request(
                self._method,
                f"{where.server}{self._path}",
                params=self._params,
                data=self._content,
                headers=headers,
                timeout=self._timeout,
                ssl=where.tls if where.tls is not None else True,
                server_hostname=where.server_hostname,
                proxy=where.proxy,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError, TimeoutError, AccessError) as error:
            raise _unreachable(error) from error


async def _body(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    try:
        content = await answer.read()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise _unreachable(error) from error
    try:
        found = orjson.loads(content) if content else {}
    except orjson.JSONDecodeError:
        found = None
    if answer.status < 300 and isinstance(found, dict):
        return found
    said = found if isinstance(found, dict) else {}
    message = said.get("message") or content[:200].decode(errors="replace") or "no text"
    raise ApiError(answer.status, str(said.get("reason") or answer.reason or ""), str(message))


def _event(line: bytes) -> Event:
    found = orjson.loads(line)
    kind, item = found.get("type"), found.get("object")
    if not isinstance(kind, str) or not isinstance(item, dict):
        raise ValueError("an event without type or object")
    if kind == "ERROR":
        raise ApiError(
            int(item.get("code") or 500), str(item.get("reason", "")), str(item.get("message", ""))
        )
    return Event(kind, item)


def _retry_after_s(answer: aiohttp.ClientResponse) -> float:
    text = answer.headers.get("retry-after", "1")
    return min(float(text) if text.isdigit() else 1.0, LONGEST_RETRY_AFTER_S)


def _unreachable(error: BaseException) -> ApiError:
    return ApiError(0, "Unreachable", str(error) or type(error).__name__)


def _socket(info: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that notices when the other side is gone."""
    made = loop_socket(info)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        option = getattr(socket, name, None)
        if option is not None:
            made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made
