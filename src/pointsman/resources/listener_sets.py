"""ListenerSet: more listeners for a Gateway, kept by somebody else than the Gateway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from pointsman.resources.base import Kind, Model, Resource
from pointsman.resources.fields import Broken, Group, KindName, NamespaceName, ObjectName
from pointsman.resources.gateways import GROUP, Listener, listeners_rules


class ParentGatewayRef(Model):
    """The Gateway that a set of listeners wants to attach to."""

    group: Group = GROUP
    kind: KindName = "Gateway"
    name: ObjectName
    namespace: NamespaceName | None = None


class ListenerSetSpec(Model):
    """A Gateway, and what it should listen on beside its own listeners."""

    parent_ref: ParentGatewayRef
    listeners: tuple[Listener, ...] = Field(min_length=1, max_length=64)

    def _broken(self) -> Iterator[Broken]:
        yield from listeners_rules(self.listeners)


class ListenerSet(Resource):
    """Listeners of a Gateway that are written somewhere else."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1", "ListenerSet", "listenersets", ("lset",))

    spec: ListenerSetSpec
