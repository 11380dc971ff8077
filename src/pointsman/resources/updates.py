"""Rules about a change: fields that keep their first value."""

from __future__ import annotations

from typing import NamedTuple

from pointsman.resources.base import Resource
from pointsman.resources.gateway_api import GatewayClass
from pointsman.resources.inference_extension import InferenceModel


class ImmutableChange(NamedTuple):
    """A field that may not change and did."""

    field: str
    message: str


def immutable_changes(old: Resource, new: Resource) -> list[ImmutableChange]:
    """What makes `new` no allowed successor of `old`; [] when it is one."""
    if isinstance(old, InferenceModel) and isinstance(new, InferenceModel):
        return _unchanged("spec.modelName", old.spec.model_name, new.spec.model_name)
    if isinstance(old, GatewayClass) and isinstance(new, GatewayClass):
        before, after = old.spec.controller_name, new.spec.controller_name
        return _unchanged("spec.controllerName", before, after)
    return []


def _unchanged(field: str, old: str, new: str) -> list[ImmutableChange]:
    if old == new:
        return []
    message = f"is immutable: was {old!r}, is {new!r} (delete the object first to change it)"
    return [ImmutableChange(field, message)]
