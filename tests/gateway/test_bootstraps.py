"""What users change of Envoy's bootstrap: merged, patched, replaced; and what stays ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pointsman.gateway.bootstraps import BootstrapError, customized, problem
from pointsman.resources.envoy_proxy import ProxyBootstrap
from pointsman.xds.bootstrap import XDS_CLUSTER, bootstrap

OWN = bootstrap("node", Path("/run/xds.sock"), Path("/run/admin.sock"))

REPLACEMENT = """
node: {id: other}
admin: {address: {socket_address: {address: 0.0.0.0, port_value: 19000}}}
dynamic_resources: {ads_config: {api_type: GRPC}}
stats_config: {use_all_default_tags: false}
static_resources:
  clusters: [{name: xds_cluster}, {name: collector}]
layered_runtime: {layers: [{name: rtds, rtds_layer: {name: x}}, {name: own, static_layer: {a: 1}}]}
"""


def changed(**fields: Any) -> dict[str, Any]:
    return customized(OWN, ProxyBootstrap.model_validate(fields))


def merged(value: str) -> dict[str, Any]:
    return changed(type="Merge", value=value)


def clusters(found: dict[str, Any]) -> list[str]:
    return [item["name"] for item in found["static_resources"]["clusters"]]


def test_a_merge_joins_mappings_and_adds_to_lists() -> None:
    found = merged(
        "stats_config: {use_all_default_tags: false}\n"
        "static_resources: {clusters: [{name: collector}]}\n"
        "layered_runtime: {layers: [{name: mine, static_layer: {a: 1}}]}\n"
    )
    assert found["stats_config"] == {"use_all_default_tags": False}
    assert clusters(found) == [XDS_CLUSTER, "collector"]
    assert [item["name"] for item in found["layered_runtime"]["layers"]] == ["pointsman", "mine"]
    assert clusters(OWN) == [XDS_CLUSTER]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("admin: {address: {pipe: {path: /elsewhere}}}", "admin.address"),
        ("dynamic_resources: {cds_config: {path: /x}}", "dynamic_resources"),
        ("node: {id: somebody}", "node.id"),
    ],
)
def test_a_merge_cannot_take_the_envoy_away_from_us(value: str, what: str) -> None:
    with pytest.raises(BootstrapError, match=f"{what} must stay as it is"):
        merged(value)


def test_a_patch_applies_and_a_path_that_ends_early_is_told_how_far_it_goes() -> None:
    patches = [{"op": "add", "path": "/stats_flush_interval", "value": "30s"}]
    assert changed(type="JSONPatch", jsonPatches=patches)["stats_flush_interval"] == "30s"
    wrong = [{"op": "replace", "path": "/static_resources/listeners/0", "value": {}}]
    with pytest.raises(BootstrapError, match=r"jsonPatches\[0\].*/static_resources.*clusters"):
        changed(type="JSONPatch", jsonPatches=wrong)
    taken = [{"op": "remove", "path": "/static_resources/clusters/0"}]
    with pytest.raises(BootstrapError, match="cluster of the control plane"):
        changed(type="JSONPatch", jsonPatches=taken)


def test_a_replacement_keeps_what_makes_the_envoy_ours() -> None:
    found = changed(type="Replace", value=REPLACEMENT)
    for key in ("node", "admin", "dynamic_resources", "overload_manager"):
        assert found[key] == OWN[key]
    assert found["stats_config"] == {"use_all_default_tags": False}
    assert clusters(found) == ["collector", XDS_CLUSTER]
    assert [item["name"] for item in found["layered_runtime"]["layers"]] == ["pointsman", "own"]


@pytest.mark.parametrize("value", ["a: [", "- a", "text"])
def test_what_is_no_mapping_is_seen_without_an_envoy(value: str) -> None:
    assert "bootstrap.value" in (problem(ProxyBootstrap(value=value)) or "")
    assert problem(ProxyBootstrap(value="a: {}")) is None
