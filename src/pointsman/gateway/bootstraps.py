"""What users change of Envoy's first configuration: merged in, patched in, or instead of ours.

What makes an Envoy ours stays whatever they say: who it is, its admin, and where its configuration
comes from. A merge or patch that touches these is refused; from a bootstrap that replaces ours the
like is taken out, and ours put in.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pointsman.gateway.patches.json_patch import PatchError, apply_operation, select
from pointsman.resources.documents import read
from pointsman.resources.envoy_proxy import ProxyBootstrap

FOREIGN_CLUSTERS = frozenset({"xds_cluster", "wasm_cluster"})
"""Envoy Gateway's own, in bootstraps that were made from its default."""


class BootstrapError(ValueError):
    """The bootstrap of an EnvoyProxy cannot be used; the message says why."""


def problem(spec: ProxyBootstrap) -> str | None:
    """What can be seen to be wrong without an Envoy."""
    if spec.value is None:
        return None
    try:
        _content(spec)
    except BootstrapError as error:
        return str(error)
    return None


def customized(own: Mapping[str, Any], spec: ProxyBootstrap) -> dict[str, Any]:
    """Our bootstrap as a user wants it.

    Raises:
        BootstrapError: the change cannot be read, does not apply, or touches what must stay.
    """
    result: dict[str, Any]
    if spec.type == "Merge":
        result = _merged(copy.deepcopy(dict(own)), _content(spec))
    elif spec.type == "JSONPatch":
        result = _patched(own, spec)
    else:
        return _with_ours(_content(spec), own)
    for where in ("node.id", "node.cluster", "admin.address", "dynamic_resources"):
        if _at(result, where) != _at(own, where):
            raise BootstrapError(f"bootstrap: {where} must stay as it is")
    if _named(result) != {**_named(result), **_named(own)}:
        raise BootstrapError("bootstrap: the cluster of the control plane must stay as it is")
    return result


def _content(spec: ProxyBootstrap) -> dict[str, Any]:
    documents, problems = read(spec.value or "", "bootstrap")
    if problems:
        raise BootstrapError(f"bootstrap.value: {problems[0]}")
    data: Any = documents[0].data if documents else {}
    if not isinstance(data, dict):
        raise BootstrapError("bootstrap.value must be a mapping")
    return {str(key): item for key, item in data.items()}


def _merged(under: Any, over: Any) -> Any:
    """As protobuf merges: mappings join, lists grow, the rest is replaced."""
    if isinstance(under, dict) and isinstance(over, Mapping):
        for key, value in over.items():
            under[key] = _merged(under[key], value) if key in under else copy.deepcopy(value)
        return under
    if isinstance(under, list) and isinstance(over, list):
        return [*under, *copy.deepcopy(over)]
    return copy.deepcopy(over)


def _patched(own: Mapping[str, Any], spec: ProxyBootstrap) -> dict[str, Any]:
    result: Any = copy.deepcopy(dict(own))
    for index, patch in enumerate(spec.json_patches):
        try:
            paths = [patch.path or ""]
            if patch.json_path is not None:
                paths = [found + (patch.path or "") for found in select(result, patch.json_path)]
            for path in paths:
                result = apply_operation(result, patch.op, path, patch.value, patch.from_)
        except PatchError as error:
            raise BootstrapError(f"bootstrap.jsonPatches[{index}]: {error}") from error
    if not isinstance(result, dict):
        raise BootstrapError("bootstrap.jsonPatches: the result must be a mapping")
    return result


def _with_ours(wanted: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(dict(wanted))
    for key in ("node", "admin", "dynamic_resources"):
        result[key] = own[key]
    resources = _mapping(result.get("static_resources"))
    clusters = [
        item
        for item in resources.get("clusters", [])
        if not (isinstance(item, Mapping) and item.get("name") in FOREIGN_CLUSTERS)
    ]
    ours = own["static_resources"]
    result["static_resources"] = {**resources, "clusters": [*clusters, *ours["clusters"]]}
    if "listeners" in ours:
        taken = [*resources.get("listeners", []), *ours["listeners"]]
        result["static_resources"]["listeners"] = taken
    layers = _mapping(result.get("layered_runtime")).get("layers", [])
    static = [item for item in layers if isinstance(item, Mapping) and "rtds_layer" not in item]
    result["layered_runtime"] = {"layers": [*own["layered_runtime"]["layers"], *static]}
    result.setdefault("overload_manager", own["overload_manager"])
    return result


def _named(bootstrap: Mapping[str, Any]) -> dict[str, Any]:
    """Static clusters by name; of two with one name the first."""
    found = _mapping(bootstrap.get("static_resources")).get("clusters", [])
    items = [item for item in found if isinstance(item, Mapping)]
    return {str(item.get("name")): item for item in reversed(items)}


def _at(value: Any, where: str) -> Any:
    for part in where.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
