from __future__ import annotations

import pytest

from pointsman.resources import kinds
from pointsman.resources.envoy_gateway import EnvoyPatchPolicy
from pointsman.resources.gateway_api import Gateway, GatewayClass, HTTPRoute
from pointsman.resources.inference_extension import InferencePool, InferencePoolV1Alpha2


@pytest.mark.parametrize(
    "word",
    ["gtw", "Gateway", "gateways", "gateway", "gateways.gateway.networking.k8s.io",
     "Gateway.gateway.networking.k8s.io", "gateways.v1.gateway.networking.k8s.io",
     "gateways.v1beta1.gateway.networking.k8s.io"],
)  # fmt: skip
def test_a_kind_goes_by_many_names(word: str) -> None:
    assert kinds.by_name(word) == (Gateway,)


@pytest.mark.parametrize(
    ("word", "cls"),
    [("gc", GatewayClass), ("httproute", HTTPRoute), ("epp", EnvoyPatchPolicy),
     ("infpool", InferencePool), ("xinfpool", InferencePoolV1Alpha2),
     ("inferencepools.inference.networking.x-k8s.io", InferencePoolV1Alpha2)],
)  # fmt: skip
def test_short_names_are_those_of_kubectl(word: str, cls: type) -> None:
    assert kinds.by_name(word) == (cls,)


@pytest.mark.parametrize("word", ["po", "svc", "cm", "deploy", "ns", "sa", "crd", "pvc", "hpa"])
def test_every_common_short_name_is_known(word: str) -> None:
    assert len(kinds.by_name(word)) == 1


def test_a_bare_word_for_both_generations_means_both_the_newer_first() -> None:
    assert kinds.by_name("inferencepools") == (InferencePool, InferencePoolV1Alpha2)


def test_an_unknown_word_means_nothing_and_has_neighbours() -> None:
    assert kinds.by_name("gateway.example.com") == ()
    assert kinds.names_like("HTTPRout") == ["HTTPRoute"]
    assert kinds.names_like("zzzzz") == []


def test_no_two_kinds_share_a_full_name() -> None:
    full = [(cls.KIND.group, cls.KIND.kind) for cls in kinds.ALL]
    assert len(set(full)) == len(full)
    assert all(kinds.lookup(group, kind) is not None for group, kind in full)
