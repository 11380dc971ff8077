"""One Envoy's stream of the incremental (delta) aggregated discovery service, without I/O.

In come the stream's requests, new snapshots and the time; out come responses to send.

Everything that decides what may be sent when is in `Session._due`. The rules:

1. One response of a type is in flight at a time; the next waits for its ACK or NACK.
2. Clusters go first, and what is gone goes last: a cluster is removed only when no listener and no
   route configuration is in flight or waiting (make before break).
3. Endpoints and secrets are never held back: Envoy acknowledges a cluster only once its endpoints
   have come. Whenever a cluster is sent, its endpoints are sent again after it, for the new cluster
   warms up with them and Envoy does not ask a second time for a name it watches. Who comes back is
   sent the endpoints of all clusters: the stream may have ended between a cluster and its own, and
   that cluster, with all that comes after it, would wait for 15 s.
4. Listeners and route configurations wait for the clusters they use: until no cluster is in flight,
   or `GATE_S` has passed (a cluster whose name does not resolve must not hold up the others).
5. A name that is asked for and does not exist is answered as removed, so that Envoy does not wait.
6. Who asks for everything of a type gets an answer even when there is nothing: Envoy waits for it
   before it goes on to the next type.
7. Secrets go one by one: a refused one names nothing in its NACK and takes the rest of its response
   with it.
8. A NACK is remembered for the resources that it names, and they are not sent again until they
   change or somebody asks for another try. Envoy keeps what it had.

Sources: the xDS protocol page of Envoy's documentation, and what Envoy 1.40 was seen to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.any_pb2 import Any as AnyMessage

from pointsman.gateway import snapshot
from pointsman.gateway.snapshot import EnvoyResource, Key, Snapshot
from pointsman.xds.complaints import essence

GATE_S = 5.0
"""How long listeners and routes wait for clusters to be acknowledged."""

WILDCARD = "*"
WILDCARD_TYPES = frozenset({snapshot.CLUSTER, snapshot.LISTENER})
"""Types of which Envoy wants everything without naming it."""

GATED_TYPES = frozenset({snapshot.LISTENER, snapshot.ROUTE_CONFIGURATION})


@dataclass(slots=True)
class _InFlight:
    nonce: str
    versions: dict[str, str]
    removed: tuple[str, ...]
    sent_at: float


@dataclass(slots=True)
class _TypeState:
    is_open: bool = False
    """Envoy has asked for this type at all."""
    subscribed: set[str] = field(default_factory=set)
    known: dict[str, str] = field(default_factory=dict)
    """What Envoy has, or was sent last: name to version."""
    absent: set[str] = field(default_factory=set)
    """Names that were answered as not existing."""
    awaits_first: bool = False
    """Envoy wants everything of this type and has had no answer yet."""
    changed: dict[str, None] = field(default_factory=dict)
    """Names that Envoy wants and has in another version, or not at all; the oldest first."""
    gone: dict[str, None] = field(default_factory=dict)
    """Names that Envoy has, or asks for, and that are not there."""
    in_flight: _InFlight | None = None


class Session:
    """What one Envoy knows, and what it must be told next."""

    def __init__(self, served: Snapshot) -> None:
        self._served = served
        self._types = {type_url: _TypeState() for type_url in snapshot.TYPES}
        self._nonces = 0
        self.refused: dict[Key, str] = {}
        """Resources that Envoy refused in their present version, with its words."""

    def update(self, served: Snapshot, now: float) -> list[discovery_pb2.DeltaDiscoveryResponse]:
        """Take another snapshot; returns what is to be sent."""
        before, self._served = self._served, served
        for type_url in snapshot.TYPES:
            old, new = before.names(type_url), served.names(type_url)
            if old is new:
                continue
            for name, item in new.items():
                known = old.get(name)
                if known is not item:
                    self._forget_refusal(known, item)
                    self._look_at(type_url, name)
            for name in old.keys() - new.keys():
                self.refused.pop(Key(type_url, name), None)
                self._look_at(type_url, name)
        return self._due(now)

    def _forget_refusal(self, old: EnvoyResource | None, new: EnvoyResource) -> None:
        if old is None or old.version != new.version:
            self.refused.pop(new.key, None)

    def retry(self, key: Key, now: float) -> list[discovery_pb2.DeltaDiscoveryResponse]:
        """Send a refused resource once more: what was in its way may be gone."""
        if key in self.refused:
            self._types[key.type_url].known.pop(key.name, None)
            self._look_at(key.type_url, key.name)
        return self._due(now)

    def receive(
        self, request: discovery_pb2.DeltaDiscoveryRequest, now: float
    ) -> list[discovery_pb2.DeltaDiscoveryResponse]:
        """Take a request; returns what is to be sent. Types that are not served are ignored."""
        state = self._types.get(request.type_url)
        if state is None:
            return []
        touched = {*request.resource_names_subscribe, *request.resource_names_unsubscribe}
        if not state.is_open:
            state.is_open = True
            if request.type_url != snapshot.ENDPOINTS:  # rule 3
                state.known.update(request.initial_resource_versions)
            if request.type_url in WILDCARD_TYPES and not request.resource_names_subscribe:
                state.subscribed.add(WILDCARD)
                # One that comes back with what it has is not waiting.
                state.awaits_first = not request.initial_resource_versions
            touched.update(state.known, self._served.names(request.type_url))
        for name in request.resource_names_subscribe:
            state.subscribed.add(name)
            state.absent.discard(name)
            if not request.initial_resource_versions:
                # Asked for anew: Envoy does not have it, whatever it had before.
                state.known.pop(name, None)
        for name in request.resource_names_unsubscribe:
            state.subscribed.discard(name)
            state.known.pop(name, None)
            state.absent.discard(name)
        for name in sorted(touched):
            self._look_at(request.type_url, name)
        if request.response_nonce:
            self._settle(request, state)
        return self._due(now)

    def poll(self, now: float) -> list[discovery_pb2.DeltaDiscoveryResponse]:
        """What has become due by the passing of time."""
        return self._due(now)

    def deadline(self) -> float | None:
        """When `poll` may have something: the end of the wait for clusters."""
        in_flight = self._types[snapshot.CLUSTER].in_flight
        return in_flight.sent_at + GATE_S if in_flight is not None else None

    @property
    def is_settled(self) -> bool:
        """Envoy has answered everything, and has everything that it has not refused."""
        return all(self._types[type_url].is_open for type_url in WILDCARD_TYPES) and not any(
            state.in_flight is not None or state.changed for state in self._types.values()
        )

    @property
    def has_listeners(self) -> bool:
        """Envoy has answered for every listener that there is."""
        state = self._types[snapshot.LISTENER]
        return state.is_open and state.in_flight is None and not state.changed

    def acknowledged(self, key: Key) -> bool:
        """Whether Envoy has taken a resource in its present version."""
        state = self._types[key.type_url]
        item = self._served.get(key)
        pending = state.in_flight is not None and key.name in state.in_flight.versions
        return (
            item is not None
            and not pending
            and key not in self.refused
            and state.known.get(key.name) == item.version
        )

    def _settle(self, request: discovery_pb2.DeltaDiscoveryRequest, state: _TypeState) -> None:
        in_flight = state.in_flight
        if in_flight is None or in_flight.nonce != request.response_nonce:
            return
        state.in_flight = None
        is_refusal = request.HasField("error_detail")
        message = request.error_detail.message
        blamed = _blamed(message, in_flight.versions) if is_refusal else set()
        for name, version in in_flight.versions.items():
            key = Key(request.type_url, name)
            current = self._served.get(key)
            if name in blamed and current is not None and current.version == version:
                self.refused[key] = essence(message)
            else:
                self.refused.pop(key, None)

    def _due(self, now: float) -> list[discovery_pb2.DeltaDiscoveryResponse]:
        """The responses that may go now, by the rules at the top."""
        result = []
        clusters = self._types[snapshot.CLUSTER]
        for type_url in snapshot.TYPES:
            state = self._types[type_url]
            if not state.is_open or state.in_flight is not None:
                continue
            if type_url in GATED_TYPES and self._is_gated(clusters, now):
                continue
            changed = list(state.changed)
            gone = [] if type_url == snapshot.CLUSTER else list(state.gone)
            if type_url == snapshot.SECRET:
                changed = changed[:1]
            if changed or gone or state.awaits_first:
                result.append(self._response(type_url, changed, gone, now))
        if clusters.is_open and clusters.in_flight is None and self._users_are_settled():
            gone = list(clusters.gone)
            if gone:
                result.append(self._response(snapshot.CLUSTER, [], gone, now))
        return result

    def _is_gated(self, clusters: _TypeState, now: float) -> bool:
        in_flight = clusters.in_flight
        if in_flight is None or not in_flight.versions:
            return False
        return now < in_flight.sent_at + GATE_S

    def _users_are_settled(self) -> bool:
        return all(
            self._types[type_url].in_flight is None and not self._types[type_url].changed
            for type_url in GATED_TYPES
        )

    def _look_at(self, type_url: str, name: str) -> None:
        """Note whether Envoy must be told of that resource; call when any of it may be new."""
        state = self._types[type_url]
        item = self._served.names(type_url).get(name)
        is_wanted = WILDCARD in state.subscribed or name in state.subscribed
        state.changed.pop(name, None)
        state.gone.pop(name, None)
        if item is not None:
            if is_wanted and state.known.get(name) != item.version:
                state.changed[name] = None
        elif name in state.known or (
            name in state.subscribed and name not in state.absent and name != WILDCARD
        ):
            state.gone[name] = None

    def _response(
        self, type_url: str, changed: Iterable[str], gone: Iterable[str], now: float
    ) -> discovery_pb2.DeltaDiscoveryResponse:
        state = self._types[type_url]
        served = self._served.names(type_url)
        items = [served[name] for name in changed]
        removed = tuple(gone)
        self._nonces += 1
        nonce = str(self._nonces)
        versions = {item.key.name: item.version for item in items}
        state.in_flight = _InFlight(nonce, versions, removed, now)
        state.awaits_first = False
        state.known.update(versions)
        state.absent.difference_update(versions)
        for name in removed:
            state.known.pop(name, None)
            if name in state.subscribed:
                state.absent.add(name)
        for name in (*versions, *removed):
            self._look_at(type_url, name)
        if type_url == snapshot.CLUSTER:
            endpoints = self._types[snapshot.ENDPOINTS]
            for name in versions:
                endpoints.known.pop(name, None)
                endpoints.absent.discard(name)
                self._look_at(snapshot.ENDPOINTS, name)
        return discovery_pb2.DeltaDiscoveryResponse(
            type_url=type_url,
            nonce=nonce,
            resources=map(_resource, items),
            removed_resources=removed,
        )


def _resource(item: EnvoyResource) -> discovery_pb2.Resource:
    content = AnyMessage(type_url=item.key.type_url, value=item.content)
    return discovery_pb2.Resource(name=item.key.name, version=item.version, resource=content)


def _blamed(message: str, versions: dict[str, str]) -> set[str]:
    """The resources that a NACK means: those that it names, else all of the response."""
    named = {name for name in versions if name in message}
    # `a/b` is also found in a message about `a/b/c`: the longer name is the one that is meant,
    # unless the message goes on after the shorter one in another way.
    inner = {
        name
        for name in named
        for other in named
        if name != other and name in other and message.count(name) == message.count(other)
    }
    return (named - inner) or set(versions)
