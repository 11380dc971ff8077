"""What is asked of rendered manifests, whichever chart they come from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from pointsman.resources.parse import parse_text

Rights = dict[tuple[str, str], set[str]]
"""(group, resource) to the verbs that are given on it."""


class Objects:
    """The objects of a text."""

    def __init__(self, items: list[dict[str, Any]]) -> None:
        self.items = items

    @classmethod
    def of(cls, text: str) -> Objects:
        """Read a text, in which no object may be wrong."""
        problems = [
            str(problem)
            for item in parse_text(text, "rendered.yaml", strict=True)
            for problem in item.problems
        ]
        assert problems == []
        return cls([item for item in yaml.safe_load_all(text) if item is not None])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.items)

    @property
    def names(self) -> list[str]:
        """`Kind/name` of each, sorted."""
        return sorted(f"{item['kind']}/{item['metadata']['name']}" for item in self.items)

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Those of a kind."""
        return [item for item in self.items if item["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> dict[str, Any]:
        """The only one of a kind, or of that name."""
        found = [item for item in self.all(kind) if name in (None, item["metadata"]["name"])]
        assert len(found) == 1, f"{len(found)} of {kind} {name}"
        return found[0]

    @property
    def container(self) -> dict[str, Any]:
        """The only container of the only Deployment."""
        (found,) = self.one("Deployment")["spec"]["template"]["spec"]["containers"]
        assert isinstance(found, dict)
        return found

    @property
    def arguments(self) -> list[str]:
        """Those of that container."""
        found = self.container["args"]
        assert isinstance(found, list)
        return found


def rights(*roles: dict[str, Any]) -> Rights:
    """What some roles give, all together; rights on single names are told with the name."""
    found: Rights = {}
    for role in roles:
        for rule in role["rules"]:
            assert set(rule) <= {"apiGroups", "resources", "resourceNames", "verbs"}
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for name in rule.get("resourceNames", [""]):
                        key = (group, f"{resource}/{name}" if name else resource)
                        found.setdefault(key, set()).update(rule["verbs"])
    return found


def assert_restricted(deployment: dict[str, Any]) -> None:
    """Pods that the Pod Security Standard `restricted` lets run, with a root that is only read."""
    spec = deployment["spec"]["template"]["spec"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        assert name not in spec
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert "/tmp" in mounts
        assert all("hostPort" not in port for port in container["ports"])
    for volume in spec["volumes"]:
        assert "hostPath" not in volume


def leaves(values: dict[str, Any], where: str = "") -> Iterator[str]:
    """The dotted names of all values; a mapping that is empty is a value of its own."""
    for key, value in values.items():
        name = f"{where}.{key}" if where else key
        if isinstance(value, dict) and value:
            yield from leaves(value, name)
        else:
            yield name


def branches(values: dict[str, Any], where: str = "") -> Iterator[str]:
    """The dotted names of all mappings with names of their own, "" for the whole."""
    yield where
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from branches(value, f"{where}.{key}" if where else key)


def nested(where: str, value: Any) -> dict[str, Any]:
    """`a.b` and a value to `{a: {b: value}}`."""
    for key in reversed(where.split(".") if where else []):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two mappings as helm merges values: the second goes before the first."""
    out = dict(one)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else value
    return out
