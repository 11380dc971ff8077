"""The gRPC health service (`grpc.health.v1.Health`): Check and Watch.

Its two messages have one field each, so they are written here byte by byte:
HealthCheckRequest {string service = 1}, HealthCheckResponse {ServingStatus status = 1}.
"""

from __future__ import annotations

from collections.abc import Callable

from pointsman.wire.grpc import Call, Method, Responder, Status

SERVING = b"\x08\x01"
NOT_SERVING = b"\x08\x02"
SERVICE_UNKNOWN = b"\x08\x03"

CHECK = b"/grpc.health.v1.Health/Check"
WATCH = b"/grpc.health.v1.Health/Watch"

MAX_WATCHERS = 256


class Health:
    """Whether the named services serve, all of them alike, except those that always do.

    `is_serving` is asked at each Check; call `changed` when its answer may have changed.
    """

    def __init__(
        self,
        is_serving: Callable[[], bool],
        services: frozenset[str],
        always_serving: frozenset[str] = frozenset(),
    ) -> None:
        self._is_serving = is_serving
        self._services = services
        self._always_serving = always_serving
        self._watchers: dict[_Watch, str] = {}

    def methods(self) -> dict[bytes, Method]:
        """The service's methods by path."""
        return {CHECK: lambda to: _Check(self, to), WATCH: lambda to: _Watch(self, to)}

    def status(self, service: str) -> bytes:
        """The serialized HealthCheckResponse for a service."""
        if service in self._always_serving:
            return SERVING
        if service not in self._services:
            return SERVICE_UNKNOWN
        return SERVING if self._is_serving() else NOT_SERVING

    def changed(self) -> None:
        """Tell the watchers."""
        for watch, service in tuple(self._watchers.items()):
            watch.tell(self.status(service))

    def add_watcher(self, watch: _Watch, service: str) -> bool:
        """Remember who watches; False when there are too many."""
        if len(self._watchers) >= MAX_WATCHERS:
            return False
        self._watchers[watch] = service
        return True

    def remove_watcher(self, watch: _Watch) -> None:
        """Forget a watcher."""
        self._watchers.pop(watch, None)


def service_name(message: bytes) -> str:
    """The `service` of a HealthCheckRequest; "" when it is not set or cannot be read."""
    if len(message) < 2 or message[0] != 0x0A or message[1] > 127:
        return ""
    return message[2 : 2 + message[1]].decode("utf-8", "replace")


class _Check(Call):
    def __init__(self, health: Health, responder: Responder) -> None:
        self._health = health
        self._responder = responder

    def received(self, message: bytes) -> None:
        status = self._health.status(service_name(message))
        if status == SERVICE_UNKNOWN:
            self._responder.finish(Status.NOT_FOUND, "no such service")
            return
        self._responder.send(status)
        self._responder.finish()

    def half_closed(self) -> None:
        self._responder.finish(Status.INVALID_ARGUMENT, "no message came")

    def gone(self) -> None:
        """Nothing is held."""


class _Watch(Call):
    def __init__(self, health: Health, responder: Responder) -> None:
        self._health = health
        self._responder = responder
        self._last = b""

    def received(self, message: bytes) -> None:
        service = service_name(message)
        if self._health.add_watcher(self, service):
            self.tell(self._health.status(service))
        else:
            self._responder.finish(Status.RESOURCE_EXHAUSTED, "too many watchers")

    def tell(self, status: bytes) -> None:
        if status != self._last:
            self._last = status
            self._responder.send(status)

    def half_closed(self) -> None:
        """A watch goes on until the client leaves."""

    def gone(self) -> None:
        self._health.remove_watcher(self)
