"""The rules of the discovery stream, one by one, with neither socket nor clock."""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2

from pointsman.gateway.snapshot import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    ROUTE_CONFIGURATION,
    SECRET,
    EnvoyResource,
    Key,
    Snapshot,
)
from pointsman.xds.session import GATE_S, Session


def cluster(name: str, timeout_s: int = 1) -> EnvoyResource:
    message = cluster_pb2.Cluster(name=name, connect_timeout={"seconds": timeout_s})
    return EnvoyResource.of(Key(CLUSTER, name), message)


def endpoints(name: str) -> EnvoyResource:
    message = endpoint_pb2.ClusterLoadAssignment(cluster_name=name)
    return EnvoyResource.of(Key(ENDPOINTS, name), message)


def listener(name: str, prefix: str = "") -> EnvoyResource:
    return EnvoyResource.of(
        Key(LISTENER, name), listener_pb2.Listener(name=name, stat_prefix=prefix)
    )


def routes(name: str, target: str) -> EnvoyResource:
    host = {"name": "h", "domains": ["*"], "routes": [{"route": {"cluster": target}}]}
    message = route_pb2.RouteConfiguration(name=name, virtual_hosts=[host])
    return EnvoyResource.of(Key(ROUTE_CONFIGURATION, name), message)


def snapshot(*items: EnvoyResource) -> Snapshot:
    return Snapshot.of(items)


def asks(type_url: str, *names: str, **more: Any) -> discovery_pb2.DeltaDiscoveryRequest:
    return discovery_pb2.DeltaDiscoveryRequest(
        type_url=type_url, resource_names_subscribe=names, **more
    )


def acks(response: discovery_pb2.DeltaDiscoveryResponse) -> discovery_pb2.DeltaDiscoveryRequest:
    return discovery_pb2.DeltaDiscoveryRequest(
        type_url=response.type_url, response_nonce=response.nonce
    )


def nacks(
    response: discovery_pb2.DeltaDiscoveryResponse, message: str
) -> discovery_pb2.DeltaDiscoveryRequest:
    request = acks(response)
    request.error_detail.message = message
    return request


def sent(
    responses: list[discovery_pb2.DeltaDiscoveryResponse],
) -> list[tuple[str, list[str], list[str]]]:
    """Type, names, removed names of each response."""
    return [
        (
            response.type_url.rpartition(".")[2],
            [item.name for item in response.resources],
            list(response.removed_resources),
        )
        for response in responses
    ]


def settled(*items: EnvoyResource) -> Session:
    """A session whose Envoy has taken everything of `items`."""
    session = Session(snapshot(*items))
    open_requests = [
        asks(CLUSTER),
        asks(LISTENER),
        asks(ENDPOINTS, *(item.key.name for item in items if item.key.type_url == ENDPOINTS)),
        asks(
            ROUTE_CONFIGURATION,
            *(item.key.name for item in items if item.key.type_url == ROUTE_CONFIGURATION),
        ),
    ]
    waiting = [response for each in open_requests for response in session.receive(each, 0)]
    while waiting:
        waiting += session.receive(acks(waiting.pop(0)), 0)
    assert session.is_settled
    return session


def test_listeners_and_routes_wait_for_the_clusters_to_be_acknowledged() -> None:
    session = Session(snapshot(cluster("c"), endpoints("c"), listener("l"), routes("r", "c")))
    clusters = session.receive(asks(CLUSTER), 0)
    assert sent(clusters) == [("Cluster", ["c"], [])]
    assert session.receive(asks(LISTENER), 0) == []
    assert sent(session.receive(asks(ENDPOINTS, "c"), 0)) == [("ClusterLoadAssignment", ["c"], [])]
    assert sent(session.receive(acks(clusters[0]), 0)) == [("Listener", ["l"], [])]
    found = session.receive(asks(ROUTE_CONFIGURATION, "r"), 0)
    assert sent(found) == [("RouteConfiguration", ["r"], [])]


def test_a_cluster_that_never_warms_does_not_hold_up_the_others_for_ever() -> None:
    session = Session(snapshot(cluster("slow"), listener("l")))
    session.receive(asks(CLUSTER), 0)
    assert session.receive(asks(LISTENER), 1) == []
    assert session.deadline() == GATE_S
    assert session.poll(GATE_S - 0.1) == []
    assert sent(session.poll(GATE_S)) == [("Listener", ["l"], [])]


def test_only_what_changed_is_sent() -> None:
    session = settled(cluster("a"), cluster("b"), listener("l"))
    changed = snapshot(cluster("a"), cluster("b", 2), listener("l"))
    assert sent(session.update(changed, 0)) == [("Cluster", ["b"], [])]


def test_a_changed_cluster_gets_its_endpoints_again() -> None:
    session = settled(cluster("a"), endpoints("a"))
    changed = snapshot(cluster("a", 2), endpoints("a"))
    assert sent(session.update(changed, 0)) == [
        ("Cluster", ["a"], []),
        ("ClusterLoadAssignment", ["a"], []),
    ]


def test_a_changed_cluster_is_told_again_that_it_has_no_endpoints() -> None:
    session = settled(cluster("a"))
    absent = session.receive(asks(ENDPOINTS, "a"), 0)
    assert sent(absent) == [("ClusterLoadAssignment", [], ["a"])]
    session.receive(acks(absent[0]), 0)
    assert sent(session.update(snapshot(cluster("a", 2)), 0)) == [
        ("Cluster", ["a"], []),
        ("ClusterLoadAssignment", [], ["a"]),
    ]


def test_who_comes_back_is_sent_the_endpoints_of_all_clusters() -> None:
    """The stream may have ended between a cluster and its endpoints."""
    served = snapshot(cluster("a"), endpoints("a"))
    versions = [{"a": served.names(each)["a"].version} for each in (CLUSTER, ENDPOINTS)]
    session = Session(served)
    assert session.receive(asks(CLUSTER, initial_resource_versions=versions[0]), 0) == []
    request = asks(ENDPOINTS, "a", "gone", initial_resource_versions=versions[1] | {"gone": "1"})
    assert sent(session.receive(request, 0)) == [("ClusterLoadAssignment", ["a"], ["gone"])]


def test_an_old_cluster_goes_only_after_the_routes_that_used_it() -> None:
    session = settled(cluster("old"), routes("r", "old"), listener("l"))
    new = snapshot(cluster("new"), routes("r", "new"), listener("l"))
    added = session.update(new, 0)
    assert sent(added) == [("Cluster", ["new"], [])]
    rerouted = session.receive(acks(added[0]), 0)
    assert sent(rerouted) == [("RouteConfiguration", ["r"], [])]
    assert sent(session.receive(acks(rerouted[0]), 0)) == [("Cluster", [], ["old"])]


def test_one_response_of_a_type_is_in_flight_at_a_time() -> None:
    session = settled(listener("l"))
    first = session.update(snapshot(listener("l", "a")), 0)
    assert session.update(snapshot(listener("l", "b")), 0) == []
    assert sent(session.receive(acks(first[0]), 0)) == [("Listener", ["l"], [])]


def test_a_name_that_does_not_exist_is_said_to_be_removed_once() -> None:
    session = settled(listener("l"))
    answer = session.receive(asks(ROUTE_CONFIGURATION, "nobody"), 0)
    assert sent(answer) == [("RouteConfiguration", [], ["nobody"])]
    assert session.receive(acks(answer[0]), 0) == []
    later = session.update(snapshot(listener("l"), routes("nobody", "c")), 0)
    assert sent(later) == [("RouteConfiguration", ["nobody"], [])]


def test_a_refused_resource_is_remembered_until_it_changes() -> None:
    session = settled(listener("good"), listener("bad"))
    changed = session.update(snapshot(listener("good", "x"), listener("bad", "x")), 0)
    message = "Error adding/updating listener(s) bad: cannot bind"
    assert session.receive(nacks(changed[0], message), 0) == []
    assert session.refused == {Key(LISTENER, "bad"): message}
    assert session.acknowledged(Key(LISTENER, "good"))
    assert not session.acknowledged(Key(LISTENER, "bad"))
    again = session.update(snapshot(listener("good", "x"), listener("bad", "y")), 0)
    assert sent(again) == [("Listener", ["bad"], [])]
    session.receive(acks(again[0]), 0)
    assert session.refused == {}
    assert session.acknowledged(Key(LISTENER, "bad"))


def test_a_refusal_that_names_nothing_blames_the_whole_response() -> None:
    session = Session(snapshot(cluster("a"), cluster("b")))
    response = session.receive(asks(CLUSTER), 0)[0]
    session.receive(nacks(response, "no"), 0)
    assert set(session.refused) == {Key(CLUSTER, "a"), Key(CLUSTER, "b")}


def test_secrets_go_one_by_one() -> None:
    def secret(name: str) -> EnvoyResource:
        return EnvoyResource.of(Key(SECRET, name), secret_pb2.Secret(name=name))

    session = Session(snapshot(secret("a"), secret("b")))
    first = session.receive(asks(SECRET, "a", "b"), 0)
    assert sent(first) == [("Secret", ["a"], [])]
    second = session.receive(nacks(first[0], "no start line"), 0)
    assert sent(second) == [("Secret", ["b"], [])]
    assert set(session.refused) == {Key(SECRET, "a")}


def test_a_name_inside_a_longer_name_is_not_blamed_for_it() -> None:
    session = Session(snapshot(cluster("pool/a"), cluster("pool/a/picker")))
    response = session.receive(asks(CLUSTER), 0)[0]
    session.receive(nacks(response, "cluster pool/a/picker: bad"), 0)
    assert set(session.refused) == {Key(CLUSTER, "pool/a/picker")}


def test_a_refused_resource_can_be_tried_again() -> None:
    session = Session(snapshot(listener("l")))
    session.receive(asks(CLUSTER), 0)
    response = session.receive(asks(LISTENER), 0)[0]
    session.receive(nacks(response, "l: cannot bind"), 0)
    retried = session.retry(Key(LISTENER, "l"), 1)
    assert sent(retried) == [("Listener", ["l"], [])]
    assert session.refused
    session.receive(acks(retried[0]), 1)
    assert session.refused == {}


def test_an_envoy_that_comes_back_is_told_only_what_it_lacks() -> None:
    served = snapshot(listener("l"), listener("m"))
    session = Session(served)
    versions = {"l": served.names(LISTENER)["l"].version, "gone": "1"}
    session.receive(asks(CLUSTER), 0)
    request = asks(LISTENER, initial_resource_versions=versions)
    assert sent(session.receive(request, 0)) == [("Listener", ["m"], ["gone"])]


def test_a_stale_acknowledgement_settles_nothing() -> None:
    session = Session(snapshot(listener("l")))
    session.receive(asks(CLUSTER), 0)
    response = session.receive(asks(LISTENER), 0)[0]
    stale = acks(response)
    stale.response_nonce = "other"
    session.receive(stale, 0)
    assert not session.acknowledged(Key(LISTENER, "l"))
    assert not session.is_settled


def test_who_asks_for_all_clusters_gets_an_answer_even_when_there_are_none() -> None:
    session = Session(snapshot(listener("l")))
    first = session.receive(asks(CLUSTER), 0)
    assert sent(first) == [("Cluster", [], [])]
    # Nothing waits for its acknowledgement.
    assert sent(session.receive(asks(LISTENER), 0)) == [("Listener", ["l"], [])]
    assert session.receive(acks(first[0]), 0) == []


def test_a_type_that_is_not_served_is_ignored() -> None:
    session = Session(snapshot())
    assert session.receive(asks("type.googleapis.com/envoy.config.nothing.v3.Thing"), 0) == []
