"""Whatever happens in whatever order, an Envoy ends up with what is served.

The Envoy here is a model of what Envoy 1.40 does: it asks for the endpoints of each cluster and the
routes of each listener, warms a cluster up until its endpoints come, acknowledges clusters only
then, and comes back after a break with what it has.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest as Request
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse as Response
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.gateway.snapshot import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    ROUTE_CONFIGURATION,
    TYPES,
    EnvoyResource,
    Key,
    Snapshot,
)
from pointsman.xds.session import Session

NAMES = ("a", "b", "c")
BEHIND = {CLUSTER: ENDPOINTS, LISTENER: ROUTE_CONFIGURATION}
"""What Envoy asks for by the name of a resource that it has got."""
STEPS = 60


@dataclass
class Envoy:
    """What one Envoy has, and what it has still to say and to hear."""

    session: Session
    has: dict[str, dict[str, str]] = field(default_factory=lambda: {each: {} for each in TYPES})
    asks: dict[str, set[str]] = field(default_factory=lambda: {each: set() for each in TYPES})
    cold: set[str] = field(default_factory=set)
    """Clusters whose endpoints have not come since they were made."""
    says: deque[Request] = field(default_factory=deque)
    hears: deque[Response] = field(default_factory=deque)
    withheld: Request | None = None
    """The acknowledgement of clusters, until all are warm."""

    def connect(self, session: Session) -> None:
        self.session = session
        self.says.clear()
        self.hears.clear()
        self.withheld = None
        for type_url in TYPES:
            if type_url in BEHIND or self.asks[type_url]:
                self.says.append(
                    Request(
                        type_url=type_url,
                        resource_names_subscribe=sorted(self.asks[type_url]),
                        initial_resource_versions=self.has[type_url],
                    )
                )

    def speak(self) -> None:
        if self.says:
            self.hears += self.session.receive(self.says.popleft(), 0.0)

    def hear(self) -> None:
        if not self.hears:
            return
        response = self.hears.popleft()
        has = self.has[response.type_url]
        for name in response.removed_resources:
            has.pop(name, None)
        asked = self.asks.get(response.type_url, ())
        for item in response.resources:
            # What it has stopped asking for meanwhile Envoy does not take.
            if response.type_url in BEHIND or item.name in asked:
                has[item.name] = item.version
        ack = Request(type_url=response.type_url, response_nonce=response.nonce)
        if response.type_url == ENDPOINTS:
            self.cold -= {item.name for item in response.resources}
            # Of one that is not there Envoy waits no longer.
            self.cold -= set(response.removed_resources)
        if behind := BEHIND.get(response.type_url):
            self._ask(behind, set(has))
        if response.type_url == CLUSTER:
            self.cold |= {item.name for item in response.resources}
            self.cold -= set(response.removed_resources)
            self.withheld = ack
        else:
            self.says.append(ack)
        if self.withheld is not None and not self.cold:
            self.says.append(self.withheld)
            self.withheld = None

    def _ask(self, type_url: str, wanted: set[str]) -> None:
        before, self.asks[type_url] = self.asks[type_url], wanted
        if before == wanted:
            return
        for name in before - wanted:
            self.has[type_url].pop(name, None)
        self.says.append(
            Request(
                type_url=type_url,
                resource_names_subscribe=sorted(wanted - before),
                resource_names_unsubscribe=sorted(before - wanted),
            )
        )


def served(data: st.DataObject) -> Snapshot:
    items = []
    for type_url, behind in BEHIND.items():
        for name in data.draw(st.sets(st.sampled_from(NAMES))):
            for each in (type_url, behind):
                content = data.draw(st.sampled_from((b"1", b"2")))
                items.append(EnvoyResource.of_content(Key(each, name), content))
    return Snapshot.of(items)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_an_envoy_ends_up_with_what_is_served(data: st.DataObject) -> None:
    now = served(data)
    envoy = Envoy(Session(now))
    envoy.connect(envoy.session)
    for _ in range(data.draw(st.integers(0, STEPS))):
        match data.draw(st.sampled_from("ssshhhhub")):
            case "s":
                envoy.speak()
            case "h":
                envoy.hear()
            case "u":
                now = served(data)
                envoy.hears += envoy.session.update(now, 0.0)
            case "b":
                envoy.connect(Session(now))
    while envoy.says or envoy.hears:
        envoy.speak()
        envoy.hear()
    assert not envoy.cold
    assert envoy.session.is_settled
    for type_url in TYPES:
        wanted = {item.key.name: item.version for item in now.of_type(type_url)}
        assert envoy.has[type_url] == wanted, type_url
