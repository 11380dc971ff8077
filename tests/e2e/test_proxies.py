"""EnvoyProxies: how the Envoy of an instance is run, and what is done with what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.instances import Instance, eventually, running

pytestmark = pytest.mark.e2e

SITE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gateway}
spec:
  gatewayClassName: pointsman
  infrastructure:
    parametersRef: {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: proxy}
  listeners: [{name: http, port: 9080, protocol: HTTP}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {name: proxy}
spec:
"""

SERVED = """\
  concurrency: 1
  logging: {level: {default: error, upstream: info}}
  shutdown: {drainTimeout: 3s}
  bootstrap:
    type: Merge
    value: |
      stats_config: {stats_tags: [{tag_name: mine, fixed_value: here}]}
  telemetry:
    accessLog:
      settings:
      - format: {type: JSON, json: {code: "%RESPONSE_CODE%", path: "%REQ(:PATH)%"}}
        sinks: [{type: File, file: {path: LOG}}]
"""

REFUSED = """\
  bootstrap:
    type: Merge
    value: |
      stats_config: {no_such_field: true}
"""


def command_of_envoy(instance: Instance) -> str:
    (command,) = (line for line in instance.pids("envoy").values() if "--base-id-path" in line)
    return command


def test_envoy_runs_as_its_proxy_says(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    site = tmp_path / "site.yaml"
    site.write_text(SITE + SERVED.replace("LOG", str(log)))
    with running(site, ports=(9080,)) as instance:
        command = command_of_envoy(instance)
        assert "--concurrency 1 " in command
        assert "--log-level error " in command
        assert "--component-log-level upstream:info " in command
        assert '"tag_name": "mine"' in (instance.folder / "envoy.json").read_text()
        assert instance.request(9080, "GET", "/missing").status == 404
        eventually(lambda: log.exists() and '"path":"/missing"' in log.read_text())


def test_a_bootstrap_that_envoy_would_not_start_with_is_left_out(tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(SITE + REFUSED)
    with running(site, ports=(9080,)) as instance:
        assert instance.request(9080, "GET", "/").status == 404
        assert instance.said("no_such_field")
        assert "spec.bootstrap" in instance.cli("status")
