"""Which kinds an API server serves, and in which of the versions that are understood here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pointsman.resources import kinds
from pointsman.resources.base import Resource
from pointsman.sources.kubernetes.api import Api, ApiError


async def served_versions(
    api: Api, classes: Iterable[type[Resource]]
) -> Mapping[type[Resource], str]:
    """The version to ask for, of each kind that is served; the others are left out.

    Raises:
        ApiError: the API server does not say.
    """
    served: dict[str, set[str]] = {}
    wanted = tuple(classes)
    for group_version in sorted(_group_versions(wanted)):
        served[group_version] = await _plurals(api, group_version)
    result = {}
    for cls in wanted:
        kind = cls.KIND
        for version in kinds.versions(cls):
            name = f"{kind.group}/{version}" if kind.group else version
            if kind.plural in served[name]:
                result[cls] = version
                break
    return result


def _group_versions(classes: Iterable[type[Resource]]) -> set[str]:
    return {
        f"{cls.KIND.group}/{version}" if cls.KIND.group else version
        for cls in classes
        for version in kinds.versions(cls)
    }


async def _plurals(api: Api, group_version: str) -> set[str]:
    start = "/apis" if "/" in group_version else "/api"
    try:
        found = await api.get(f"{start}/{group_version}")
    except ApiError as error:
        if error.is_missing:
            return set()
        raise
    return {str(item.get("name")) for item in found.get("resources") or ()}
