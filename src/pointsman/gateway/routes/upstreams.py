"""The clusters of a rule: how its servers, and those that get copies, are spoken to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pointsman.gateway import names
from pointsman.gateway.backends import clusters
from pointsman.gateway.backends.references import Destination
from pointsman.gateway.routes.rules import (
    Mirror,
    Rule,
    RuleBackend,
    is_plain,
    shares_cluster,
    weighted,
)
from pointsman.gateway.snapshot import EnvoyResource
from pointsman.resources.base import Ref


def rule_clusters(rule: Rule, asked: clusters.ClusterSettings) -> list[EnvoyResource]:
    """The clusters of a rule, but for those of pools, which rules share.

    `asked` is what policies ask for the rule's own servers; what gets copies stays as it is, but
    for the certificate that it is shown.
    """
    if rule.blocked is not None:
        return []
    mirrored = [
        resource for item in rule.mirrors for resource in _mirror_cluster(rule, item, asked)
    ]
    own = [item for item in weighted(rule) if is_plain(item.found)]
    if not own:
        return mirrored
    origins = (rule.route.ref, *(item.ref for item in rule.destinations))
    if shares_cluster(rule):
        return [*_cluster(rule.name, rule, own, origins, asked), *mirrored]
    single = [
        resource
        for item in own
        for resource in _cluster(
            names.rule_backend(rule.name, item.label), rule, [item], origins, asked
        )
    ]
    return [*single, *mirrored]


def _cluster(
    name: str,
    rule: Rule,
    backends: Sequence[RuleBackend],
    origins: tuple[Ref, ...],
    asked: clusters.ClusterSettings,
) -> list[EnvoyResource]:
    found = [(item, item.found) for item in backends if isinstance(item.found, Destination)]
    members = [
        clusters.locality(rule.name, item.label, item.ref.weight, destination)
        for item, destination in found
    ]
    is_http2 = rule.is_grpc or any(each.is_http2 for _, each in found)
    tls = next((each.tls for _, each in found), None)
    host = clusters.host_of(found[0][1])
    settings = replace(asked, is_http2=is_http2, tls=tls, check_host=host)
    make = (
        clusters.dns_cluster if any(each.needs_dns for _, each in found) else clusters.eds_cluster
    )
    return make(name, members, settings, origins)


def _mirror_cluster(
    rule: Rule, mirror: Mirror, asked: clusters.ClusterSettings
) -> list[EnvoyResource]:
    found = mirror.found
    if not isinstance(found, Destination) or found.pool is not None:
        return []
    name = names.mirror(rule.name, mirror.label)
    is_http2 = rule.is_grpc or found.is_http2
    settings = clusters.ClusterSettings(
        is_http2=is_http2, tls=found.tls, client_certificate=asked.client_certificate
    )
    make = clusters.dns_cluster if found.needs_dns else clusters.eds_cluster
    members = [clusters.locality(name, "0", 1, found)]
    return make(name, members, settings, (rule.route.ref, found.ref))
