"""The test bed itself: what the tests of Pointsman in a cluster rely on."""

from __future__ import annotations

import base64
import json
import secrets
import signal
import subprocess
import sys
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.e2e.instances import eventually, processes_with
from tests.kubernetes.cluster import CHECKOUT, PREFIX, Cluster, sweep
from tests.kubernetes.network import BRIDGE

pytestmark = pytest.mark.slow

MODEL_SERVER = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: server}
spec:
  replicas: 2
  selector: {matchLabels: {app: server}}
  template:
    metadata: {labels: {app: server}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: server
          image: pointsman
          args: [modelserver, --host, 0.0.0.0, --port, "8000", --model, one]
          ports: [{name: http, containerPort: 8000}]
          readinessProbe: {httpGet: {path: /health, port: http}}
          # It answers until everybody has heard that it leaves.
          lifecycle: {preStop: {sleep: {seconds: 1}}}
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  type: LoadBalancer
  selector: {app: server}
  ports: [{name: http, port: 80, targetPort: http}]
"""


def pod(name: str, container: str, more: str = "") -> str:
    """A pod of one container of our image, given as the fields of a flow mapping."""
    return (
        f"\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\n"
        f"spec:\n  terminationGracePeriodSeconds: 1\n{more}"
        f"  containers:\n    - {{name: main, image: pointsman, {container}}}\n"
    )


def phase(cluster: Cluster, namespace: str, name: str, wanted: str) -> None:
    def reached() -> bool:
        found: str = cluster.get("pod", name, namespace)["status"].get("phase", "")
        return found == wanted

    eventually(reached, 30)


def waits_for(cluster: Cluster, namespace: str, name: str) -> str:
    """What the first container of a pod waits for."""
    statuses = cluster.get("pod", name, namespace)["status"].get("containerStatuses") or [{}]
    found: str = statuses[0].get("state", {}).get("waiting", {}).get("reason", "")
    return found


def await_ready(cluster: Cluster, namespace: str, *names: str) -> None:
    pods = [f"pod/{name}" for name in names]
    cluster.kubectl("wait", "--for=condition=Ready", "--timeout=30s", "-n", namespace, *pods)


def models(address: str, port: int = 80) -> list[str]:
    connection = HTTPConnection(address, port, timeout=10)
    connection.request("GET", "/v1/models")
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return [item["id"] for item in answer["data"]]


@pytest.fixture
def server(cluster: Cluster, namespace: str) -> str:
    """A namespace with two model servers behind a Service."""
    cluster.apply(MODEL_SERVER, namespace)
    cluster.await_rollout("server", namespace)
    return namespace


def test_a_service_is_reached_at_its_cluster_address_its_name_and_its_balancer(
    cluster: Cluster, server: str
) -> None:
    address = cluster.get("service", "server", server)["spec"]["clusterIP"]
    found = json.loads(cluster.inside("curl", "-sS", f"http://{address}/v1/models"))
    assert [item["id"] for item in found["data"]] == ["one"]
    assert models(cluster.balancer("server", server)) == ["one"]
    one, other = (item["metadata"]["name"] for item in cluster.find("pod", server))
    for name in ("server", f"server.{server}", f"server.{server}.svc.cluster.local"):
        assert "one" in cluster.exec(
            one, "curl", "-sS", f"http://{name}/v1/models", namespace=server
        )
    answer = cluster.exec(one, "curl", "-sS", "http://nobody/", namespace=server, fails=True)
    assert "resolve host" in answer
    assert cluster.exec(other, "hostname", namespace=server).strip() == other


def test_the_node_is_where_it_was_for_its_pods_whoever_else_comes(cluster: Cluster) -> None:
    def link_address() -> str:
        (link,) = json.loads(cluster.inside("ip", "-json", "link", "show", BRIDGE))
        found: str = link["address"]
        return found

    before = link_address()
    # No pod's is lower, and a bridge likes the lowest best.
    lowest = ("address", "00:00:00:00:00:02")
    cluster.inside("ip", "link", "add", "low", *lowest, "type", "veth", "peer", "name", "end")
    try:
        cluster.inside("ip", "link", "set", "low", "master", BRIDGE, "up")
        assert link_address() == before
    finally:
        cluster.inside("ip", "link", "delete", "low")


def test_a_balancer_has_the_address_that_is_asked_for_or_none(
    cluster: Cluster, server: str
) -> None:
    def ask(address: str) -> None:
        change = json.dumps({"spec": {"loadBalancerIP": address}})
        cluster.kubectl("patch", "service", "server", "-n", server, "-p", change)

    network = cluster.balancer("server", server).rpartition(".")[0]
    asked = f"{network}.251"
    ask(asked)
    eventually(lambda: cluster.balancer("server", server) == asked)
    assert eventually(lambda: models(asked)) == ["one"]
    ask("192.0.2.1")
    eventually(
        lambda: (
            not cluster.get("service", "server", server)["status"]["loadBalancer"].get("ingress")
        )
    )


def test_a_rolling_update_replaces_the_pods_one_by_one(cluster: Cluster, server: str) -> None:
    before = {item["metadata"]["uid"] for item in cluster.find("pod", server)}
    address = cluster.balancer("server", server)
    cluster.apply(MODEL_SERVER.replace("--model, one", "--model, two"), server)
    seen: set[str] = set()

    def look() -> bool:
        seen.update(models(address))
        return "two" in seen

    # Somebody answers all the time.
    eventually(look, 60)
    assert seen == {"one", "two"}
    cluster.await_rollout("server", server)
    eventually(
        lambda: (
            len(cluster.find("pod", server)) == 2
            and not before & {item["metadata"]["uid"] for item in cluster.find("pod", server)}
        )
    )
    assert models(address) == ["two"]


def test_what_an_object_owns_goes_with_it(cluster: Cluster, server: str) -> None:
    owner = cluster.get("service", "server", server)["metadata"]
    pods = [item["metadata"]["name"] for item in cluster.find("pod", server)]
    assert all(processes_with(f"HOSTNAME={name}") for name in pods)
    cluster.apply(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: owned\n  ownerReferences:\n"
        f"    - {{apiVersion: v1, kind: Service, name: server, uid: {owner['uid']}}}\n",
        server,
    )
    cluster.kubectl("delete", "service", "server", "-n", server)
    cluster.kubectl("delete", "deployment", "server", "-n", server)
    eventually(lambda: not cluster.find("pod", server), 30)
    gone = cluster.kubectl("wait", "--for=delete", "configmap/owned", "-n", server, "--timeout=30s")
    assert "owned" in gone or not gone
    assert not any(processes_with(f"HOSTNAME={name}") for name in pods)


def test_a_container_has_its_rights_and_no_others(cluster: Cluster, namespace: str) -> None:
    sysctl = "{name: net.ipv4.ip_unprivileged_port_start, value: '0'}"
    may = f"  securityContext: {{sysctls: [{sysctl}]}}\n"
    serve = "command: [python, -m, http.server, '80']"
    strict = (
        f"{serve}, securityContext: {{runAsNonRoot: true, runAsUser: 1234, capabilities: "
        "{drop: [ALL]}, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false}, "
        "readinessProbe: {tcpSocket: {port: 80}}"
    )
    forbidden = f"{serve}, securityContext: {{runAsUser: 1234}}"
    root = "command: [sleep, '600'], securityContext: {runAsNonRoot: true, runAsUser: 0}"
    cluster.apply(
        pod("allowed", strict, may)
        + pod("refused", forbidden, "  restartPolicy: Never\n")
        + pod("root", root),
        namespace,
    )
    await_ready(cluster, namespace, "allowed")
    assert cluster.exec("allowed", "id", "-u", namespace=namespace).strip() == "1234"
    complaint = cluster.exec(
        "allowed", "touch", "/x", "/etc/x", "/tmp/x", namespace=namespace, fails=True
    )
    assert complaint.count("Read-only file system") == 3
    phase(cluster, namespace, "refused", "Failed")
    assert "Permission denied" in cluster.kubectl("logs", "refused", "-n", namespace)
    eventually(lambda: waits_for(cluster, namespace, "root") == "CreateContainerConfigError")


def test_volumes_follow_their_objects(cluster: Cluster, namespace: str) -> None:
    volumes = (
        "  volumes:\n    - {name: both, projected: {sources: [{configMap: {name: map}}, "
        "{secret: {name: secret, items: [{key: a, path: deep/a}]}}]}}\n"
        "    - {name: room, emptyDir: {}}\n"
    )
    mounts = (
        "command: [sleep, '600'], volumeMounts: [{name: both, mountPath: /etc/both}, "
        "{name: room, mountPath: /room}], "
        "env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}, "
        "{name: URL, value: 'http://$(IP):$(PORT)'}, "
        "{name: A, valueFrom: {secretKeyRef: {name: secret, key: a}}}]"
    )
    cluster.apply(pod("reader", mounts, volumes), namespace)

    def write(text: str) -> None:
        content = base64.b64encode(text.encode()).decode()
        cluster.apply(
            f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: map}}\ndata: {{b: {text}}}\n---\n"
            f"apiVersion: v1\nkind: Secret\nmetadata: {{name: secret}}\ndata: {{a: {content}}}\n",
            namespace,
        )

    def read(*command: str) -> str:
        return cluster.exec("reader", *command, namespace=namespace).strip()

    # It waits for what it names.
    phase(cluster, namespace, "reader", "Pending")
    write("old")
    await_ready(cluster, namespace, "reader")
    assert read("cat", "/etc/both/deep/a", "/etc/both/b") == "oldold"
    ip = cluster.get("pod", "reader", namespace)["status"]["podIP"]
    assert read("sh", "-c", "echo $A $URL") == f"old http://{ip}:$(PORT)"
    assert read("sh", "-c", "echo x > /room/x; cat /room/x") == "x"
    write("new")
    eventually(lambda: read("cat", "/etc/both/deep/a", "/etc/both/b") == "newnew")


def test_a_pod_has_the_rights_of_its_service_account(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "serviceaccount", "reader", "-n", namespace)
    cluster.kubectl("create", "role", "pods", "--verb=list", "--resource=pods", "-n", namespace)
    rights = ("--role=pods", f"--serviceaccount={namespace}:reader", "-n", namespace)
    cluster.kubectl("create", "rolebinding", "pods", *rights)
    cluster.apply(
        pod("asker", "command: [sleep, '600']", "  serviceAccountName: reader\n"), namespace
    )
    await_ready(cluster, namespace, "asker")
    account = "/var/run/secrets/kubernetes.io/serviceaccount"

    def ask(kind: str) -> int:
        line = (
            f'curl -sS -o /dev/null -w "%{{http_code}}" --cacert {account}/ca.crt '
            f'-H "authorization: Bearer $(cat {account}/token)" '
            f"https://$KUBERNETES_SERVICE_HOST/api/v1/namespaces/$(cat {account}/namespace)/{kind}"
        )
        return int(cluster.exec("asker", "sh", "-c", line, namespace=namespace))

    assert ask("pods") == 200
    assert ask("secrets") == 403
    config = cluster.kubeconfig_for("reader", namespace)
    assert "asker" in cluster.kubectl("get", "pods", "-n", namespace, kubeconfig=config)
    refused = cluster.kubectl("get", "secrets", "-n", namespace, kubeconfig=config, fails=True)
    assert "forbidden" in refused


def test_containers_come_in_order_and_are_started_anew(cluster: Cluster, namespace: str) -> None:
    order = (
        "  volumes: [{name: room, emptyDir: {}}]\n"
        "  initContainers:\n"
        "    - {name: side, image: pointsman, restartPolicy: Always, "
        "command: [sh, -c, 'echo side >> /room/x; exec sleep 600'], "
        "startupProbe: {exec: {command: [test, -s, /room/x]}}, "
        "volumeMounts: [{name: room, mountPath: /room}]}\n"
        "    - {name: first, image: pointsman, command: [sh, -c, 'echo first >> /room/x'], "
        "volumeMounts: [{name: room, mountPath: /room}]}\n"
    )
    again = (
        "command: [sh, -c, 'echo main >> /room/x; cat /room/x; test $(wc -l < /room/x) -gt 3 && "
        "exec sleep 600'], volumeMounts: [{name: room, mountPath: /room}]"
    )
    cluster.apply(pod("ordered", again, order), namespace)

    def is_back() -> bool:
        statuses = cluster.get("pod", "ordered", namespace)["status"].get("containerStatuses")
        return bool(statuses) and statuses[0]["ready"] and statuses[0]["restartCount"] == 1

    eventually(is_back, 30)
    log = cluster.kubectl("logs", "ordered", "-c", "main", "-n", namespace)
    assert log.split() == ["side", "first", "main", "main"]
    previous = cluster.kubectl("logs", "ordered", "-c", "main", "-n", namespace, "--previous")
    assert previous.split() == ["side", "first", "main"]


def test_a_pod_that_leaves_has_its_time(cluster: Cluster, namespace: str) -> None:
    script = (
        "import signal, sys, time; "
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print(open('/tmp/x').read()))); "
        "print('here', flush=True); time.sleep(600)"
    )
    patient = (
        f'command: [python, -c, "{script}"], lifecycle: {{preStop: {{exec: '
        "{command: [sh, -c, 'echo hook > /tmp/x']}}}"
    )
    stubborn = "command: [sleep, '600']"
    cluster.apply(pod("patient", patient) + pod("stubborn", stubborn), namespace)
    await_ready(cluster, namespace, "patient", "stubborn")
    log = cluster.folder / "pods" / namespace / "patient" / "main.0.log"
    eventually(lambda: "here" in log.read_text())
    # The first process of a container without a handler takes no notice of SIGTERM.
    cluster.kubectl("delete", "pod", "patient", "stubborn", "-n", namespace, "--timeout=30s")
    assert log.read_text().split() == ["here", "hook"]


def test_a_pod_is_killed_and_cut_off(cluster: Cluster, server: str) -> None:
    one, other = (item["metadata"]["name"] for item in cluster.find("pod", server))
    address = cluster.balancer("server", server)

    def restarts() -> int:
        status = cluster.get("pod", one, server)["status"]["containerStatuses"][0]
        return int(status["restartCount"]) if status["ready"] else 0

    cluster.kill(one, namespace=server)
    eventually(lambda: restarts() == 1, 30)
    assert models(address) == ["one"]
    cluster.cut_off(other, server)
    ip = cluster.get("pod", other, server)["status"]["podIP"]
    visit = ("curl", "-sS", "--connect-timeout", "1", f"http://{ip}:8000/health")
    cluster.inside(*visit, fails=True)
    # Whoever is in turn: the other one answers for it.
    assert [models(address), models(address)] == [["one"], ["one"]]
    cluster.reconnect(other, server)

    def is_back() -> bool:
        try:
            cluster.inside(*visit)
        except AssertionError:
            return False
        return True

    # Its neighbours may hold it for gone a moment longer.
    eventually(is_back)


def test_an_image_that_nothing_stands_in_for_is_said(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("run", "stranger", "--image=example.com/stranger:1", "-n", namespace)
    eventually(lambda: waits_for(cluster, namespace, "stranger") == "ImagePullBackOff")


def test_objects_and_pods_outlive_an_absence_of_the_api_server(
    cluster: Cluster, server: str
) -> None:
    address = cluster.balancer("server", server)
    cluster.stop_apiserver(signal.SIGKILL)
    cluster.kubectl("get", "pods", "-n", server, "--request-timeout=5s", fails=True)
    assert models(address) == ["one"]
    cluster.start_apiserver()
    assert len(cluster.find("pod", server)) == 2
    # And the node goes on with what is asked of it.
    cluster.kubectl("scale", "deployment/server", "--replicas=3", "-n", server)
    cluster.await_rollout("server", server)


def test_the_kinds_of_others_are_known(control_plane: Cluster, crds: None, namespace: str) -> None:
    control_plane.apply(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: one}\n"
        "spec: {gatewayClassName: any, listeners: [{name: a, port: 80, protocol: HTTP}]}\n---\n"
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: BackendTrafficPolicy\n"
        "metadata: {name: one}\nspec: {anything: {goes: 1}}\n",
        namespace,
    )
    assert control_plane.get("gateway", "one", namespace)["spec"]["listeners"][0]["port"] == 80
    assert control_plane.get("btp", "one", namespace)["spec"]["anything"] == {"goes": 1}


LEFT_ALONE = """
import sys, time
from tests.kubernetes.cluster import Cluster
with Cluster() as cluster:
    cluster.start_node()
    cluster.kubectl("run", sys.argv[1], "--image=pointsman", "--command", "--", "sleep", "600")
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{sys.argv[1]}", "--timeout=60s")
    print(cluster.folder, flush=True)
    time.sleep(600)
"""


def test_nothing_is_left_of_a_cluster_whose_test_was_killed(cluster: Cluster) -> None:
    name = f"orphan-{secrets.token_hex(4)}"
    test = subprocess.Popen(
        [sys.executable, "-c", LEFT_ALONE, name], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )
    assert test.stdout is not None
    with test.stdout as said:
        folder = Path(said.readline().strip())
        assert folder.name.startswith(PREFIX)
        assert processes_with(f"HOSTNAME={name}")
        test.kill()
        test.wait(10)

    def living() -> list[Path]:
        return [entry for entry in Path("/proc").glob("[0-9]*") if mentions(entry, str(folder))]

    eventually(lambda: not living() and not processes_with(f"HOSTNAME={name}"))
    sweep()
    assert not folder.exists()
    assert cluster.folder.exists()


def mentions(process: Path, text: str) -> bool:
    with suppress(OSError):
        return text.encode() in (process / "cmdline").read_bytes()
    return False
