"""Which InferenceModel wins, what its criticality means, and to which target a request goes.

Source: the inference extension's InferenceModel v1alpha2. The oldest object owns a model name in
its pool. The picker and the conditions ask the same functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pointsman.resources.base import Ref
from pointsman.resources.inference_extension import InferenceModel

CRITICALITY_PRIORITIES = {"Critical": 1, "Standard": 0, "Sheddable": -1}
"""Criticality to priority; unset counts as Standard. 0 and below give way under saturation."""


class Draw(Protocol):
    """What a draw needs: `random.Random` has it."""

    def random(self) -> float:
        """A number from [0, 1)."""


@dataclass(frozen=True, slots=True)
class Target:
    """A model that a request may be turned into, with its share."""

    name: str
    weight: int


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What a pool does with a model name."""

    name: str
    priority: int
    targets: tuple[Target, ...]
    """Never empty; only the name itself where the object names no target."""
    source: Ref
    """The object that says so."""

    def draw(self, rng: Draw) -> str:
        """One target, by weight."""
        if len(self.targets) == 1:
            return self.targets[0].name
        left = rng.random() * sum(target.weight for target in self.targets)
        for target in self.targets:
            left -= target.weight
            if left < 0:
                return target.name
        return self.targets[-1].name


def winners(models: Iterable[InferenceModel]) -> dict[tuple[str, str, str], InferenceModel]:
    """(namespace, pool, model name) to the object that owns it: the oldest that is not going."""
    won: dict[tuple[str, str, str], InferenceModel] = {}
    for model in sorted(models, key=lambda each: each.age_key):
        if model.metadata.deletion_timestamp is None:
            key = (model.metadata.namespace, model.spec.pool_ref.name, model.spec.model_name)
            won.setdefault(key, model)
    return won


def served_models(
    models: Iterable[InferenceModel], namespace: str, pool: str
) -> Mapping[str, ServedModel]:
    """What one pool serves, by model name. Empty means: every model passes."""
    return {
        name: _served(model)
        for (where, which, name), model in winners(models).items()
        if where == namespace and which == pool
    }


def _served(model: InferenceModel) -> ServedModel:
    spec = model.spec
    targets = tuple(
        # Weights are set on all targets or on none; none means equal shares.
        Target(target.name, target.weight if target.weight is not None else 1)
        for target in spec.target_models or ()
    )
    criticality = spec.criticality or "Standard"
    return ServedModel(
        name=spec.model_name,
        priority=CRITICALITY_PRIORITIES.get(criticality, 0),
        targets=targets or (Target(spec.model_name, 1),),
        source=model.ref,
    )
