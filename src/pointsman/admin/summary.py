"""The conditions of an object in one flat list, wherever its status keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pointsman.resources.base import Resource


def conditions_in(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Conditions with `of`: the listener, parent or ancestor that they are about, "" for none."""
    return list(_conditions(status))


def summary(item: Resource) -> dict[str, Any]:
    """An object as `/status` shows it."""
    return {
        "object": str(item.ref),
        "group": item.ref.group,
        "kind": item.ref.kind,
        "namespace": item.ref.namespace,
        "name": item.ref.name,
        "generation": item.metadata.generation,
        "conditions": conditions_in(item.status or {}),
    }


def _conditions(status: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield from _listed(status, "")
    for listener in _entries(status, "listeners"):
        yield from _listed(listener, f"listener {listener.get('name', '')}")
    # v1alpha2 pools say `parent`, policies say `ancestors`.
    for key, ref_key in (
        ("parents", "parentRef"),
        ("parent", "parentRef"),
        ("ancestors", "ancestorRef"),
    ):
        for entry in _entries(status, key):
            yield from _listed(entry, _ref_text(entry.get(ref_key)))


def _entries(status: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    value = status.get(key)
    if isinstance(value, list):
        yield from (entry for entry in value if isinstance(entry, dict))


def _listed(holder: Mapping[str, Any], of: str) -> Iterator[dict[str, Any]]:
    for condition in _entries(holder, "conditions"):
        yield {"of": of, **condition}


def _ref_text(ref: Any) -> str:
    if not isinstance(ref, dict):
        return ""
    name = ref.get("name", "")
    where = f"{ref['namespace']}/{name}" if ref.get("namespace") else str(name)
    section = f"/{ref['sectionName']}" if ref.get("sectionName") else ""
    return f"{ref.get('kind', 'Gateway')} {where}{section}"
