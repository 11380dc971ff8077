"""What the admin socket tells beside the objects: who knows it, and in which shape.

The composition root hands in what it has; what it lacks answers empty.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypedDict

AckState = Literal["ACKED", "NACKED", "PENDING"]


class ListenerRow(TypedDict, total=False):
    """A listener as Envoy has it."""

    gateway: str
    """`namespace/name`."""
    name: str
    address: str
    port: int
    protocol: str
    is_bound: bool
    message: str
    """Why it is not bound."""


class XdsRow(TypedDict, total=False):
    """One generated resource, and what Envoy said to it."""

    type: str
    """Short, like `Listener`."""
    name: str
    version: str
    state: AckState
    message: str
    """Envoy's words, when it refused."""
    objects: Sequence[str]
    """The objects that it came from, as texts of their references: `HTTPRoute default/web`."""


class EndpointRow(TypedDict, total=False):
    """A model server as the picker sees it. What is not known is absent."""

    pool: str
    """`namespace/name`."""
    name: str
    """The Pod's."""
    address: str
    """`host:port`."""
    is_ready: bool
    running: int
    waiting: int
    """Requests in the server's queue."""
    kv_cache: float
    """Share of the KV cache in use, 0 to 1."""
    in_flight: int
    """Requests that the picker itself has under way there."""
    adapters: Sequence[str]
    metrics_age_s: float
    error: str


class ProblemRow(TypedDict, total=False):
    """Something wrong with the files."""

    severity: Literal["error", "warning"]
    file: str
    line: int
    field: str
    message: str
    subject: str


class Logs(Protocol):
    """The output of the processes of an instance; bounded by whoever keeps it."""

    def names(self) -> Sequence[str]:
        """The pods (or other processes) that have logs."""

    def tail(self, name: str, lines: int) -> Sequence[str] | None:
        """The last lines, None for a name that has none."""

    def follow(self, name: str) -> AsyncIterator[str]:
        """Lines from now on, until the process has ended."""


class Decisions(Protocol):
    """The record of what the picker decided."""

    def __call__(
        self, limit: int, only: Mapping[str, str]
    ) -> Coroutine[Any, Any, Sequence[dict[str, Any]]]:
        """The latest decisions, the newest first.

        `only`: those of a `request_id`, a `pool`, a `model` that was asked for or given, or an
        `endpoint` (`host` or `host:port`) that won.
        """


async def _no_endpoints() -> Sequence[EndpointRow]:
    return ()


@dataclass(frozen=True, slots=True)
class Providers:
    """Who knows what."""

    is_ready: Callable[[], bool] = lambda: True
    version: Callable[[], dict[str, str]] = dict
    """Names and versions: `pointsman`, `envoy`."""
    listeners: Callable[[], Sequence[ListenerRow]] = list
    xds: Callable[[], Sequence[XdsRow]] = list
    endpoints: Callable[[], Awaitable[Sequence[EndpointRow]]] = field(default=_no_endpoints)
    problems: Callable[[], Sequence[ProblemRow]] = list
    logs: Logs | None = None
    decisions: Decisions | None = None
