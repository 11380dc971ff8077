"""Asks the real Envoy whether it would take a snapshot, without serving it.

Envoy's validate mode reads static resources only, and reads them more strictly than dynamic ones:
route configurations are therefore put into their listeners, endpoints into their clusters.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pointsman.gateway import names, snapshot
from pointsman.gateway.patches import typed_json
from pointsman.gateway.snapshot import Key, Snapshot
from pointsman.xds.binary import envoy_path
from pointsman.xds.bootstrap import REGEX_RUNTIME
from pointsman.xds.complaints import essence

TIMEOUT_S = 30.0


class DryRunError(RuntimeError):
    """Envoy refuses the resources; the message is Envoy's."""


def static_bootstrap(found: Snapshot) -> dict[str, Any]:
    """A bootstrap in which everything of `found` is static."""
    return {
        "layered_runtime": REGEX_RUNTIME,
        "static_resources": {
            "listeners": [
                _inline_routes(typed_json.to_dict(item.message), found)
                for item in found.of_type(snapshot.LISTENER)
            ],
            "clusters": [
                _inline_endpoints(typed_json.to_dict(item.message), found)
                for item in found.of_type(snapshot.CLUSTER)
            ],
            "secrets": [
                typed_json.to_dict(item.message) for item in found.of_type(snapshot.SECRET)
            ],
        },
    }


async def check(found: Snapshot) -> None:
    """Run the real Envoy's validate mode over `found`.

    Raises:
        DryRunError: Envoy refuses, or does not answer within `TIMEOUT_S`.
        EnvoyNotFoundError: there is no Envoy to ask.
    """
    await check_bootstrap(static_bootstrap(found))


async def check_bootstrap(bootstrap: Mapping[str, Any]) -> None:
    """Run the real Envoy's validate mode over a whole bootstrap.

    Raises:
        DryRunError: Envoy refuses, or does not answer within `TIMEOUT_S`.
        EnvoyNotFoundError: there is no Envoy to ask.
    """
    binary = envoy_path()
    with tempfile.TemporaryDirectory(prefix="pointsman-check-") as folder:
        config = Path(folder) / "envoy.json"
        config.write_text(json.dumps(bootstrap))
        process = await asyncio.create_subprocess_exec(
            binary,
            *("--mode", "validate", "--log-level", "error", "--use-dynamic-base-id"),
            *("-c", str(config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                output, _ = await process.communicate()
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise DryRunError(f"Envoy did not answer within {TIMEOUT_S:g} s") from error
    if process.returncode != 0:
        raise DryRunError(essence(output.decode(errors="replace")))


def _inline_routes(listener: dict[str, Any], found: Snapshot) -> dict[str, Any]:
    for chain in (listener.get("default_filter_chain"), *listener.get("filter_chains", ())):
        _name_secrets(chain or {})
        for item in (chain or {}).get("filters", ()):
            manager = item.get("typed_config", {})
            if item.get("name") != names.CONNECTION_MANAGER or "rds" not in manager:
                continue
            key = Key(snapshot.ROUTE_CONFIGURATION, manager["rds"]["route_config_name"])
            routes = found.get(key)
            content = typed_json.to_dict(routes.message) if routes is not None else {}
            del manager["rds"]
            # As over the wire: a route may name a cluster that is not there.
            manager["route_config"] = {**content, "validate_clusters": False}
    return listener


def _name_secrets(chain: dict[str, Any]) -> None:
    """Take certificates from the static secrets, which are found by name alone."""
    context = chain.get("transport_socket", {}).get("typed_config", {})
    common = context.get("common_tls_context", {})
    for secret in common.get("tls_certificate_sds_secret_configs", ()):
        secret.pop("sds_config", None)


def _inline_endpoints(cluster: dict[str, Any], found: Snapshot) -> dict[str, Any]:
    _name_secrets(cluster)
    eds: Mapping[str, Any] | None = cluster.get("eds_cluster_config")
    if cluster.get("type") != "EDS" or eds is None:
        return cluster
    members = found.get(Key(snapshot.ENDPOINTS, eds.get("service_name", "")))
    del cluster["eds_cluster_config"]
    cluster["type"] = "STATIC"
    if members is not None:
        assignment = typed_json.to_dict(members.message)
        cluster["load_assignment"] = {**assignment, "cluster_name": cluster["name"]}
    return cluster
