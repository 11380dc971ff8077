"""Which InferenceModel wins, and what it means."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from pointsman.inference.errors import ApiError
from pointsman.inference.models import ServedModel, Target, served_models, winners
from pointsman.inference.tokens import tokens_in
from pointsman.resources.base import Ref
from pointsman.resources.inference_extension import InferenceModel
from pointsman.resources.parse import parse_object


def model(name: str, *, at: str = "", pool: str = "pool", **spec: Any) -> InferenceModel:
    parsed = parse_object(
        {
            "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
            "kind": "InferenceModel",
            "metadata": {"name": name, "namespace": "default", "creationTimestamp": at},
            "spec": {"modelName": "m", "poolRef": {"name": pool}, **spec},
        }
    )
    assert isinstance(parsed.resource, InferenceModel), parsed.problems
    return parsed.resource


def test_the_oldest_owns_a_name_and_those_that_go_own_nothing() -> None:
    old = model("old", at="2025-01-01T00:00:00Z")
    new = model("a-new", at="2025-01-02T00:00:00Z")
    going = model("going", at="2024-01-01T00:00:00Z").with_metadata(deletion_timestamp="2025")
    assert list(winners([new, old, going]).values()) == [old]
    assert len(winners([new, model("x", pool="other")])) == 2


@pytest.mark.parametrize(
    ("criticality", "priority"),
    [("Critical", 1), ("Standard", 0), (None, 0), ("Sheddable", -1)],
)
def test_criticality_is_a_priority(criticality: str | None, priority: int) -> None:
    spec = {} if criticality is None else {"criticality": criticality}
    served = served_models([model("x", **spec)], "default", "pool")
    assert served["m"].priority == priority
    assert served["m"].targets == (Target("m", 1),)


def draws(*weights: int | None) -> Counter[str]:
    targets: list[dict[str, Any]] = [
        {"name": f"t{i}"} | ({} if weight is None else {"weight": weight})
        for i, weight in enumerate(weights)
    ]
    served = served_models([model("x", targetModels=targets)], "default", "pool")["m"]
    rng = random.Random(5)
    return Counter(served.draw(rng) for _ in range(10_000))


def test_targets_are_drawn_by_weight() -> None:
    found = draws(90, 10)
    assert 880 <= found["t1"] <= 1120
    even = draws(None, None)
    assert 4800 <= even["t0"] <= 5200


def test_a_draw_never_leaves_the_targets() -> None:
    class Edge:
        def random(self) -> float:
            return 1.0 - 2**-53

    served = ServedModel("m", 0, (Target("a", 1), Target("b", 3)), Ref("", "", "", ""))
    assert served.draw(Edge()) == "b"


def test_tokens_are_a_quarter_of_the_bytes() -> None:
    assert [tokens_in(size) for size in (0, 1, 4, 5)] == [0, 1, 1, 2]


def test_errors_speak_the_language_of_the_api() -> None:
    assert b'"type": "rate_limit_error"' in ApiError(429, "no", "rate_limited").body()
