"""Two real vLLM servers behind a gateway, from a manifest; made for the tests of this folder."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.instances import Answer, Instance, eventually, running

PYTHON_VARIABLE = "POINTSMAN_VLLM"
"""Names the Python that has vLLM."""
START_S = 300.0
"""Two servers start at once, on what may be two busy cores: usually a minute."""
LOW_PRIORITY = 15
LISTENER = 8080
PORT = 8000
MODEL = "tiny"
CHAT = "chat"
"""What clients ask for; the gateway splits it between the adapters."""
ADAPTERS = ("lora-a", "lora-b")
REQUESTS = 32
"""In a burst."""

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "true",
}


@dataclass(frozen=True)
class Cluster:
    """A gateway and the two servers that it started."""

    gateway: Instance
    folder: Path
    """Of the manifests."""

    def pods(self) -> list[dict[str, Any]]:
        found = json.loads(self.gateway.cli("get", "pods", "-l", "app=vllm", "-o", "json"))
        return list(found["items"])

    def ready(self) -> list[str]:
        """Addresses of the pods that are ready."""
        return [pod["status"]["podIP"] for pod in self.pods() if is_ready(pod)]

    def addresses(self) -> list[str]:
        return [pod["status"]["podIP"] for pod in self.pods()]

    def urls(self) -> list[str]:
        return [f"http://{address}:{PORT}" for address in self.addresses()]

    def server_pid(self, address: str) -> int:
        """The process that serves HTTP at a pod's address."""
        found = self.gateway.pids(rf"api_server .*--host {re.escape(address)} ")
        # Its engine is a process of its own, with a name of its own.
        assert len(found) == 1, found
        return next(iter(found))


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"]["conditions"]
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def ask(address: str, path: str) -> bytes:
    """What a server answers, without the gateway."""
    connection = http.client.HTTPConnection(address, PORT, timeout=15)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, (answer.status, content)
        return content
    finally:
        connection.close()


def models(address: str) -> set[str]:
    return {card["id"] for card in json.loads(ask(address, "/v1/models"))["data"]}


def metric(address: str, name: str) -> float:
    """The sum of a metric's series, as the server itself tells it."""
    lines = ask(address, "/metrics").decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(rf"{name}[{{ ]", line))


def answered(address: str) -> float:
    """Requests that a server has answered."""
    return metric(address, "vllm:request_success_total")


def complete_many(gateway: Instance, port: int, model: str) -> list[Answer]:
    """Requests of which eight are under way at a time, no two with the same prompt."""
    with ThreadPoolExecutor(8) as threads:
        return list(
            threads.map(
                lambda index: gateway.complete(port, model, prompt=f"{index} is a number"),
                range(REQUESTS),
            )
        )


def endpoints(gateway: Instance, pool: str) -> list[dict[str, Any]]:
    """The rows that `pointsman status` shows of a pool's servers."""
    found = json.loads(gateway.cli("status", "-o", "json"))["endpoints"]
    return [row for row in found if row["pool"] == f"default/{pool}"]


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """The gateway and its servers, ready for requests; nothing of them is left afterwards."""
    python = os.environ[PYTHON_VARIABLE]
    make = Path(__file__).with_name("made_up.py")
    subprocess.run([python, str(make), str(folder / "models")], check=True, timeout=60)
    manifests = folder / "manifests"
    manifests.mkdir()
    write_manifest(manifests, python, folder / "models")
    arguments = ("--workloads", "process", "--drain-timeout", "5")
    with running(manifests, ports=(LISTENER,), arguments=arguments, is_awaited=False) as gateway:
        made = Cluster(gateway, manifests)
        # Before the servers are up it says "not ready", and what it waits for.
        eventually(lambda: gateway.said("ready") or _broken(gateway), 60)
        eventually(lambda: _all_serve(made) or _broken(gateway), START_S)
        for address in made.addresses():
            # Servers at work take all of a small machine, and the gateway shares it here.
            os.setpriority(os.PRIO_PGRP, made.server_pid(address), LOW_PRIORITY)
        yield made


def _all_serve(made: Cluster) -> bool:
    ready = made.ready()
    return len(ready) == 2 and all(models(address) == {MODEL, *ADAPTERS} for address in ready)


def _broken(gateway: Instance) -> bool:
    assert gateway.process.poll() is None, "\n".join(gateway.lines)
    return False


def write_manifest(folder: Path, python: str, made_up: Path) -> None:
    """One file: a gateway, a pool, a split model, two vLLM pods with a LoRA syncer each."""
    documents = [*_gateway(), *_pool(), _rollout(made_up), _deployment(python, made_up)]
    (folder / "vllm.yaml").write_text(yaml.safe_dump_all(documents, sort_keys=False))


def _gateway() -> list[dict[str, Any]]:
    pool = {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": "vllm"}
    listener = {"name": "http", "protocol": "HTTP", "port": LISTENER}
    controller = {"controllerName": "pointsman.dev/gateway-controller"}
    route = {"parentRefs": [{"name": "llm"}], "rules": [{"backendRefs": [pool]}]}
    api = "gateway.networking.k8s.io/v1"
    return [
        _object(api, "GatewayClass", "pointsman", spec=controller),
        _object(
            api, "Gateway", "llm", spec={"gatewayClassName": "pointsman", "listeners": [listener]}
        ),
        _object(api, "HTTPRoute", "llm", spec=route),
    ]


def _pool() -> list[dict[str, Any]]:
    pool = {
        "selector": {"matchLabels": {"app": "vllm"}},
        "targetPorts": [{"number": PORT}],
        "endpointPickerRef": {"name": "picker", "port": {"number": 9002}},
    }
    reference = {"group": "inference.networking.k8s.io", "name": "vllm"}
    base = {"modelName": MODEL, "criticality": "Standard", "poolRef": reference}
    split = {
        "modelName": CHAT,
        "criticality": "Critical",
        "poolRef": reference,
        "targetModels": [{"name": name, "weight": 50} for name in ADAPTERS],
    }
    return [
        _object("inference.networking.k8s.io/v1", "InferencePool", "vllm", spec=pool),
        _object("inference.networking.x-k8s.io/v1alpha2", "InferenceModel", CHAT, spec=split),
        _object("inference.networking.x-k8s.io/v1alpha2", "InferenceModel", MODEL, spec=base),
    ]


def _rollout(made_up: Path) -> dict[str, Any]:
    """Each pod's syncer loads lora-b; lora-a is given to vLLM itself."""
    adapter = {"id": "lora-b", "source": str(made_up / "lora-b"), "base-model": MODEL}
    wish = {"host": "localhost", "port": PORT, "ensureExist": {"models": [adapter]}}
    text = yaml.safe_dump({"vLLMLoRAConfig": wish})
    return _object("v1", "ConfigMap", "adapters", data={"configmap.yaml": text})


def _deployment(python: str, made_up: Path) -> dict[str, Any]:
    variables = [{"name": name, "value": value} for name, value in ENVIRONMENT.items()]
    health = {"path": "/health", "port": "http"}
    server = {
        "name": "vllm",
        "image": "vllm/vllm-openai-cpu:v0.32.0",
        "command": [python, "-m", "vllm.entrypoints.openai.api_server"],
        "args": _flags(made_up),
        "env": variables,
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"httpGet": health, "periodSeconds": 1, "timeoutSeconds": 5},
    }
    syncer = {
        "name": "lora-syncer",
        "image": "lora-syncer:latest",
        "restartPolicy": "Always",
        "env": [{"name": "DYNAMIC_LORA_ROLLOUT_CONFIG", "value": "/config/configmap.yaml"}],
        "volumeMounts": [{"name": "config", "mountPath": "/config"}],
    }
    pod = {
        "terminationGracePeriodSeconds": 5,
        "containers": [server],
        "initContainers": [syncer],
        "volumes": [{"name": "config", "configMap": {"name": "adapters"}}],
    }
    labels = {"app": "vllm"}
    spec = {
        "replicas": 2,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    return _object("apps/v1", "Deployment", "vllm", spec=spec)


def _flags(made_up: Path) -> list[str]:
    """Dummy weights, no compilation, and a KV cache of 512 blocks of 32 tokens."""
    return [
        f"--model={made_up / 'tiny'}",
        f"--served-model-name={MODEL}",
        f"--port={PORT}",
        "--load-format=dummy",
        "--dtype=bfloat16",
        "--enforce-eager",
        "--max-model-len=2048",
        "--max-num-seqs=8",
        "--block-size=32",
        "--num-gpu-blocks-override=512",
        "--enable-lora",
        "--max-loras=4",
        "--max-lora-rank=8",
        "--lora-modules",
        f"lora-a={made_up / 'lora-a'}",
    ]


def _object(api_version: str, kind: str, name: str, **content: Any) -> dict[str, Any]:
    metadata = {"name": name}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}
