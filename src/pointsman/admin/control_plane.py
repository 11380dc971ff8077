"""What the control plane can tell: its listeners and resources, and what Envoy said to them."""

from __future__ import annotations

from pointsman.admin.providers import ListenerRow, ProblemRow, XdsRow
from pointsman.gateway import snapshot
from pointsman.gateway.options import Options
from pointsman.gateway.snapshot import Key
from pointsman.resources.problems import Problem
from pointsman.xds.controller import Controller


def listener_rows(controller: Controller, options: Options) -> list[ListenerRow]:
    """Every listener of a Gateway of ours."""
    translation = controller.translation
    facts = controller.discovery.facts
    if translation is None:
        return []
    rows = []
    for item in translation.listeners:
        meta = item.gateway.metadata
        keys = (Key(snapshot.LISTENER, name) for name in item.sockets.values())
        refused = next((facts.refused[key] for key in keys if key in facts.refused), "")
        conflict = item.conflict[1] if item.conflict is not None else ""
        rows.append(
            ListenerRow(
                gateway=f"{meta.namespace}/{meta.name}",
                name=item.spec.name,
                address=", ".join(item.hosts),
                port=options.bound_port(item.spec.port),
                protocol=item.spec.protocol,
                is_bound=item.is_served and item.is_bound_in(facts.listeners),
                message=conflict or refused,
            )
        )
    return rows


def xds_rows(controller: Controller) -> list[XdsRow]:
    """Every resource that is served."""
    translation = controller.translation
    discovery = controller.discovery
    if translation is None:
        return []
    rows = []
    for resource in translation.snapshot:
        key = resource.key
        refused = discovery.facts.refused.get(key)
        acked = discovery.is_acknowledged(key)
        rows.append(
            XdsRow(
                type=key.type_url.rpartition(".")[2],
                name=key.name,
                version=discovery.version(key),
                state="NACKED" if refused else "ACKED" if acked else "PENDING",
                message=refused or "",
                objects=[str(ref) for ref in resource.origins],
            )
        )
    return rows


def problem_row(item: Problem) -> ProblemRow:
    """Something that is wrong with what users wrote."""
    return ProblemRow(
        severity=item.severity,
        file=item.file,
        line=item.line,
        field=item.field,
        message=item.message,
        subject=item.subject,
    )
