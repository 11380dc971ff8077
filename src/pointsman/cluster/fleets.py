"""What the cluster says of the Envoys of each Gateway: how many are ready, and where clients go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pointsman.cluster.applier import problem_of
from pointsman.cluster.envoys import Made
from pointsman.gateway import names
from pointsman.gateway.statuses.facts import EnvoyFacts, Fleet
from pointsman.gateway.translate import Translation
from pointsman.resources.apps import Deployment
from pointsman.resources.base import Ref
from pointsman.resources.core import Service
from pointsman.store import Store


def fleets(store: Store, made: Mapping[Ref, Made], problems: Mapping[Ref, str]) -> dict[Ref, Fleet]:
    """The fleet of each Gateway for which something is made.

    `problems` are those of objects that could not be made.
    """
    return {gateway: _fleet(store, item, problems) for gateway, item in made.items()}


def completed(
    facts: EnvoyFacts, translation: Translation, found: Mapping[Ref, Fleet]
) -> EnvoyFacts:
    """What Envoys say here, with what the cluster says of them.

    With several controllers an Envoy is connected to one of them. Of a Gateway whose Envoys are
    ready, and of which none is connected here, another controller knows more: its listeners count
    as taken.
    """
    elsewhere = {
        gateway
        for gateway, fleet in found.items()
        if fleet.ready and not facts.connected_of.get(names.fleet(gateway))
    }
    taken = (
        name
        for item in translation.listeners
        if item.gateway.ref in elsewhere
        for name in item.sockets.values()
    )
    return EnvoyFacts(
        connected=facts.connected,
        wanted=facts.wanted,
        connected_of=facts.connected_of,
        fleets=found,
        listeners=facts.listeners.union(taken),
        refused=facts.refused,
    )


def _fleet(store: Store, made: Made, problems: Mapping[Ref, str]) -> Fleet:
    namespace = made.gateway.namespace
    text = made.problem or problem_of(made.gateway, made.name, problems)
    problem = ("Invalid", text) if text is not None else None
    deployment = store.get(Deployment, namespace, made.name)
    service = store.get(Service, namespace, made.name)
    status = (deployment.status if deployment is not None else None) or {}
    return Fleet(
        ready=int(status.get("availableReplicas") or 0),
        wanted=deployment.spec.replicas if deployment is not None else 1,
        addresses=tuple(_addresses(service)) if service is not None else (),
        problem=problem,
    )


def _addresses(service: Service) -> Iterator[str]:
    """Where clients find a Service: its load balancer, or inside of the cluster itself."""
    spec = service.spec
    if spec.type == "LoadBalancer":
        balancer = _mapping((service.status or {}).get("loadBalancer"))
        for item in balancer.get("ingress") or ():
            found = item.get("ip") or item.get("hostname")
            if found:
                yield str(found)
    elif spec.cluster_ip not in (None, "", "None"):
        yield str(spec.cluster_ip)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
