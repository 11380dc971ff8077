"""What names an older object, wherever it stands: the same object with today's names in it.

- A reference with `group` and `kind` (backendRefs, mirrors, the `to` of a ReferenceGrant, the
  targets of policies): the group of the pool.
- `--pool-group` of a picker: the same.
- Rules of roles: rights on the older kinds are also given on those that take their place.
- Patches of Envoy's resources: the names of those that came of an older pool.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pointsman.inference.migration.scene import Item, Note, Scene
from pointsman.resources.base import Ref
from pointsman.resources.fields import Where
from pointsman.resources.inference_extension import EXPERIMENTAL_GROUP, GROUP
from pointsman.resources.inference_models import LLM_D_GROUP

ENVOY_PATCHES = "EnvoyPatchPolicy"
ROLES = ("Role", "ClusterRole")
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Pod", "ReplicaSet")

_POOL_GROUP = re.compile(r"(--?pool-group)(=(.*))?")
_OLD_PICKER_FLAG = re.compile(r"--?poolName(=.*)?")

Naming = Callable[[Ref], str]
"""How Envoy's resources of a pool are called."""

_SUCCESSORS = {
    "inferencepools": (GROUP, ("inferencepools",)),
    "inferencepools/status": (GROUP, ("inferencepools/status",)),
    "inferencemodels": (LLM_D_GROUP, ("inferenceobjectives", "inferencemodelrewrites")),
    "inferenceobjectives": (LLM_D_GROUP, ("inferenceobjectives",)),
    "inferencemodelrewrites": (LLM_D_GROUP, ("inferencemodelrewrites",)),
}
"""Resource of the older group to those that take its place."""


class References:
    """Renews references; says once for each pool that the files lack."""

    def __init__(self, scene: Scene, naming: Naming) -> None:
        self._scene = scene
        self._told: set[tuple[str, str]] = set()
        self._names = [
            (re.compile(rf"(?<![-a-z0-9]){re.escape(naming(ref))}(?![-a-z0-9.])"), naming(new))
            for ref in scene.older_pools()
            if naming(new := ref._replace(group=GROUP)) != naming(ref)
        ]

    def renewed(self, item: Item) -> tuple[dict[str, Any] | None, list[Note]]:
        """The object with today's names; None where it has no others."""
        data = item.data
        notes: list[Note] = []
        if data.get("kind") in ROLES:
            return _rights(item)
        out = {
            key: value
            if key in ("apiVersion", "kind", "metadata", "status")
            else self._walk(item, value, (key,), notes)
            for key, value in data.items()
        }
        if data.get("kind") in WORKLOADS and self._scene.has_older:
            notes += _old_pickers(item, out)
        return (out if out != data else None), notes

    def _walk(self, item: Item, value: Any, where: Where, notes: list[Note]) -> Any:
        if isinstance(value, dict):
            out = {key: self._walk(item, each, (*where, key), notes) for key, each in value.items()}
            if out.get("group") == EXPERIMENTAL_GROUP and out.get("kind") == "InferencePool":
                out["group"] = GROUP
                notes += self._missing(item, out, where)
            return out
        if isinstance(value, list):
            out_list = [
                self._walk(item, each, (*where, index), notes) for index, each in enumerate(value)
            ]
            is_command = where[-1] in ("args", "command")
            return _with_pool_group_of_today(out_list) if is_command else out_list
        if isinstance(value, str) and item.data.get("kind") == ENVOY_PATCHES:
            for old, new in self._names:
                value = old.sub(new, value)
        return value

    def _missing(self, item: Item, reference: dict[str, Any], where: Where) -> Iterator[Note]:
        """A pool that is named and not in the files must be there in v1 too."""
        name = reference.get("name")
        namespace = reference.get("namespace") or item.namespace
        if not isinstance(name, str) or self._scene.has_pool(namespace, name):
            return
        if (namespace, name) not in self._told:
            self._told.add((namespace, name))
            text = f"InferencePool {namespace}/{name} is not in these files; the reference means v1"
            yield item.note(f"{text} from now on", *where)


def _with_pool_group_of_today(words: list[Any]) -> list[Any]:
    out = list(words)
    for index, word in enumerate(words):
        found = _POOL_GROUP.fullmatch(word) if isinstance(word, str) else None
        if found is None:
            continue
        if found[3] == EXPERIMENTAL_GROUP:
            out[index] = f"{found[1]}={GROUP}"
        elif found[2] is None and words[index + 1 : index + 2] == [EXPERIMENTAL_GROUP]:
            out[index + 1] = GROUP
    return out


def _old_pickers(item: Item, value: Any, where: Where = ()) -> Iterator[Note]:
    """Containers that run a picker which reads the older generation only."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _old_pickers(item, each, (*where, key))
    elif isinstance(value, list):
        if where[-1] == "args" and any(_is_old_flag(word) for word in value):
            text = (
                "starts its picker with flags of the generation that reads v1alpha2 pools "
                "(-poolName); one that reads v1 must take its place (Pointsman's has those flags)"
            )
            yield item.note(text, *where)
        for index, each in enumerate(value):
            yield from _old_pickers(item, each, (*where, index))


def _is_old_flag(word: Any) -> bool:
    return isinstance(word, str) and _OLD_PICKER_FLAG.fullmatch(word) is not None


def _rights(item: Item) -> tuple[dict[str, Any] | None, list[Note]]:
    rules = item.data.get("rules")
    if not isinstance(rules, list):
        return None, []
    added: list[dict[str, Any]] = []
    notes: list[Note] = []
    for index, rule in enumerate(rules):
        more = [new for new in _successors(rule) if not _covers([*rules, *added], new)]
        if more:
            added += more
            groups = " and ".join(dict.fromkeys(new["apiGroups"][0] for new in more))
            text = f"the same rights on what takes the place of the older kinds, in {groups}"
            notes.append(item.note(f"{text}, are added", "rules", index))
    return ({**item.data, "rules": [*rules, *added]} if added else None), notes


def _successors(rule: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(rule, dict) or EXPERIMENTAL_GROUP not in _words(rule.get("apiGroups")):
        return
    found: dict[str, list[str]] = {}
    for resource in _words(rule.get("resources")):
        if resource == "*":
            found.setdefault(GROUP, []).append("*")
            found.setdefault(LLM_D_GROUP, []).append("*")
        elif resource in _SUCCESSORS:
            group, successors = _SUCCESSORS[resource]
            found.setdefault(group, []).extend(successors)
    for group, names in found.items():
        yield {**rule, "apiGroups": [group], "resources": list(dict.fromkeys(names))}


def _covers(rules: Sequence[Any], wanted: dict[str, Any]) -> bool:
    """Whether each right of a rule is given by some of `rules`."""
    names = wanted.get("resourceNames")
    return all(
        any(
            isinstance(rule, dict)
            and _has(rule.get("apiGroups"), group)
            and _has(rule.get("resources"), resource)
            and _has(rule.get("verbs"), verb)
            and rule.get("resourceNames") in (None, names)
            for rule in rules
        )
        for group in wanted["apiGroups"]
        for resource in wanted["resources"]
        for verb in _words(wanted.get("verbs"))
    )


def _has(words: Any, word: str) -> bool:
    return bool({word, "*"} & set(_words(words)))


def _words(value: Any) -> list[str]:
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []
