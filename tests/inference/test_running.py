"""Rewrites and objectives of files, in a running instance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pointsman.cli.run import example_path
from tests.e2e.instances import eventually, running

OBJECTS = """
apiVersion: llm-d.ai/v1alpha2
kind: InferenceModelRewrite
metadata: {name: aliases}
spec:
  poolRef: {name: llama}
  rules:
  - matches: [{model: {value: alias}}]
    targets: [{modelRewrite: llama}]
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceObjective
metadata: {name: urgent}
spec: {priority: 9, poolRef: {name: llama}}
"""


@pytest.mark.e2e
def test_a_rewrite_of_a_file_is_served_and_a_clients_objective_is_not_believed(
    tmp_path: Path,
) -> None:
    (tmp_path / "more.yaml").write_text(OBJECTS)
    with running(example_path(), tmp_path, ports=(8080,)) as instance:
        assert "aliases" in instance.cli("get", "infrewrite")
        assert "urgent" in instance.cli("get", "infobj")
        body = {"model": "alias", "prompt": "Say something.", "max_tokens": 2}
        headers = {"x-gateway-inference-objective": "urgent"}
        answer = instance.request(8080, "POST", "/v1/completions", body, headers)
        assert (answer.status, answer.json["model"]) == (200, "llama")
        (decision,) = json.loads(instance.cli("explain", "--model", "alias", "-o", "json"))
        assert (decision["target"], decision["priority"]) == ("llama", 0)

        (tmp_path / "more.yaml").unlink()
        eventually(lambda: instance.complete(8080, "alias").status == 404)
