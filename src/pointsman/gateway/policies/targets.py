"""Which policy counts where: one way for every kind of policy to find its targets.

A target is a Gateway or a route, or a section of one: a listener of a Gateway, a named rule of a
route. Rules (Envoy Gateway's, and the Gateway API's for policies):

- The most specific target counts: rule, then route, then listener, then Gateway.
- Of two policies on one target the older one holds it, then the one first by namespace and name.
  The other one is in conflict there, and may still hold its other targets.
- A target is in the namespace of its policy. One that is named is looked for whether it is there or
  not; a selector finds what has its labels, and never a section.

Which policy counts for a route is a function of the route's name and labels, of the rule, the
Gateway and the listener, and of nothing else, so that routes can come and go without a policy
being read again.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from pointsman.resources.base import ObjectMeta, Ref
from pointsman.resources.gateways import GROUP
from pointsman.resources.policy_targets import PolicyTargets
from pointsman.resources.selectors import LabelSelector

GATEWAY = "Gateway"


class TargetingPolicy(Protocol):
    """A policy of whatever kind."""

    @property
    def metadata(self) -> ObjectMeta:
        """Its name and age."""

    @property
    def ref(self) -> Ref:
        """By which others name it."""

    @property
    def age_key(self) -> tuple[str, str, str]:
        """Sorts older policies first."""

    @property
    def spec(self) -> PolicyTargets:
        """What it is for."""


P = TypeVar("P", bound=TargetingPolicy)


class Subject(NamedTuple):
    """What a policy may target: a Gateway or route, by its name and its labels."""

    ref: Ref
    labels: Mapping[str, str]


class Spot(NamedTuple):
    """A target: an object, or a section of one."""

    ref: Ref
    section: str | None = None

    def __str__(self) -> str:
        return f"{self.ref}/{self.section}" if self.section else str(self.ref)

    @property
    def path(self) -> str:
        """Without the kind: `default/my-route` or `default/my-gateway/http`."""
        name = f"{self.ref.namespace}/{self.ref.name}"
        return f"{name}/{self.section}" if self.section else name


class Place(NamedTuple):
    """Where a route is met: a listener of a Gateway, or of a ListenerSet of it."""

    gateway: Subject
    owner: Subject
    """The object that the listener is written in."""
    listener: str


class Targets(Generic[P]):
    """The policies of one kind by what they target."""

    def __init__(self, policies: Iterable[P]) -> None:
        self.policies = tuple(sorted(policies, key=lambda item: item.age_key))
        self._named: dict[Spot, P] = {}
        self._selecting: dict[tuple[str, str], list[tuple[LabelSelector, int, P]]] = {}
        self._age: dict[Ref, int] = {}
        for age, policy in enumerate(self.policies):
            self._age[policy.ref] = age
            for spot in named(policy):
                self._named.setdefault(spot, policy)
            for selector in policy.spec.target_selectors:
                kind = (policy.metadata.namespace, selector.kind)
                self._selecting.setdefault(kind, []).append((selector.labels, age, policy))

    def holder(self, subject: Subject, section: str | None = None) -> P | None:
        """The policy that holds a target, the oldest of those that want it."""
        found = self._named.get(Spot(subject.ref, section))
        if section is not None:
            return found
        kind = (subject.ref.namespace, subject.ref.kind)
        for selector, age, policy in self._selecting.get(kind, ()):
            if found is not None and self._age[found.ref] <= age:
                break
            if selector.matches(subject.labels):
                return policy
        return found

    def of_listener(self, place: Place) -> P | None:
        """The policy that counts for a listener: its own, that of its owner, or its Gateway's."""
        found = self.holder(place.owner, place.listener) or self.holder(place.owner)
        return found or self.holder(place.gateway)

    def of_route(self, route: Subject, rule: str | None, place: Place) -> P | None:
        """The policy that counts for a rule of a route on a listener."""
        own = self.holder(route, rule) if rule is not None else None
        return own or self.holder(route) or self.of_listener(place)


def named(policy: TargetingPolicy) -> Iterator[Spot]:
    """What a policy names, each once."""
    namespace = policy.metadata.namespace
    spots = (
        Spot(Ref(item.group, item.kind, namespace, item.name), item.section_name)
        for item in policy.spec.targets
    )
    return iter(dict.fromkeys(spots))


@dataclass(frozen=True, slots=True)
class Known:
    """A Gateway of ours, or a route on one."""

    subject: Subject
    sections: frozenset[str]
    """The listeners of the Gateway, or the named rules of the route."""
    gateways: tuple[Ref, ...]
    """Those through which the route is reached; the Gateway itself."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a policy stands with what it targets."""

    held: tuple[Spot, ...] = ()
    conflicts: tuple[Spot, ...] = ()
    """Targets that an older policy holds."""
    missing: tuple[Spot, ...] = ()
    """Objects that are not there or not ours, and sections that they do not have."""
    overridden: tuple[Spot, ...] = ()
    """More specific targets inside its own, which other policies hold."""
    gateways: tuple[Ref, ...] = ()
    """Through which its targets are reached."""


def standings(
    targets: Targets[P], known: Mapping[Ref, Known], adding: Container[Ref] = ()
) -> dict[Ref, Standing]:
    """How every policy stands, by its reference; those `adding` to others override none."""
    wanted = {policy.ref: list(_wanted(policy, known)) for policy in targets.policies}
    held: dict[Ref, list[Spot]] = {}
    conflicts: dict[Ref, list[Spot]] = {}
    missing: dict[Ref, list[Spot]] = {}
    for policy in targets.policies:
        for spot in wanted[policy.ref]:
            found = known.get(spot.ref)
            if found is None or (spot.section is not None and spot.section not in found.sections):
                missing.setdefault(policy.ref, []).append(spot)
                continue
            holder = targets.holder(found.subject, spot.section)
            is_own = holder is not None and holder.ref == policy.ref
            (held if is_own else conflicts).setdefault(policy.ref, []).append(spot)
    inner = _inner(held, known)
    return {
        policy.ref: Standing(
            held=tuple(held.get(policy.ref, ())),
            conflicts=tuple(conflicts.get(policy.ref, ())),
            missing=tuple(missing.get(policy.ref, ())),
            overridden=tuple(
                sorted(
                    {
                        spot
                        for own in held.get(policy.ref, ())
                        for spot, owner in inner.get(own, ())
                        if owner != policy.ref and owner not in adding
                    },
                    key=str,
                )
            ),
            gateways=tuple(
                dict.fromkeys(
                    gateway
                    for spot in wanted[policy.ref]
                    if (found := known.get(spot.ref)) is not None
                    for gateway in found.gateways
                )
            ),
        )
        for policy in targets.policies
    }


def _wanted(policy: TargetingPolicy, known: Mapping[Ref, Known]) -> Iterator[Spot]:
    yield from named(policy)
    already = set(named(policy))
    for selector in policy.spec.target_selectors:
        labels = selector.labels
        for ref, found in known.items():
            if (ref.group, ref.kind, ref.namespace) != (
                GROUP,
                selector.kind,
                policy.metadata.namespace,
            ):
                continue
            spot = Spot(ref)
            if spot not in already and labels.matches(found.subject.labels):
                already.add(spot)
                yield spot


def _inner(
    held: Mapping[Ref, Iterable[Spot]], known: Mapping[Ref, Known]
) -> dict[Spot, list[tuple[Spot, Ref]]]:
    """By each target: the more specific ones inside it that some policy holds, and whose."""
    result: dict[Spot, list[tuple[Spot, Ref]]] = {}
    for owner, spots in held.items():
        for spot in spots:
            if spot.section is not None:
                result.setdefault(Spot(spot.ref), []).append((spot, owner))
            if spot.ref.kind != GATEWAY:
                for gateway in known[spot.ref].gateways:
                    result.setdefault(Spot(gateway), []).append((spot, owner))
    return result
