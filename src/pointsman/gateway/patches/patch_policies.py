"""EnvoyPatchPolicy: users' JSON patches of generated resources.

Rules (Envoy Gateway v1.3, read in its code and golden data):

- Policies go by `priority`, lower first; equal ones by age. Patches go in the order of their list.
- A patch sees a resource as protobuf's JSON with snake_case names: what is unset or zero is not
  there, enums are names, durations are texts like "1000s", an Any shows its content beside "@type".
- `add` without path and jsonPath makes a whole new resource, named by its value.
- `jsonPath` selects places; `path` is then appended to each of them.
- `add` makes the parents that are missing (RFC 6902 alone would refuse).
- The result is read back strictly. A patch that fails leaves its resource as it was, the others of
  its policy still apply, and the policy says what failed.

One rule is ours: a patch whose result Envoy refuses is one that fails.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from pointsman.gateway import conditions
from pointsman.gateway.patches import typed_json
from pointsman.gateway.patches.json_patch import PatchError, apply_operation, select
from pointsman.gateway.refusals import PatchId, Refused
from pointsman.gateway.snapshot import EnvoyResource, Key, message_class
from pointsman.resources.base import Ref
from pointsman.resources.envoy_gateway import EnvoyPatch, EnvoyPatchPolicy, PatchOperation
from pointsman.resources.gateway_api import Gateway, GatewayClass

Resources = Mapping[str, dict[str, EnvoyResource]]
"""By type URL and name."""


NEEDS_VALUE = ("add", "replace", "test")
NEEDS_FROM = ("move", "copy")


@dataclass(frozen=True, slots=True)
class PatchOutcome:
    """What became of a policy: errors of single patches, and resources that are not there."""

    policy: EnvoyPatchPolicy
    errors: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def conditions(self) -> list[dict[str, Any]]:
        """Accepted and Programmed."""
        result = [conditions.accepted(self.policy, conditions.POLICY_ACCEPTED)]
        if self.missing:
            message = f"Unable to find xds resources: {','.join(self.missing)}"
            if self.errors:
                message += f"; {'; '.join(self.errors)}"
            result.append(conditions.not_programmed(self.policy, "ResourceNotFound", message))
        elif self.errors:
            message = "; ".join(self.errors)
            result.append(conditions.not_programmed(self.policy, "Invalid", message))
        else:
            result.append(conditions.programmed(self.policy, conditions.PATCHES_PROGRAMMED))
        return result


def target_problem(policy: EnvoyPatchPolicy, targets: Container[Ref] = ()) -> str | None:
    """Why the policy cannot target what it names; None where it can.

    Beside Gateways that are classes whose Gateways are merged into one Envoy (`mergeGateways`),
    where they are among the `targets`.
    """
    target = policy.spec.target_ref
    kind = Gateway.KIND
    if (target.group, target.kind) == (kind.group, kind.kind) or target_of(policy) in targets:
        return None
    return (
        f"TargetRef.Group:{target.group} TargetRef.Kind:{target.kind}, only "
        f"TargetRef.Group:{kind.group} and TargetRef.Kind:{kind.kind} is supported."
    )


def target_of(policy: EnvoyPatchPolicy) -> Ref:
    """The Gateway that a policy targets, or the class."""
    target = policy.spec.target_ref
    is_class = target.kind == GatewayClass.KIND.kind
    return Ref(
        target.group, target.kind, "" if is_class else policy.metadata.namespace, target.name
    )


def in_order(policies: Iterable[EnvoyPatchPolicy]) -> list[EnvoyPatchPolicy]:
    """The order in which policies apply."""
    return sorted(policies, key=lambda item: (item.spec.priority, item.age_key))


def place_of(patch: EnvoyPatch) -> Key:
    """The resource that a patch changes or makes."""
    operation = patch.operation
    if _makes_resource(operation) and isinstance(operation.value, Mapping):
        name = operation.value.get("name") or operation.value.get("cluster_name")
        return Key(patch.type, str(name or patch.name))
    return Key(patch.type, patch.name)


def apply_policy(
    policy: EnvoyPatchPolicy, resources: Resources, refused: Refused | None = None
) -> PatchOutcome:
    """Apply a policy's patches to `resources`, in place, one after the other.

    `refused` says what Envoy had to say of patches that are to be left out.
    """
    errors: list[str] = []
    missing: list[str] = []
    for index, patch in enumerate(policy.spec.json_patches):
        try:
            message = (refused or {}).get(PatchId(policy.ref, index))
            if message is not None:
                raise PatchError(f"Envoy refuses the result: {message}")
            if not _apply(policy, patch, resources):
                missing.append(f"{patch.type}/{patch.name}")
        except PatchError as error:
            errors.append(f"jsonPatches[{index}] on {patch.name}: {error}")
    return PatchOutcome(policy, tuple(errors), tuple(missing))


def _apply(policy: EnvoyPatchPolicy, patch: EnvoyPatch, resources: Resources) -> bool:
    operation = patch.operation
    _check(patch)
    if _makes_resource(operation):
        _add_resource(policy, patch, resources)
        return True
    key = Key(patch.type, patch.name)
    resource = resources[key.type_url].get(key.name)
    if resource is None:
        return False
    document = typed_json.to_dict(resource.message)
    pointers = [operation.path or ""]
    if operation.json_path is not None:
        pointers = [
            pointer + (operation.path or "") for pointer in select(document, operation.json_path)
        ]
    for pointer in pointers:
        document = apply_operation(
            document, operation.op, pointer, operation.value, operation.from_
        )
    message = _parse(message_class(key.type_url), document)
    origins = tuple(dict.fromkeys((policy.ref, *resource.origins)))
    resources[key.type_url][key.name] = EnvoyResource.of(key, message, origins)
    return True


def _makes_resource(operation: PatchOperation) -> bool:
    return operation.op == "add" and not operation.path and operation.json_path is None


def _check(patch: EnvoyPatch) -> None:
    operation = patch.operation
    if operation.op in NEEDS_VALUE and not operation.has_value:
        raise PatchError(f"operation {operation.op} needs a value")
    if operation.op not in NEEDS_VALUE and operation.has_value:
        raise PatchError(f"operation {operation.op} must not have a value")
    if operation.op in NEEDS_FROM and operation.from_ is None:
        raise PatchError(f"operation {operation.op} needs a from")
    if operation.op not in NEEDS_FROM and operation.from_ is not None:
        raise PatchError(f"operation {operation.op} must not have a from")


def _add_resource(policy: EnvoyPatchPolicy, patch: EnvoyPatch, resources: Resources) -> None:
    value = patch.operation.value
    if not isinstance(value, Mapping):
        raise PatchError("a new resource must be an object")
    message = _parse(message_class(patch.type), value)
    name = str(getattr(message, "name", "") or getattr(message, "cluster_name", ""))
    if not name:
        raise PatchError("a new resource needs a name in its value")
    key = Key(patch.type, name)
    resources[key.type_url][key.name] = EnvoyResource.of(key, message, (policy.ref,))


def _parse(cls: type[Message], document: Any) -> Message:
    try:
        return typed_json.from_dict(cls, document)
    except json_format.ParseError as error:
        raise PatchError(
            f"the result is not a valid {cls.DESCRIPTOR.name}: {_said(error)}"
        ) from error


def _said(error: json_format.ParseError) -> str:
    """Protobuf's message without its list of all fields; the nearest of them instead."""
    message, _, fields = str(error).partition("\n Available Fields")
    wrong = re.search(r'no field named "(\w+)"', message)
    known = re.findall(r"'(\w+)'", fields)
    near = difflib.get_close_matches(wrong[1], known, 1) if wrong is not None else []
    return message.rstrip(".") + (f" (did you mean {near[0]}?)" if near else "")
