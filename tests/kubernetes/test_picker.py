"""The picker over a real API server: its pool, its pods, its rights, and outages."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.e2e.instances import eventually
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.pickers import (
    Conversation,
    account,
    health,
    older_pool,
    picker,
    pool,
    server,
    settled,
)

READY_S = 30.0

pytestmark = pytest.mark.usefixtures("crds")

MODELS = """---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceObjective
metadata: {name: interactive}
spec: {priority: 10, poolRef: {name: llama}}
---
apiVersion: llm-d.ai/v1alpha2
kind: InferenceModelRewrite
metadata: {name: chat}
spec:
  poolRef: {name: llama}
  rules: [{matches: [{model: {value: chat}}], targets: [{modelRewrite: chat-v2}]}]
"""


@pytest.fixture
def kubeconfig(control_plane: Cluster, namespace: str) -> Path:
    """Of an account with the rights of pickers in the test's namespace."""
    return account(control_plane, namespace)


def test_it_is_ready_once_its_pool_is_there_and_picks_among_the_pods_of_the_moment(
    control_plane: Cluster, namespace: str, kubeconfig: Path
) -> None:
    cluster = control_plane
    server(cluster, namespace, "one", "10.1.0.1")
    server(cluster, namespace, "other", "10.1.0.9", "app=other")
    with picker(cluster, kubeconfig, "--pool-name=llama", f"--pool-namespace={namespace}") as it:
        eventually(lambda: "there is no InferencePool" in it.log, READY_S)
        assert health(it.health, "liveness") == "SERVING"
        assert not it.is_ready()
        assert it.pick() == 503

        cluster.apply(pool(), namespace)
        eventually(it.is_ready, READY_S)
        assert it.pick() == "10.1.0.1:8000"

        server(cluster, namespace, "two", "10.1.0.2")
        eventually(lambda: it.pick() == "10.1.0.2:8000", READY_S)
        cluster.kubectl("delete", "pod", "one", "two", "-n", namespace, "--wait=false")
        eventually(settled(it.pick, 503), READY_S)
        # A pool without servers is no reason to send requests elsewhere.
        assert it.is_ready()

        cluster.kubectl(
            "delete", "inferencepool.inference.networking.k8s.io", "llama", "-n", namespace
        )
        eventually(lambda: not it.is_ready(), READY_S)


def test_pools_of_the_older_generation_are_served_and_give_way(
    control_plane: Cluster, namespace: str, kubeconfig: Path
) -> None:
    cluster = control_plane
    server(cluster, namespace, "one", "10.1.0.1")
    cluster.apply(older_pool(port=9000), namespace)
    flags = ("-poolName", "llama", "-poolNamespace", namespace)
    older = "--pool-group=inference.networking.x-k8s.io"
    with (
        picker(cluster, kubeconfig, *flags) as either,
        picker(cluster, kubeconfig, *flags, older) as told,
    ):
        eventually(lambda: either.is_ready() and told.is_ready(), READY_S)
        assert either.pick() == told.pick() == "10.1.0.1:9000"
        cluster.apply(pool(port=8000), namespace)
        eventually(settled(either.pick, "10.1.0.1:8000"), READY_S)
        assert told.pick() == "10.1.0.1:9000"


def test_pods_are_picked_by_labels_where_there_is_no_pool(
    control_plane: Cluster, namespace: str, kubeconfig: Path
) -> None:
    cluster = control_plane
    server(cluster, namespace, "one", "10.1.0.1", "app=llama,tier=gold")
    server(cluster, namespace, "two", "10.1.0.2", "app=llama,tier=test")
    selector = (
        "--endpoint-selector=app in (llama),tier!=test",
        "--endpoint-target-ports=8000,8001",
    )
    environment = {"NAMESPACE": namespace, "POD_NAME": "llama-epp-5f7d8c9b4-x2v8q"}
    with picker(
        cluster,
        kubeconfig,
        *selector,
        "--metrics-endpoint-auth=false",
        environment=environment,
    ) as it:
        eventually(it.is_ready, READY_S)
        seen = {it.pick() for _ in range(20)}
        assert seen == {"10.1.0.1:8000", "10.1.0.1:8001"}
        assert 'inference_pool_ready_pods{name="llama-epp"} 1' in metrics(it.metrics)[1]
        cluster.kubectl("label", "pod", "one", "tier=test", "--overwrite", "-n", namespace)
        eventually(settled(it.pick, 503), READY_S)


def test_models_and_priorities_of_both_groups_count(
    control_plane: Cluster, namespace: str, kubeconfig: Path
) -> None:
    cluster = control_plane
    server(cluster, namespace, "one", "10.1.0.1")
    cluster.apply(pool() + MODELS, namespace)
    with (
        picker(cluster, kubeconfig, "--pool-name=llama", f"--pool-namespace={namespace}") as it,
        grpc.insecure_channel(it.grpc) as channel,
    ):
        eventually(it.is_ready, READY_S)
        conversation = Conversation(channel)
        assert conversation.ask("chat") == "10.1.0.1:8000"
        assert json.loads(conversation.body)["model"] == "chat-v2"
        conversation.end()


@pytest.mark.slow
def test_while_the_api_server_is_away_it_picks_with_what_it_knows(namespace_of_own: Any) -> None:
    cluster, namespace, kubeconfig = namespace_of_own
    server(cluster, namespace, "one", "10.1.0.1")
    cluster.apply(pool(), namespace)
    with picker(cluster, kubeconfig, "--pool-name=llama", f"--pool-namespace={namespace}") as it:
        eventually(it.is_ready, READY_S)
        cluster.stop_apiserver()
        eventually(lambda: "what is known stays" in it.log, READY_S)
        assert it.is_ready()
        assert it.pick() == "10.1.0.1:8000"
        cluster.start_apiserver()
        server(cluster, namespace, "two", "10.1.0.2")
        eventually(lambda: it.pick() == "10.1.0.2:8000", READY_S)


@pytest.fixture
def namespace_of_own(request: pytest.FixtureRequest) -> Any:
    """A cluster that may be broken, a namespace in it, and the rights of a picker there."""
    request.getfixturevalue("control_plane")
    with Cluster() as cluster:
        cluster.install_crds()
        cluster.kubectl("create", "namespace", "own")
        yield cluster, "own", account(cluster, "own")


@pytest.mark.slow
def test_without_the_right_to_see_pods_it_is_not_ready(
    control_plane: Cluster, namespace: str, kubeconfig: Path
) -> None:
    cluster = control_plane
    cluster.apply(pool(), namespace)
    patch = '[{"op": "remove", "path": "/subjects"}]'
    binding = ("rolebinding", "picker", "-n", namespace)
    cluster.kubectl("patch", *binding, "--type=json", "-p", patch)
    with picker(cluster, kubeconfig, "--pool-name=llama", f"--pool-namespace={namespace}") as it:
        eventually(lambda: "Not ready: the API server does not let it see" in it.log, READY_S)
        assert health(it.health) == "NOT_SERVING"
        subject = [{"kind": "ServiceAccount", "name": "picker", "namespace": namespace}]
        given = [{"op": "add", "path": "/subjects", "value": subject}]
        cluster.kubectl("patch", *binding, "--type=json", "-p", json.dumps(given))
        eventually(it.is_ready, READY_S)


def test_the_api_server_says_who_may_read_the_metrics(
    control_plane: Cluster, namespace: str, kubeconfig: Path
) -> None:
    cluster = control_plane
    cluster.apply(pool(), namespace)
    for name in ("reader", "stranger"):
        cluster.kubectl("create", "serviceaccount", name, "-n", namespace)
    role = f"{namespace}-reader"
    cluster.kubectl("create", "clusterrole", role, "--verb=get", "--non-resource-url=/metrics")
    account = f"--serviceaccount={namespace}:reader"
    cluster.kubectl("create", "clusterrolebinding", role, f"--clusterrole={role}", account)
    tokens = [
        cluster.kubectl("create", "token", name, "-n", namespace).strip()
        for name in ("reader", "stranger")
    ]
    with picker(cluster, kubeconfig, "--pool-name=llama", f"--pool-namespace={namespace}") as it:
        eventually(it.is_ready, READY_S)
        # The picker's own rights do not suffice to ask yet.
        status, text = metrics(it.metrics, tokens[0])
        assert (status, "the picker's log has more" in text) == (503, True)
        assert "create tokenreviews and subjectaccessreviews is needed" in it.log
        delegator = f"{namespace}-delegator"
        cluster.kubectl(
            *("create", "clusterrolebinding", delegator),
            "--clusterrole=system:auth-delegator",
            f"--serviceaccount={namespace}:picker",
        )
        eventually(lambda: metrics(it.metrics, tokens[0])[0] == 200, READY_S)
        answers = [metrics(it.metrics, token)[0] for token in (tokens[1], "wrong", "")]
        assert answers == [403, 401, 401]
    cluster.kubectl("delete", "clusterrolebinding", role, delegator)
    cluster.kubectl("delete", "clusterrole", role)


def metrics(port: int, token: str = "") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    connection.request("GET", "/metrics", headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


@pytest.mark.slow
def test_of_two_replicas_one_is_ready_and_the_other_takes_over(
    control_plane: Cluster, namespace: str, kubeconfig: Path
) -> None:
    cluster = control_plane
    server(cluster, namespace, "one", "10.1.0.1")
    cluster.apply(pool(), namespace)
    verbs = ("--verb=get,create,update", "--resource=leases.coordination.k8s.io")
    cluster.kubectl("create", "role", "lease", "-n", namespace, *verbs)
    binding = ("--role=lease", f"--serviceaccount={namespace}:picker")
    cluster.kubectl("create", "rolebinding", "lease", "-n", namespace, *binding)
    flags = ("--pool-name=llama", "--ha-enable-leader-election", "--drain-timeout=10s")

    def replica(name: str) -> Any:
        environment = {"NAMESPACE": namespace, "POD_NAME": name}
        return picker(cluster, kubeconfig, *flags, environment=environment)

    with replica("a") as first:
        eventually(first.is_ready, READY_S)
        lease = cluster.get("lease", "llama-picker", namespace)
        assert lease["spec"]["holderIdentity"] == "a"
        with replica("b") as second:
            eventually(lambda: "another replica is the active one" in second.log, READY_S)
            assert not second.is_ready()
            # Who is asked all the same answers.
            assert second.pick() == "10.1.0.1:8000"
            with grpc.insecure_channel(first.grpc) as gateway:
                conversation = Conversation(gateway)
                conversation.ask("m")
                first.process.send_signal(signal.SIGTERM)
                # It says that it is well until somebody else is the one to be asked.
                eventually(second.is_ready, READY_S)
                assert first.process.poll() is None
                conversation.end()
            assert first.process.wait(30) == 0


def test_what_it_cannot_do_without_is_told_before_it_starts(
    control_plane: Cluster, kubeconfig: Path
) -> None:
    with picker(control_plane, kubeconfig) as it:
        assert it.process.wait(30) == 2
        assert "--pool-name NAME is needed, or --endpoint-selector" in it.log
    with picker(control_plane, Path("/nowhere"), "--pool-name=x") as it:
        assert it.process.wait(30) == 1
        assert "there is no kubeconfig /nowhere" in it.log


@pytest.mark.slow
def test_a_gateway_that_shows_answers_gets_them_to_their_end(
    control_plane: Cluster, namespace: str, kubeconfig: Path
) -> None:
    cluster = control_plane
    server(cluster, namespace, "one", "10.1.0.1")
    cluster.apply(pool(), namespace)
    flags = ("--pool-name=llama", f"--pool-namespace={namespace}")
    with (
        picker(cluster, kubeconfig, *flags) as it,
        grpc.insecure_channel(it.grpc) as gateway,
        grpc.insecure_channel(it.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as late,
    ):
        eventually(it.is_ready, READY_S)
        running = Conversation(gateway)
        assert running.ask("m") == "10.1.0.1:8000"
        assert running.answer(b"a", begins=True) == b"a"
        it.process.send_signal(signal.SIGTERM)
        eventually(lambda: health(it.health) == "NOT_SERVING", READY_S)
        # A gateway that has not heard of it yet is answered as before.
        other = Conversation(late)
        assert other.ask("m") == "10.1.0.1:8000"
        other.end()
        assert running.answer(b"b") == b"b"
        eventually(lambda: "Leaving" in it.log)
        assert it.process.poll() is None
        assert running.answer(b"c", ends=True) == b"c"
        assert running.end() == "OK"
        assert it.process.wait(20) == 0


def test_a_second_signal_ends_the_waiting(
    control_plane: Cluster, namespace: str, kubeconfig: Path
) -> None:
    cluster = control_plane
    cluster.apply(pool(), namespace)
    server(cluster, namespace, "one", "10.1.0.1")
    flags = ("--pool-name=llama", f"--pool-namespace={namespace}", "--drain-timeout=1h")
    with (
        picker(cluster, kubeconfig, *flags) as it,
        grpc.insecure_channel(it.grpc) as gateway,
    ):
        eventually(it.is_ready, READY_S)
        running = Conversation(gateway)
        running.ask("m")
        running.answer(b"a", begins=True)
        it.process.send_signal(signal.SIGTERM)
        eventually(lambda: "Leaving" in it.log, READY_S)
        with pytest.raises(subprocess.TimeoutExpired):
            it.process.wait(0.5)
        it.process.send_signal(signal.SIGTERM)
        assert it.process.wait(20) == 0
        assert running.end() == "OK"
