"""What a model name means in a pool, how important a request is, and to which target it goes.

Three kinds of objects speak of it, and all become one shape, the `ServedModel`:

- InferenceModel: the oldest object owns its name; criticality is a priority; targets by weight.
- InferenceModelRewrite: an Exact match before a rule that matches all; among equals the oldest
  object, then the first rule; targets by weight. It says nothing of priorities.
- InferenceObjective: a priority by its own name, for requests that name it and are believed.

Where an InferenceModel and an Exact match of a rewrite mean one name, the rewrite says what it
becomes, as the newer kind, and the InferenceModel how important it is. A rewrite that matches all
gives way to an InferenceModel, as it does to any Exact match.

A pool with an InferenceModel serves only names that some object means; every other pool serves all.

Source: the inference extension's v1alpha2 kinds. The picker and the conditions ask the same
functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol

from pointsman.inference.pools import Objects
from pointsman.resources.base import Ref
from pointsman.resources.inference_extension import (
    EXPERIMENTAL_GROUP,
    GROUP,
    InferenceModel,
)
from pointsman.resources.inference_models import (
    ExperimentalInferenceModelRewrite,
    ExperimentalInferenceObjective,
    InferenceModelRewrite,
    InferenceObjective,
    PoolOfToday,
    RewriteRule,
)

AnyRewrite = InferenceModelRewrite | ExperimentalInferenceModelRewrite
AnyObjective = InferenceObjective | ExperimentalInferenceObjective

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
    gives_way: bool = False
    """Whether it is turned away while the pool is saturated."""

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


@dataclass(frozen=True, slots=True)
class PoolModels:
    """What the model names of one pool mean. False where no object says anything of any."""

    exact: Mapping[str, ServedModel] = field(default_factory=lambda: MappingProxyType({}))
    """By the name that clients use."""
    generic: RewriteRule | None = None
    """What all other names become."""
    generic_source: Ref | None = None
    objectives: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Name of an objective to its priority."""
    is_closed: bool = False
    """Whether a name of which nothing is said is refused."""

    def __bool__(self) -> bool:
        return bool(self.exact) or self.generic is not None

    def meaning(self, name: str) -> ServedModel | None:
        """What becomes of a request for that model; None where it is not served."""
        found = self.exact.get(name)
        if found is not None:
            return found
        if self.generic is not None and self.generic_source is not None:
            return ServedModel(name, 0, _rewrites(self.generic, name), self.generic_source)
        return None if self.is_closed else ServedModel(name, 0, (Target(name, 1),), NOBODY)


NOBODY = Ref("", "", "", "")
"""The source of what goes without saying."""


def pool_models(store: Objects, namespace: str, pool: str) -> PoolModels:
    """Everything that the objects of a store say of the models of one pool."""
    served = served_models(store.list(InferenceModel, namespace), namespace, pool)
    exact: dict[str, ServedModel] = {}
    generic: tuple[RewriteRule, Ref] | None = None
    for rewrite in _rewrites_of(store, namespace, pool):
        for rule in rewrite.spec.rules:
            if not rule.matches:
                generic = generic or (rule, rewrite.ref)
            for name in (match.model.value for match in rule.matches):
                if name not in exact:
                    targets = _rewrites(rule, name)
                    found = served.get(name, ServedModel(name, 0, targets, rewrite.ref))
                    exact[name] = replace(found, targets=targets, source=rewrite.ref)
    return PoolModels(
        exact={**served, **exact},
        generic=generic[0] if generic is not None else None,
        generic_source=generic[1] if generic is not None else None,
        objectives=_objectives_of(store, namespace, pool),
        is_closed=bool(served),
    )


def _rewrites_of(store: Objects, namespace: str, pool: str) -> list[AnyRewrite]:
    """Those of one pool, the oldest first."""
    found: list[AnyRewrite] = [
        *store.list(InferenceModelRewrite, namespace),
        *store.list(ExperimentalInferenceModelRewrite, namespace),
    ]
    stay = [item for item in found if item.metadata.deletion_timestamp is None]
    ours = [item for item in stay if _is_of(item.spec.pool_ref, pool)]
    # Of one name in both groups and of one age, the newer group comes first: sorting is stable.
    return sorted(ours, key=lambda item: item.age_key)


def _objectives_of(store: Objects, namespace: str, pool: str) -> dict[str, int]:
    """Priorities by name; where both groups have one of that name, the newer group counts."""
    found: list[AnyObjective] = [
        *store.list(ExperimentalInferenceObjective, namespace),
        *store.list(InferenceObjective, namespace),
    ]
    return {
        item.metadata.name: item.spec.priority or 0
        for item in found
        if item.metadata.deletion_timestamp is None and _is_of(item.spec.pool_ref, pool)
    }


def _is_of(reference: PoolOfToday, pool: str) -> bool:
    return (
        reference.name == pool
        and reference.kind == "InferencePool"
        and reference.group in (GROUP, EXPERIMENTAL_GROUP)
    )


def _rewrites(rule: RewriteRule, name: str) -> tuple[Target, ...]:
    """The targets of a rule; where no weight is set, equal shares.

    A target without a weight beside one that has it gets nothing, as the reference draws.
    """
    has_weights = any(target.weight is not None for target in rule.targets)
    default = 0 if has_weights else 1
    targets = (
        Target(target.model_rewrite or name, target.weight or default) for target in rule.targets
    )
    return tuple(target for target in targets if target.weight) or (Target(name, 1),)


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
        gives_way=criticality != "Critical",
    )
