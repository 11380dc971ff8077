"""The route configuration of a port: its virtual hosts and their routes in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2 as components_pb2
from envoy.config.route.v3 import route_pb2

from pointsman.gateway import names, snapshot
from pointsman.gateway.listeners import hostnames
from pointsman.gateway.listeners.attachment import Attachment, BoundListener
from pointsman.gateway.messages import packed
from pointsman.gateway.options import Options
from pointsman.gateway.policies.extensions import Extension, Extensions
from pointsman.gateway.routes import rules
from pointsman.gateway.snapshot import EnvoyResource, Key
from pointsman.resources.base import Ref, Resource

SortKey = tuple[Any, ...]


@dataclass(slots=True)
class _VirtualHost:
    """The routes of one hostname, with what orders them."""

    listener: BoundListener
    hostname: str
    entries: dict[str, tuple[SortKey, components_pb2.Route]] = field(default_factory=dict)
    """By the name of the route: two parentRefs may lead a route here."""


def route_configuration(
    port_name: str,
    bound: Sequence[BoundListener],
    attachments: Sequence[Attachment],
    rules_of: Mapping[Ref, Sequence[rules.Rule]],
    extensions: Extensions,
    picker_of: rules.PickerOf,
    options: Options,
) -> EnvoyResource:
    """The routes of a port that the listeners `bound` share."""
    door = _door(bound[0], options)
    hosts: dict[str, _VirtualHost] = {}
    if len(bound) > 1:
        # A listener without routes still keeps its hostname away from its wider neighbours.
        hosts = {item.hostname: _VirtualHost(item, item.hostname) for item in bound}
    for attachment in attachments:
        extension = extensions.of(attachment.route.ref, attachment.listener.gateway.ref)
        for hostname in attachment.hostnames:
            if not _owns(attachment.listener, hostname, bound):
                continue
            host = hosts.setdefault(hostname, _VirtualHost(attachment.listener, hostname))
            for rule in rules_of[attachment.route.ref]:
                host.entries.update(_routes(rule, hostname, extension, door, picker_of))
    ordered = sorted(hosts.values(), key=lambda host: hostnames.specificity(host.hostname))
    message = route_pb2.RouteConfiguration(
        name=port_name,
        ignore_port_in_host_matching=True,
        virtual_hosts=[_virtual_host(host) for host in ordered],
    )
    routes = dict.fromkeys(attachment.route.ref for attachment in attachments)
    gateways = dict.fromkeys(item.gateway.ref for item in bound)
    return EnvoyResource(
        Key(snapshot.ROUTE_CONFIGURATION, port_name), message, (*routes, *gateways)
    )


def _virtual_host(host: _VirtualHost) -> components_pb2.VirtualHost:
    gateway = host.listener.gateway
    return components_pb2.VirtualHost(
        name=names.virtual_host(host.listener.xds_name, host.hostname),
        domains=[host.hostname],
        metadata=_metadata(gateway, sectionName=host.listener.spec.name),
        routes=[route for _, route in sorted(host.entries.values(), key=lambda entry: entry[0])],
    )


def _owns(listener: BoundListener, hostname: str, bound: Sequence[BoundListener]) -> bool:
    """No narrower listener of the port takes the hostname: a request belongs to one listener."""
    rank = hostnames.specificity(listener.hostname)
    return not any(
        hostnames.specificity(other.hostname) < rank and hostnames.covers(other.hostname, hostname)
        for other in bound
    )


def _door(listener: BoundListener, options: Options) -> rules.Door:
    spec = listener.spec
    # On one machine clients come to the port that is really bound.
    port = options.bound_port(spec.port) if options.is_alone else spec.port
    return rules.Door(spec.protocol.lower(), port)


def _routes(
    rule: rules.Rule,
    hostname: str,
    extension: Extension | None,
    door: rules.Door,
    picker_of: rules.PickerOf,
) -> dict[str, tuple[SortKey, components_pb2.Route]]:
    result = {}
    for index, match in enumerate(rule.matches):
        if extension is not None and extension.problem is not None:
            route = components_pb2.Route(match=match.envoy, direct_response={"status": 500})
        else:
            route = rules.envoy_route(rule, match, door, picker_of)
            _enable(extension, route)
        route.name = names.route(rule.name, index, hostname)
        route.metadata.CopyFrom(_metadata(rule.route))
        key = (*match.precedence, rule.route.age_key, rule.index, index)
        result[route.name] = (key, route)
    return result


def _enable(extension: Extension | None, route: components_pb2.Route) -> None:
    """Switch the processors of a policy on for this route; on the listener they are off."""
    if extension is None or route.WhichOneof("action") == "redirect":
        return
    # A filter configuration that says nothing but: on.
    on = packed(components_pb2.FilterConfig(config={}))
    for processor in extension.processors:
        route.typed_per_filter_config[processor.filter_name].CopyFrom(on)


def _metadata(subject: Resource, **more: str) -> base_pb2.Metadata:
    """Which object a resource came from, in Envoy Gateway's form."""
    meta = subject.metadata
    named = {"kind": subject.KIND.kind, "name": meta.name, "namespace": meta.namespace, **more}
    result = base_pb2.Metadata()
    result.filter_metadata[names.METADATA_NAMESPACE].update({"resources": [named]})
    return result
