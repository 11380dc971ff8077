"""Pickers as pods: they read the servers' metrics, and are replaced without a failed request."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest

from tests.e2e.instances import eventually
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.pickers import Conversation, account, pool

pytestmark = [pytest.mark.usefixtures("crds"), pytest.mark.slow]

SERVERS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: llama}
spec:
  replicas: 2
  selector: {matchLabels: {app: llama}}
  template:
    metadata: {labels: {app: llama}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: server
          image: pointsman
          args: [modelserver, --host, 0.0.0.0, --port, "8000", --model, m]
          readinessProbe: {httpGet: {path: /health, port: 8000}}
"""
PICKERS = """---
apiVersion: v1
kind: Service
metadata: {name: picker}
spec:
  type: LoadBalancer
  selector: {app: picker}
  ports: [{name: grpc, port: 9002}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: picker}
spec:
  replicas: 2
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  selector: {matchLabels: {app: picker}}
  template:
    metadata: {labels: {app: picker}}
    spec:
      serviceAccountName: picker
      terminationGracePeriodSeconds: 40
      containers:
        - name: picker
          image: pointsman
          args:
            - picker
            - --pool-name=llama
            - --secure-serving=false
            - --metrics-endpoint-auth=false
            - --zap-encoder=json
          env:
            - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
          readinessProbe: {grpc: {port: 9003, service: readiness}, periodSeconds: 1}
          livenessProbe: {grpc: {port: 9003, service: liveness}}
          securityContext: {readOnlyRootFilesystem: true, runAsNonRoot: true}
"""


class Load:
    """A gateway that asks all the time, over one connection that it opens anew when told to."""

    def __init__(self, address: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self.picked: Counter[str] = Counter()
        self._ends = threading.Event()
        self._address = address
        self._threads = [threading.Thread(target=self._run) for _ in range(3)]

    def _run(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self._address, options=options) as channel:
            while not self._ends.is_set():
                self.outcomes[self._ask(channel)] += 1

    def _ask(self, channel: grpc.Channel) -> str:
        conversation = Conversation(channel)
        try:
            self.picked[str(conversation.ask("m"))] += 1
            conversation.answer(b"one", begins=True)
            time.sleep(0.01)  # an answer takes a moment
            assert conversation.answer(b"two", ends=True) == b"two"
        except (grpc.RpcError, StopIteration) as error:
            call = conversation.call
            return f"{type(error).__name__} {call.code()} {call.details()}"
        return conversation.end()

    @contextmanager
    def running(self) -> Iterator[Load]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._ends.set()
            for thread in self._threads:
                thread.join()


@pytest.fixture
def installed(cluster: Cluster, namespace: str) -> str:
    """A namespace with two model servers, their pool and two pickers."""
    account(cluster, namespace)
    cluster.apply(SERVERS + pool() + PICKERS, namespace)
    for name in ("llama", "picker"):
        cluster.await_rollout(name, namespace)
    return namespace


def test_pickers_are_replaced_under_load_without_a_failed_request(
    cluster: Cluster, installed: str
) -> None:
    servers = {
        f"{pod['status']['podIP']}:8000" for pod in cluster.find("pod", installed, "app=llama")
    }
    before = {pod["metadata"]["name"] for pod in cluster.find("pod", installed, "app=picker")}
    with Load(f"{cluster.balancer('picker', installed)}:9002").running() as load:
        eventually(lambda: load.outcomes["OK"] > 100, 30)
        cluster.kubectl("rollout", "restart", "deployment/picker", "-n", installed)
        cluster.await_rollout("picker", installed)

        def left() -> set[str]:
            found = cluster.find("pod", installed, "app=picker")
            return before & {pod["metadata"]["name"] for pod in found}

        eventually(lambda: not left(), 60)
        done = load.outcomes["OK"]
        eventually(lambda: load.outcomes["OK"] > done + 100, 30)
    assert set(load.outcomes) == {"OK"}, load.outcomes
    assert set(load.picked) == servers


def test_the_metrics_of_the_servers_are_read_at_their_own_addresses(
    cluster: Cluster, installed: str
) -> None:
    picker = cluster.find("pod", installed, "app=picker")[0]["status"]["podIP"]

    def read() -> bool:
        text = cluster.inside("curl", "-sS", f"http://{picker}:9090/metrics")
        return (
            'inference_pool_ready_pods{name="llama"} 2' in text
            and 'inference_pool_average_queue_size{name="llama"} 0' in text
        )

    eventually(read, 30)
