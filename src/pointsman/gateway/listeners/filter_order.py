"""The order of HTTP filters, as an EnvoyProxy's `filterOrder` changes it.

Rule (Envoy Gateway): the positions apply one after the other; a filter is named by its kind, and
all filters of the kind move together, before the first or behind the last of the other kind.
"""

from __future__ import annotations

from collections.abc import Sequence

from pointsman.gateway.listeners.envoy_listeners import HttpFilter
from pointsman.resources.envoy_proxy import FilterPosition


def in_order(
    filters: Sequence[HttpFilter], positions: Sequence[FilterPosition]
) -> list[HttpFilter]:
    """The filters with those moved that `positions` name."""
    result = list(filters)
    for position in positions:
        other = position.before or position.after or ""
        moving = [item for item in result if _is(item, position.name)]
        staying = [item for item in result if not _is(item, position.name)]
        places = [index for index, item in enumerate(staying) if _is(item, other)]
        if moving and places:
            at = places[0] if position.before is not None else places[-1] + 1
            result = [*staying[:at], *moving, *staying[at:]]
    return result


def _is(item: HttpFilter, kind: str) -> bool:
    """The kind is the name, or its first part where a filter has one of its own."""
    name, _ = item
    return name == kind or name.startswith(f"{kind}/")
