"""Who may read the metrics: the API server is asked, as the reference picker does.

The reader sends a bearer token. A TokenReview says whose it is, a SubjectAccessReview whether that
one may `get` the path `/metrics`. Without a good token the answer is 401, without the right 403,
and while the API server cannot be asked 503. Answers are kept for a while, by a hash of the token:

| answer | kept for |
| --- | --- |
| may read | 60 s, and while the API server is away up to 10 minutes |
| may not, or no good token | 10 s |
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from pointsman.resources.base import Kind
from pointsman.sources.kubernetes.api import ApiError, path_of

PATH = "/metrics"
ALLOWED_S, DENIED_S, ALLOWED_AWAY_S = 60.0, 10.0, 600.0
MAX_ANSWERS = 256
MAX_TOKEN_BYTES = 16 * 1024
MAX_QUESTIONS = 4
"""At the same time; readers of one moment wait for each other."""
TIMEOUT_S = 5.0

TOKEN_REVIEW = Kind("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", namespaced=False)
ACCESS_REVIEW = Kind(
    "authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", namespaced=False
)

log = logging.getLogger(__name__)


class Reviews(Protocol):
    """Who is asked: an `Api` is."""

    async def request(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """One request and its answer."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    """200, 401 or 403."""
    at: float


class MetricsGuard:
    """Answers whether the bearer of a token may read; a middleware of the metrics server."""

    def __init__(self, api: Reviews, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()
        self._questions = asyncio.Semaphore(MAX_QUESTIONS)
        self._complaint = ""

    def middleware(self) -> Any:
        """For an application in which everything is guarded."""

        @web.middleware
        async def guard(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            status = await self.judge(request.headers.get("authorization", ""))
            if status == 200:
                return await handler(request)
            headers = {"www-authenticate": "Bearer"} if status == 401 else {}
            return web.Response(text=_TEXTS[status], status=status, headers=headers)

        return guard

    async def judge(self, authorization: str) -> int:
        """The HTTP status for the value of an `authorization` header; 200 where it may read."""
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN_BYTES:
            return 401
        key = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        if (known := self._known(key)) is not None:
            return known
        async with self._questions:
            if (known := self._known(key)) is not None:
                return known
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    status = await self._ask(token)
            except (ApiError, TimeoutError) as error:
                self._complain(str(error) or "no answer in time")
                last = self._answers.get(key)
                if last is not None and last.status == 200:
                    return 200
                return 503
        self._complaint = ""
        self._remember(key, status)
        return status

    def _known(self, key: bytes) -> int | None:
        found = self._answers.get(key)
        if found is None:
            return None
        age_s = self._clock() - found.at
        if age_s > (ALLOWED_AWAY_S if found.status == 200 else DENIED_S):
            del self._answers[key]
            return None
        return found.status if found.status != 200 or age_s <= ALLOWED_S else None

    def _remember(self, key: bytes, status: int) -> None:
        self._answers.pop(key, None)
        self._answers[key] = _Answer(status, self._clock())
        while len(self._answers) > MAX_ANSWERS:
            self._answers.popitem(last=False)

    async def _ask(self, token: str) -> int:
        said = await self._review(TOKEN_REVIEW, {"token": token})
        user = said.get("user") or {}
        if said.get("authenticated") is not True or not user.get("username"):
            return 401
        allowed = await self._review(
            ACCESS_REVIEW,
            {
                "user": user["username"],
                "uid": user.get("uid") or "",
                "groups": user.get("groups") or [],
                "extra": user.get("extra") or {},
                "nonResourceAttributes": {"path": PATH, "verb": "get"},
            },
        )
        return 200 if allowed.get("allowed") is True else 403

    async def _review(self, kind: Kind, spec: dict[str, Any]) -> dict[str, Any]:
        body = {"apiVersion": kind.api_version, "kind": kind.kind, "spec": spec}
        answer = await self._api.request("POST", path_of(kind), body)
        status: dict[str, Any] = answer.get("status") or {}
        return status

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            log.warning(
                "The API server does not say who may read the metrics (%s); the right to create "
                "tokenreviews and subjectaccessreviews is needed, or --metrics-endpoint-auth=false",
                complaint,
            )
        self._complaint = complaint


_TEXTS = {
    401: "a bearer token is needed, of an account that may get the path /metrics\n",
    403: "the bearer of this token may not get the path /metrics\n",
    503: "the API server does not say who may read the metrics; the picker's log has more\n",
}
