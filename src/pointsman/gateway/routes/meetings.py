"""Where a rule of a route meets a listener, which policies count there.

The clusters of a rule are the same wherever the rule is reached, and so are those of a pool. Of
several policies that would differ the first counts: that of the first parentRef, and for a pool
that of the oldest route.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from pointsman.gateway.backends.clusters import ClusterSettings
from pointsman.gateway.listeners.attachment import RouteParent
from pointsman.gateway.listeners.binding import BoundListener
from pointsman.gateway.policies.clients import keeps_header_case
from pointsman.gateway.policies.extensions import Extension
from pointsman.gateway.policies.targets import Known, Place, Subject
from pointsman.gateway.routes import traffic
from pointsman.gateway.routes.rules import Rule
from pointsman.gateway.scene import Scene
from pointsman.resources.base import Ref, Resource
from pointsman.resources.gateway_api import Route
from pointsman.resources.traffic_policies import TrafficPolicySpec


@dataclass(frozen=True, slots=True)
class PolicyView:
    """A route as policies see it."""

    known: Known
    places: tuple[Place, ...]
    """The listeners that it is attached to, in the order of its parentRefs."""


def policy_view(route: Route, rules: Sequence[Rule], parents: Sequence[RouteParent]) -> PolicyView:
    """A route as policies see it."""
    labels = frozenset(rule.label for rule in rules if rule.label is not None)
    gateways = dict.fromkeys(parent.served.gateway.ref for parent in parents)
    listeners = {
        item.listener.xds_name: item.listener for parent in parents for item in parent.attachments
    }
    return PolicyView(
        Known(subject_of(route), labels, tuple(gateways)),
        tuple(place_of(item) for item in listeners.values()),
    )


@dataclass(frozen=True, slots=True)
class Meeting:
    """A rule on a listener."""

    rule: Rule
    listener: BoundListener
    extension: Extension | None
    policy: TrafficPolicySpec | None
    keeps_header_case: bool = False
    """The listener's policy wants the letters of headers kept."""


class Meetings:
    """All meetings of one route, as they are found."""

    def __init__(self, route: Route, scene: Scene) -> None:
        self._subject = subject_of(route)
        self._scene = scene
        self._found: list[Meeting] = []

    def at(self, rule: Rule, listener: BoundListener) -> Meeting:
        """The meeting of a rule with a listener."""
        place = place_of(listener)
        scene = self._scene
        extension = scene.extensions.of_route(self._subject, rule.label, place)
        policy = scene.traffic.of_route(self._subject, rule.label, place)
        keeps = keeps_header_case(scene.clients.of_listener(place))
        found = Meeting(rule, listener, extension, policy, keeps)
        self._found.append(found)
        return found

    def asked_of(self, rule: Rule) -> ClusterSettings:
        """What policies ask for the clusters of a rule."""
        met = [item for item in self._found if item.rule is rule]
        policies = (item.policy for item in met if item.policy is not None)
        keeps = any(item.keeps_header_case for item in met)
        return ClusterSettings(policy=next(policies, None), keeps_header_case=keeps)

    @property
    def pool_policies(self) -> Mapping[Ref, TrafficPolicySpec]:
        """What counts for the clusters of pools, as far as this route goes."""
        result: dict[Ref, TrafficPolicySpec] = {}
        for item in self._found:
            if item.policy is not None:
                for destination in item.rule.pools:
                    result.setdefault(destination.ref, item.policy)
        return result

    @property
    def filters(self) -> dict[str, Message]:
        """The HTTP filters that its policies switch on, by name, beside processors."""
        return {
            name: config
            for item in self._found
            for name, config in traffic.listener_filters(item.policy).items()
        }

    @property
    def processors(self) -> Mapping[str, tuple[str, ...]]:
        """The filters of processors that are switched on, by route configuration."""
        result: dict[str, dict[str, None]] = {}
        for item in self._found:
            for processor in item.extension.processors if item.extension is not None else ():
                known = result.setdefault(item.listener.route_config, {})
                known[processor.filter_name] = None
        return {name: tuple(filters) for name, filters in result.items()}


def subject_of(item: Resource) -> Subject:
    """A Gateway or route, as policies target it."""
    return Subject(item.ref, item.metadata.labels)


def place_of(listener: BoundListener) -> Place:
    """A listener, as policies target it."""
    return Place(subject_of(listener.gateway), subject_of(listener.owner), listener.spec.name)
