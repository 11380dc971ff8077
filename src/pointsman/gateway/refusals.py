"""What Envoy is known to refuse of what users wrote, so that the rest can be served without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pointsman.resources.base import Ref


class PatchId(NamedTuple):
    """One patch: its policy, and its position there."""

    policy: Ref
    position: int

    def __str__(self) -> str:
        """Its policy and its place there, as people find it."""
        return f"{self.policy}: spec.jsonPatches[{self.position}]"


Refused = Mapping[PatchId | Ref, str]
"""Patches whose result Envoy refuses, and routes, with its words."""
