"""Which Gateways, listeners, routes and rules a policy of Envoy Gateway is for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from pointsman.resources.base import Model
from pointsman.resources.fields import Broken, Group, KindName, ObjectName, SectionName
from pointsman.resources.gateways import GROUP
from pointsman.resources.selectors import LabelRequirement, LabelSelector

GATEWAYS_AND_ROUTES = ("Gateway", "HTTPRoute", "GRPCRoute", "UDPRoute", "TCPRoute", "TLSRoute")


class PolicyTargetRef(Model):
    """A Gateway or route of the policy's namespace, or a section of one."""

    group: Group
    kind: KindName
    name: ObjectName
    section_name: SectionName | None = None
    """A Gateway's listener, or a route's rule by its name."""


class TargetSelector(Model):
    """All objects of a kind in the policy's namespace that have these labels."""

    group: Group = GROUP
    kind: KindName
    match_labels: dict[str, str] = Field(default_factory=dict)
    match_expressions: tuple[LabelRequirement, ...] = ()

    @property
    def labels(self) -> LabelSelector:
        """What the labels of a target must be."""
        return LabelSelector.model_construct(
            match_labels=self.match_labels, match_expressions=self.match_expressions
        )

    def _broken(self) -> Iterator[Broken]:
        if self.group != GROUP:
            yield ("group",), f"must be {GROUP}"


class PolicyTargets(Model):
    """The part of a policy's spec that says what it is for."""

    TARGET_KINDS: ClassVar[tuple[str, ...]] = GATEWAYS_AND_ROUTES

    target_ref: PolicyTargetRef | None = None
    """Deprecated in favour of `target_refs`, and still what many files have."""
    target_refs: tuple[PolicyTargetRef, ...] | None = None
    target_selectors: tuple[TargetSelector, ...] = ()

    @property
    def targets(self) -> tuple[PolicyTargetRef, ...]:
        """The named targets, whichever field they are written in."""
        single = (self.target_ref,) if self.target_ref is not None else ()
        return single + (self.target_refs or ())

    def _broken(self) -> Iterator[Broken]:
        given = (self.target_ref is not None) + (self.target_refs is not None)
        if given != 1 and not self.target_selectors:
            yield (), "must have either targetRef or targetRefs (or targetSelectors)"
        if self.target_ref is not None:
            yield from self._target_rules(self.target_ref, ("targetRef",))
        for position, ref in enumerate(self.target_refs or ()):
            yield from self._target_rules(ref, ("targetRefs", position))

    def _target_rules(self, ref: PolicyTargetRef, where: tuple[str | int, ...]) -> Iterator[Broken]:
        if ref.group != GROUP:
            yield (*where, "group"), f"must be {GROUP}, is {ref.group!r}"
        if ref.kind not in self.TARGET_KINDS:
            kinds = ", ".join(self.TARGET_KINDS)
            yield (*where, "kind"), f"must be one of {kinds}, is {ref.kind!r}"
