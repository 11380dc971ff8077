"""A cluster for tests: the real etcd, API server and controllers of Kubernetes.

    with Cluster() as cluster:
        cluster.install_crds()
        cluster.apply(Path("gateway.yaml"))
        cluster.get("gateway", "inference-gateway")

Everything is in one temporary folder and on 127.0.0.1, needs no privileges, and ends with the
thread that made it, however that ends. There is no node: pods stay pending until `start_node` is
called (`tests/kubernetes/node.py` tells what that is).

The machine with the pods is a network namespace with no way out. From here it is reached by
`kubectl`, by a Service of type LoadBalancer (its address is a loopback address of this machine), by
`inside` (a command in the pods' network) and by `exec` (a command in a container).
"""

from __future__ import annotations

import base64
import fcntl
import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from tests.e2e.instances import eventually
from tests.kubernetes import binaries
from tests.kubernetes.authority import ADMINS, Authority, signing_keys
from tests.kubernetes.containers import entering
from tests.kubernetes.network import API_ADDRESS, CLUSTER_DOMAIN, SERVICE_RANGE, link_of
from tests.ports import free_port

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
SHARED_CRDS = CHECKOUT.parent / "shared" / "crds"
GATEWAY_API = "gateway-api"
OWN_CRDS = HERE / "crds.yaml"
NODE = "node"
READY_FILE = "node.json"

START_S = 60.0
STOP_S = 20.0
KUBECTL_S = 90.0
COMMAND_S = 30.0
SHOWN_LINES = 25
PREFIX = "pm-cluster-"

CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "endpoints-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
    "horizontal-pod-autoscaler-controller",
    "job-controller",
    "namespace-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "statefulset-controller",
)
"""Those whose work can be seen by what runs in the cluster; none that evicts from nodes."""


class ClusterError(AssertionError):
    """A part of the cluster did not do what it must; the message has the end of its log."""


@dataclass
class Part:
    """One process of the cluster, with its log."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # Ends with the thread that is running now. `setpriv` becomes the program, so there is no
        # Python between fork and exec.
        command = ("setpriv", "--pdeathsig", "KILL", *self.command)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(STOP_S)
        self.process = None

    def await_ready(self, check: Callable[[], bool], timeout_s: float = START_S) -> None:
        """Wait until `check` is true, and no longer than the process lives."""
        with suppress(AssertionError):
            eventually(lambda: not self.is_running or check(), timeout_s)
        if not self.is_running or not check():
            state = "is not ready" if self.is_running else "has ended"
            raise ClusterError(f"{self.name} {state}; its log ends with\n{self.tail()}")

    def tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-SHOWN_LINES:])


@dataclass
class Cluster:
    """One cluster; `with` starts and ends it."""

    folder: Path = field(init=False)
    """Everything of this cluster: logs (`*.log`), certificates, the pods' folders (`pods/`)."""
    port: int = field(init=False)
    """Where the API server listens on 127.0.0.1; stays when it is started anew."""

    def __enter__(self) -> Self:
        if missing := binaries.missing():
            raise ClusterError(missing)
        self._programs = binaries.folder()
        sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = _locked(self.folder)
        # Containers of any user look into their own part of it.
        self.folder.chmod(0o711)
        self.port = free_port()
        self._authority = Authority()
        self._parts: dict[str, Part] = {}
        try:
            self._write_certificates()
            self._start_etcd()
            self.start_apiserver()
            self.start_controllers()
            self._await_default_account()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for part in reversed(self._parts.values()):
            # The node ends its pods and takes its network with it, whichever way it ends.
            part.stop()
        # What ran in a mount namespace has let go of the folder a moment after its end.
        with suppress(AssertionError):
            eventually(lambda: _removed(self.folder), STOP_S)
        self._lock.close()

    # --- What a test asks of it -----------------------------------------------------------------

    @property
    def kubeconfig(self) -> Path:
        """Of an administrator."""
        return self.folder / "admin.kubeconfig"

    @property
    def server(self) -> str:
        """The API server's URL on this machine."""
        return f"https://127.0.0.1:{self.port}"

    def kubectl(
        self,
        *arguments: str,
        input: str | None = None,  # noqa: A002 - as in subprocess.run
        fails: bool = False,
        kubeconfig: Path | None = None,
        timeout_s: float = KUBECTL_S,
    ) -> str:
        """What the real kubectl prints; with `fails` it must fail, and its complaint is added."""
        done = self._run_kubectl(arguments, input, kubeconfig, timeout_s)
        assert (done.returncode != 0) == fails, (arguments, done.stdout, done.stderr)
        return done.stdout + (done.stderr if fails else "")

    def warnings(self, *arguments: str) -> str:
        """What the API server warns of, as kubectl tells it."""
        done = self._run_kubectl(arguments, None, None, KUBECTL_S)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stderr

    def _run_kubectl(
        self,
        arguments: Sequence[str],
        given: str | None,
        kubeconfig: Path | None,
        timeout_s: float,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._program("kubectl")), *arguments],
            input=given if given is not None else "",
            env=self.environment(kubeconfig),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def pid(self, part: str) -> int:
        """The process of a part that runs, like `kube-apiserver`."""
        process = self._parts[part].process
        assert process is not None, f"{part} is stopped"
        return process.pid

    def environment(self, kubeconfig: Path | None = None) -> dict[str, str]:
        """Variables under which kubectl, helm or `pointsman` talk to this cluster."""
        path = f"{self._program('kubectl').parent}:{os.environ.get('PATH', '')}"
        return {
            "PATH": path,
            "HOME": str(self.folder / "home"),
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
        }

    def apply(self, what: Path | str, namespace: str = "default", *flags: str) -> str:
        """Apply a file, every file of a folder, or a text; returns what kubectl says."""
        given = ("-R", "-f", str(what)) if isinstance(what, Path) else ("-f", "-")
        text = None if isinstance(what, Path) else what
        return self.kubectl("apply", "-n", namespace, *given, *flags, input=text)

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        """An object as the API server has it."""
        found: dict[str, Any] = json.loads(
            self.kubectl("get", kind, name, "-n", namespace, "-o", "json")
        )
        return found

    def find(self, kind: str, namespace: str = "default", labels: str = "") -> list[dict[str, Any]]:
        """The objects of a kind in a namespace that have these labels."""
        text = self.kubectl("get", kind, "-n", namespace, "-l", labels, "-o", "json")
        found: list[dict[str, Any]] = json.loads(text)["items"]
        return found

    def await_rollout(
        self, deployment: str, namespace: str = "default", timeout_s: float = START_S
    ) -> None:
        """Until all pods of a Deployment are those that it asks for, and ready."""
        try:
            self.kubectl(
                *("rollout", "status", f"deployment/{deployment}", "-n", namespace),
                f"--timeout={timeout_s:g}s",
                timeout_s=timeout_s + KUBECTL_S,
            )
        except AssertionError as error:
            raise ClusterError(f"{error}\n{self.story(namespace)}") from error

    def await_endpoints(self, service: str, namespace: str = "default") -> None:
        """Until a Service leads to the pods that stay, and to no other.

        Another controller of Kubernetes sees to that than to the pods.
        """

        selector = self.get("service", service, namespace)["spec"]["selector"]
        labels = ",".join(f"{name}={value}" for name, value in selector.items())

        def are_told() -> bool:
            staying = {
                item["status"].get("podIP")
                for item in self.find("pods", namespace, labels)
                if not item["metadata"].get("deletionTimestamp")
            }
            slices = self.find("endpointslices", namespace, f"kubernetes.io/service-name={service}")
            told = {
                address
                for item in slices
                for endpoint in item.get("endpoints") or ()
                if endpoint["conditions"].get("ready")
                for address in endpoint["addresses"]
            }
            return told == staying

        eventually(are_told, START_S)

    def story(self, namespace: str) -> str:
        """Pods of a namespace, where its Services lead, and the ends of the pods' logs.

        For who looks for a fault.
        """
        lines = [self.kubectl("get", "pods,endpointslices", "-n", namespace, "-o", "wide")]
        for log in sorted(self.folder.glob(f"pods/{namespace}/*/*.log")):
            tail = log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]
            lines += [f"--- {log.parent.name} {log.stem}", *tail]
        if NODE in self._parts:
            lines += ["--- node", self._parts[NODE].tail()]
        return "\n".join(lines)

    def kubeconfig_for(self, service_account: str, namespace: str = "default") -> Path:
        """A kubeconfig with a token of a service account, which holds its rights and no others."""
        token = self.kubectl("create", "token", service_account, "-n", namespace).strip()
        return self._write_kubeconfig(f"{namespace}.{service_account}", {"token": token}, namespace)

    # --- What runs on the node ------------------------------------------------------------------

    def inside(self, *command: str, fails: bool = False, timeout_s: float = COMMAND_S) -> str:
        """What a command prints that this machine runs in the pods' network, like curl."""
        about = json.loads((self.folder / READY_FILE).read_text())
        return _output(
            ("nsenter", f"--net=/proc/{about['pid']}/ns/net", *command), fails, timeout_s
        )

    def exec(
        self,
        pod: str,
        *command: str,
        namespace: str = "default",
        container: str = "",
        fails: bool = False,
        timeout_s: float = COMMAND_S,
    ) -> str:
        """What a command prints that is run in a container (the first, if none is named)."""
        entry = self._entry(pod, namespace, container)
        return _output(entering(entry, command), fails, timeout_s)

    def kill(
        self,
        pod: str,
        number: signal.Signals = signal.SIGKILL,
        *,
        namespace: str = "default",
        container: str = "",
    ) -> None:
        """Send a signal to the first process of a container, as no process inside of it can."""
        os.kill(self._entry(pod, namespace, container)["pid"], number)

    def cut_off(self, pod: str, namespace: str = "default") -> None:
        """Nothing reaches the pod any more, and it reaches nobody."""
        self.inside("ip", "link", "set", self._link(pod, namespace), "down")

    def reconnect(self, pod: str, namespace: str = "default") -> None:
        """It is reached again."""
        self.inside("ip", "link", "set", self._link(pod, namespace), "up")

    def _link(self, pod: str, namespace: str) -> str:
        return link_of(self.get("pod", pod, namespace)["status"]["podIP"])

    def _entry(self, pod: str, namespace: str, container: str) -> dict[str, Any]:
        if not container:
            container = self.get("pod", pod, namespace)["spec"]["containers"][0]["name"]
        entry = self.folder / "pods" / namespace / pod / f"{container}.json"
        found: dict[str, Any] = json.loads(entry.read_text())
        return found

    def balancer(self, service: str, namespace: str = "default") -> str:
        """The address of a Service of type LoadBalancer, once it has one."""

        def given() -> str:
            status = self.get("service", service, namespace)["status"]
            return next((i["ip"] for i in status["loadBalancer"].get("ingress", ())), "")

        return eventually(given)

    # --- Custom resources -----------------------------------------------------------------------

    def install_crds(self, gateway_api: Path = SHARED_CRDS / GATEWAY_API) -> None:
        """The kinds of the Gateway API, of the inference extension and of Envoy Gateway.

        Args:
            gateway_api: A folder with another release or channel of the Gateway API.

        Raises:
            ClusterError: the shared folder with them is not beside the checkout.
        """
        if not SHARED_CRDS.is_dir():
            raise ClusterError(f"no {SHARED_CRDS}")
        others = (item for item in SHARED_CRDS.iterdir() if item.name != GATEWAY_API)
        # Beside them may be a file for kustomize, which is no object.
        found = [OWN_CRDS, *others, *sorted(gateway_api.glob("gateway.networking.*.yaml"))]
        files = [flag for item in found for flag in ("-f", str(item))]
        # Some are too large for the annotation of a client-side apply.
        self.kubectl("apply", "--server-side", *files)
        established = ("--for=condition=Established", "--timeout=30s", "crd", "--all")
        self.kubectl("wait", *established)
        # The garbage collector looks for new kinds twice a minute only, and at its start.
        self.stop_controllers()
        self.start_controllers()

    # --- Its parts ------------------------------------------------------------------------------

    def stop_apiserver(self, number: signal.Signals = signal.SIGKILL) -> None:
        """The API server is gone: connections break, new ones are refused. The objects stay."""
        self._parts["kube-apiserver"].stop(number)

    def start_apiserver(self) -> None:
        """The API server answers under the same address as before."""
        self._start("kube-apiserver", *self._apiserver_flags()).await_ready(self._is_ready)

    def stop_controllers(self) -> None:
        """Nothing makes pods of Deployments, endpoints of Services or collects garbage."""
        self._parts["kube-controller-manager"].stop()

    def start_controllers(self) -> None:
        """The controllers take up their work."""
        flags = (
            f"--kubeconfig={self._controllers_kubeconfig}",
            f"--controllers={','.join(CONTROLLERS)}",
            f"--service-account-private-key-file={self.folder / 'tokens.key'}",
            f"--root-ca-file={self.folder / 'ca.crt'}",
            "--leader-elect=false",
            "--secure-port=0",
            # Made for clusters of thousands of nodes; a test waits for each of these.
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
        )
        self._start("kube-controller-manager", *flags)

    def start_node(self) -> None:
        """From now on pods are run; needs what `node_is_missing` tells of."""
        # Containers cannot write beside the sources, and each would compile them again.
        _output((sys.executable, "-m", "compileall", "-q", str(CHECKOUT / "src")), False, START_S)
        about = self.folder / READY_FILE
        flags = (f"--folder={self.folder}", f"--api-port={self.port}")
        command = (sys.executable, "-m", "tests.kubernetes.node", *flags)
        path = os.environ.get("PATH", "")
        environment = {
            "PATH": path,
            "PYTHONPATH": str(CHECKOUT),
            # Every child becomes another program at once: gRPC need not be made ready for one.
            "GRPC_ENABLE_FORK_SUPPORT": "false",
        }
        part = Part(NODE, command, self.folder / "node.log", environment)
        self._parts[NODE] = part
        part.start()
        part.await_ready(about.exists)

    def _start(self, name: str, *flags: str) -> Part:
        command = (str(self._program(name)), *flags)
        part = self._parts.get(name)
        if part is None or tuple(part.command) != command:
            part = Part(name, command, self.folder / f"{name}.log")
            self._parts[name] = part
        part.start()
        return part

    def _program(self, name: str) -> Path:
        assert self._programs is not None
        return self._programs / name

    def _start_etcd(self) -> None:
        # Unix sockets: no port that somebody else may take in between.
        client, peer = (f"unix://{self.folder}/{name}.sock" for name in ("etcd", "peer"))
        part = self._start(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            # What a test writes need not outlive a power cut.
            "--unsafe-no-fsync",
            "--log-level=warn",
        )
        part.await_ready((self.folder / "etcd.sock").exists)

    def _apiserver_flags(self) -> Iterator[str]:
        folder = self.folder
        yield f"--etcd-servers=unix://{folder}/etcd.sock"
        yield "--bind-address=127.0.0.1"
        yield f"--secure-port={self.port}"
        # The node leads the Service `kubernetes` here; an endpoint cannot be a loopback address.
        yield f"--advertise-address={API_ADDRESS}"
        yield "--endpoint-reconciler-type=none"
        yield f"--service-cluster-ip-range={SERVICE_RANGE}"
        yield f"--client-ca-file={folder / 'ca.crt'}"
        yield f"--tls-cert-file={folder / 'apiserver.crt'}"
        yield f"--tls-private-key-file={folder / 'apiserver.key'}"
        yield "--authorization-mode=RBAC"
        yield f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}"
        yield f"--service-account-signing-key-file={folder / 'tokens.key'}"
        yield f"--service-account-key-file={folder / 'tokens.pub'}"
        yield f"--kubelet-client-certificate={folder / 'admin.crt'}"
        yield f"--kubelet-client-key={folder / 'admin.key'}"

    def _write_certificates(self) -> None:
        folder = self.folder
        (folder / "home").mkdir()
        signing_keys(folder)
        (folder / "ca.crt").write_bytes(self._authority.certificate)
        hosts = ("127.0.0.1", "localhost", API_ADDRESS, "kubernetes")
        names = [f"kubernetes.default{rest}" for rest in ("", ".svc", f".svc.{CLUSTER_DOMAIN}")]
        self._write_pair("apiserver", self._authority.server((*hosts, *names)))
        self._write_pair("admin", self._authority.user("admin", ADMINS))
        self._write_kubeconfig("admin", _files(folder, "admin"), "default")
        self._write_pair("controllers", self._authority.user("controllers", ADMINS))
        self._controllers_kubeconfig = self._write_kubeconfig(
            "controllers", _files(folder, "controllers"), "default"
        )

    def _write_pair(self, name: str, pair: tuple[bytes, bytes]) -> None:
        for end, content in zip(("crt", "key"), pair, strict=True):
            (self.folder / f"{name}.{end}").write_bytes(content)

    def _write_kubeconfig(self, name: str, user: Mapping[str, str], namespace: str) -> Path:
        authority = base64.b64encode(self._authority.certificate).decode()
        cluster = {"server": self.server, "certificate-authority-data": authority}
        context = {"cluster": "test", "user": name, "namespace": namespace}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "test", "context": context}],
            "current-context": "test",
        }
        path = self.folder / f"{name}.kubeconfig"
        path.write_text(json.dumps(content, indent=1))
        return path

    def _is_ready(self) -> bool:
        with suppress(OSError, http.client.HTTPException):
            return self.request("GET", "/readyz", timeout_s=5.0)[0] == 200
        return False

    def _await_default_account(self) -> None:
        # Without it the API server admits no pod to the namespace.
        path = "/api/v1/namespaces/default/serviceaccounts/default"
        controllers = self._parts["kube-controller-manager"]
        controllers.await_ready(lambda: self.request("GET", path)[0] == 200)

    def request(
        self, method: str, path: str, body: Any = None, timeout_s: float = 15.0
    ) -> tuple[int, Any]:
        """Status and JSON (or text) of the API server's answer to an administrator."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        context.load_cert_chain(self.folder / "admin.crt", self.folder / "admin.key")
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=timeout_s, context=context
        )
        try:
            content = json.dumps(body) if body is not None else None
            connection.request(method, path, content, {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
            is_json = "json" in (answer.getheader("content-type") or "")
            return answer.status, json.loads(text) if is_json else text
        finally:
            connection.close()


def node_is_missing() -> str:
    """One line that says what a node lacks on this machine; empty where it lacks nothing."""
    if os.geteuid() != 0:
        return "pods of a cluster for tests need root"
    tools = [name for name in ("ip", "nsenter", "setpriv") if shutil.which(name) is None]
    if tools:
        return f"no {', '.join(tools)}; pods need iproute2 and util-linux"
    tried = subprocess.run(
        ("unshare", "--net", "--mount", "ip", "link", "add", "pods", "type", "bridge"),
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    return f"no namespaces for pods: {tried.stderr.strip()}" if tried.returncode else ""


def _output(command: Sequence[str], fails: bool, timeout_s: float) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert (done.returncode != 0) == fails, (command, done.stdout, done.stderr)
    return done.stdout + (done.stderr if fails else "")


def _files(folder: Path, name: str) -> dict[str, str]:
    return {
        "client-certificate": str(folder / f"{name}.crt"),
        "client-key": str(folder / f"{name}.key"),
    }


def _locked(folder: Path) -> IO[bytes]:
    lock = (folder / ".lock").open("wb")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def sweep() -> None:
    """Folders of clusters whose process has died hard."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError), (folder / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def _removed(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()
