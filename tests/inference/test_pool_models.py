"""InferenceModels, rewrites and objectives, on one footing."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from pointsman.inference.models import PoolModels, pool_models
from pointsman.resources.base import Resource
from pointsman.resources.parse import parse_object
from pointsman.store import Store

NEWER, OLDER = "llm-d.ai/v1alpha2", "inference.networking.x-k8s.io/v1alpha2"


def made(kind: str, name: str, spec: Any, api: str = NEWER, at: str = "", **meta: Any) -> Resource:
    metadata = {"name": name, "namespace": "default", "creationTimestamp": at, **meta}
    parsed = parse_object({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": {**spec}})
    assert parsed.resource is not None, parsed.problems
    return parsed.resource


def rule(*targets: str | tuple[str, int], names: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "matches": [{"model": {"value": name}} for name in names],
        "targets": [
            {"modelRewrite": each}
            if isinstance(each, str)
            else {"modelRewrite": each[0], "weight": each[1]}
            for each in targets
        ],
    }


def rewrite(name: str, *rules: dict[str, Any], pool: str = "pool", **more: Any) -> Resource:
    spec = {"poolRef": {"name": pool}, "rules": list(rules)}
    return made("InferenceModelRewrite", name, spec, **more)


def objective(name: str, priority: int | None, pool: str = "pool", **more: Any) -> Resource:
    spec: dict[str, Any] = {"poolRef": {"name": pool}}
    if priority is not None:
        spec["priority"] = priority
    return made("InferenceObjective", name, spec, **more)


def model(name: str, criticality: str = "Standard", target: str = "") -> Resource:
    spec: dict[str, Any] = {
        "modelName": name,
        "criticality": criticality,
        "poolRef": {"name": "pool"},
        "targetModels": [{"name": target}] if target else [],
    }
    return made("InferenceModel", name, spec, OLDER)


def known(*objects: Resource) -> PoolModels:
    store = Store()
    store.apply(objects)
    return pool_models(store, "default", "pool")


def becomes(models: PoolModels, name: str) -> str | None:
    """What a name with a single target becomes."""
    found = models.meaning(name)
    return found.draw(random.Random(1)) if found is not None else None


@pytest.mark.parametrize("api", [NEWER, OLDER])
def test_a_name_is_rewritten_and_others_pass(api: str) -> None:
    models = known(rewrite("r", rule("b", names=("a", "A")), api=api))
    assert [becomes(models, name) for name in ("a", "A", "other")] == ["b", "b", "other"]


def test_exact_comes_before_generic_however_old() -> None:
    models = known(
        rewrite("old", rule("all"), at="2025-01-01T00:00:00Z"),
        rewrite("new", rule("b", names=("a",)), at="2025-02-01T00:00:00Z"),
    )
    assert (becomes(models, "a"), becomes(models, "x")) == ("b", "all")


def test_among_equals_the_oldest_object_then_the_first_rule() -> None:
    models = known(
        rewrite("a-new", rule("new", names=("m",)), rule("new"), at="2025-02-01T00:00:00Z"),
        rewrite(
            "old",
            rule("first", names=("m",)),
            rule("second", names=("m",)),
            rule("old"),
            at="2025-01-01T00:00:00Z",
        ),
        rewrite(
            "going",
            rule("going", names=("m",)),
            at="2024-01-01T00:00:00Z",
            deletionTimestamp="2025-01-01T00:00:00Z",
        ),
    )
    assert (becomes(models, "m"), becomes(models, "x")) == ("first", "old")


def test_of_one_age_and_name_the_newer_group_counts() -> None:
    models = known(
        rewrite("r", rule("older", names=("m",)), api=OLDER),
        rewrite("r", rule("newer", names=("m",))),
        objective("o", 1, api=OLDER),
        objective("o", 2),
    )
    assert becomes(models, "m") == "newer"
    assert models.objectives == {"o": 2}


@pytest.mark.parametrize(
    ("targets", "share"),
    [(("b", "c"), 0.5), ((("b", 90), ("c", 10)), 0.1), (("c", ("b", 1)), 0.0)],
)
def test_targets_are_drawn_by_weight(targets: tuple[Any, ...], share: float) -> None:
    found = known(rewrite("r", rule(*targets, names=("m",)))).meaning("m")
    assert found is not None
    rng = random.Random(5)
    drawn = Counter(found.draw(rng) for _ in range(10_000))
    assert drawn["c"] == pytest.approx(10_000 * share, abs=200)


def test_a_rule_without_targets_or_with_an_empty_name_leaves_the_name() -> None:
    bare = {"matches": [{"model": {"value": "m"}}]}
    models = known(rewrite("a", bare, rule("x", names=("m",))), rewrite("b", rule("")))
    assert (becomes(models, "m"), becomes(models, "n")) == ("m", "n")


def test_a_rewrite_says_the_target_and_an_inference_model_the_priority() -> None:
    models = known(
        model("m", "Critical", target="by-model"),
        rewrite("r", rule("by-rewrite", names=("m",))),
    )
    found = models.meaning("m")
    assert found is not None
    assert (becomes(models, "m"), found.priority, found.gives_way) == ("by-rewrite", 1, False)


def test_a_generic_rewrite_gives_way_to_an_inference_model() -> None:
    models = known(model("m", target="by-model"), rewrite("r", rule("rest")))
    assert (becomes(models, "m"), becomes(models, "x")) == ("by-model", "rest")


def test_an_inference_model_closes_the_pool_to_names_of_which_nothing_is_said() -> None:
    models = known(model("m"), rewrite("r", rule("b", names=("a",))))
    assert [becomes(models, name) for name in ("m", "a", "x")] == ["m", "b", None]
    assert models.is_closed


def test_objectives_of_the_pool_are_priorities_by_name() -> None:
    models = known(
        objective("high", 10),
        objective("unset", None),
        objective("low", -1, api=OLDER),
        objective("elsewhere", 5, pool="other"),
        objective("going", 5, deletionTimestamp="2025-01-01T00:00:00Z"),
    )
    assert models.objectives == {"high": 10, "unset": 0, "low": -1}
    assert not models


def test_rewrites_of_other_pools_and_kinds_mean_nothing_here() -> None:
    foreign = made(
        "InferenceModelRewrite",
        "x",
        {"poolRef": {"name": "pool", "kind": "Service"}, "rules": [rule("b", names=("a",))]},
    )
    assert not known(rewrite("r", rule("b", names=("a",)), pool="other"), foreign)
