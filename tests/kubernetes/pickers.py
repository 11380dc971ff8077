"""Pickers as processes of this machine over a cluster's API server, and who asks them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import yaml
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from tests.kubernetes.cluster import CHECKOUT, Cluster
from tests.ports import free_port

PROCESS = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
DESTINATION = "x-gateway-destination-endpoint"
INSTALLED = CHECKOUT / "deploy" / "pointsman.yaml"
ROLE = "pointsman-picker"
ANSWER_S = 10.0
RUN = "from pointsman.cli.main import main; main()"


def role() -> str:
    """The ClusterRole of pickers, as it is installed."""
    documents = yaml.safe_load_all(INSTALLED.read_text())
    return yaml.safe_dump(
        next(
            item
            for item in documents
            if item and (item["kind"], item["metadata"]["name"]) == ("ClusterRole", ROLE)
        )
    )


def account(cluster: Cluster, namespace: str, name: str = "picker") -> Path:
    """A service account that has the rights of pickers in its namespace and no others."""
    cluster.apply(role())
    cluster.kubectl("create", "serviceaccount", name, "-n", namespace)
    binding = (f"--clusterrole={ROLE}", f"--serviceaccount={namespace}:{name}")
    cluster.kubectl("create", "rolebinding", name, "-n", namespace, *binding)
    return cluster.kubeconfig_for(name, namespace)


def pool(name: str = "llama", app: str = "llama", port: int = 8000) -> str:
    return f"""---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {app}}}}}
  targetPorts: [{{number: {port}}}]
  endpointPickerRef: {{name: picker, port: {{number: 9002}}}}
"""


def older_pool(name: str = "llama", app: str = "llama", port: int = 8000) -> str:
    return f"""---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {{name: {name}}}
spec:
  selector: {{app: {app}}}
  targetPortNumber: {port}
  extensionRef: {{name: picker}}
"""


def server(
    cluster: Cluster, namespace: str, name: str, address: str, labels: str = "app=llama"
) -> None:
    """A pod that no node runs and that says it is ready under some address."""
    pairs = ", ".join(pair.replace("=", ": ", 1) for pair in labels.split(","))
    cluster.apply(
        f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{{pairs}}}}}
spec:
  schedulingGates: [{{name: tests/no-node}}]
  containers: [{{name: server, image: vllm}}]
""",
        namespace,
    )
    status = {
        "podIP": address,
        "podIPs": [{"ip": address}],
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    patch = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    cluster.kubectl("patch", "pod", name, "-n", namespace, *patch)


@dataclass
class Picker:
    """A running `pointsman picker`."""

    process: subprocess.Popen[bytes]
    grpc: str
    health: str
    metrics: int
    log_file: Path

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self.log_file.read_text()

    def is_ready(self) -> bool:
        """Whether its health says so."""
        return health(self.health) == "SERVING"

    def pick(self, model: str = "m") -> str | int:
        """The endpoint that it picks, or the status of its error."""
        with grpc.insecure_channel(self.grpc) as channel:
            return ask(channel, model)


@contextmanager
def picker(
    cluster: Cluster, kubeconfig: Path, *flags: str, environment: dict[str, str] | None = None
) -> Iterator[Picker]:
    """A picker with these flags, without TLS, on free ports of 127.0.0.1."""
    ports = [free_port() for _ in range(3)]
    command = [
        *(sys.executable, "-c", RUN, "picker", "--bind=127.0.0.1", "--secure-serving=false"),
        *(f"--grpc-port={ports[0]}", f"--grpc-health-port={ports[1]}"),
        *(f"--metrics-port={ports[2]}", f"--kubeconfig={kubeconfig}", *flags),
    ]
    with tempfile.TemporaryDirectory(prefix="pm-picker-") as folder:
        log_file = Path(folder, "log")
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**cluster.environment(kubeconfig), **(environment or {})},
            )
        try:
            yield Picker(
                process, f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", ports[2], log_file
            )
        except BaseException as error:
            error.add_note(f"The picker's log:\n{log_file.read_text()}")
            raise
        finally:
            process.kill()
            process.wait()


def health(address: str, service: str = "readiness") -> str:
    """What the health service says; "" where nobody answers."""
    name = service.encode()
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            answer: bytes = check(bytes((0x0A, len(name))) + name, timeout=2)
        except grpc.RpcError:
            return ""
    return {b"\x08\x01": "SERVING", b"\x08\x02": "NOT_SERVING"}.get(answer, "?")


class Conversation:
    """One request of a gateway in full duplex, as far as the test drives it."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.body = b""
        """Of the request, as the picker lets it go on."""
        self._said = _Queue()
        process = channel.stream_stream(
            PROCESS,
            request_serializer=pb.ProcessingRequest.SerializeToString,
            response_deserializer=pb.ProcessingResponse.FromString,
        )
        self.call = process(self._said, timeout=60)

    def say(self, message: pb.ProcessingRequest) -> None:
        """Send a message."""
        self._said.put(message)

    def hear(self) -> pb.ProcessingResponse:
        """The next answer."""
        return next(self.call)

    def ask(self, model: str) -> str | int:
        """Send a whole request; the endpoint that was picked, or the status of the error."""
        head = pb.ProcessingRequest()
        add = head.request_headers.headers.headers.add
        add(key=":method", raw_value=b"POST")
        add(key=":path", raw_value=b"/v1/completions")
        head.protocol_config.request_body_mode = 4
        head.protocol_config.response_body_mode = 4
        self.say(head)
        body = json.dumps({"model": model, "prompt": "hello"}).encode()
        self.say(pb.ProcessingRequest(request_body=pb.HttpBody(body=body, end_of_stream=True)))
        answer = self.hear()
        if answer.HasField("immediate_response"):
            return int(answer.immediate_response.status.code)
        headers = answer.request_headers.response.header_mutation.set_headers
        found: dict[str, str] = {
            item.header.key: item.header.raw_value.decode() for item in headers
        }
        echoed = self.hear().request_body.response.body_mutation
        self.body = echoed.streamed_response.body
        return found[DESTINATION]

    def answer(self, chunk: bytes, *, begins: bool = False, ends: bool = False) -> bytes:
        """Show a part of the answer; what comes back is what the client gets."""
        if begins:
            self.say(pb.ProcessingRequest(response_headers=pb.HttpHeaders()))
            self.hear()
        self.say(pb.ProcessingRequest(response_body=pb.HttpBody(body=chunk, end_of_stream=ends)))
        response = self.hear().response_body.response
        body: bytes = response.body_mutation.streamed_response.body
        return body

    def end(self) -> str:
        """Close our side and hear how the call has ended."""
        self._said.close()
        for _ in self.call:
            pass
        return str(self.call.code().name)


class _Queue:
    """An iterator that others fill."""

    def __init__(self) -> None:
        import queue

        self._items: Any = queue.SimpleQueue()

    def put(self, item: pb.ProcessingRequest) -> None:
        self._items.put(item)

    def close(self) -> None:
        self._items.put(None)

    def __iter__(self) -> _Queue:
        return self

    def __next__(self) -> pb.ProcessingRequest:
        item: pb.ProcessingRequest | None = self._items.get()
        if item is None:
            raise StopIteration
        return item


def ask(channel: grpc.Channel, model: str = "m") -> str | int:
    """One whole request whose answer is not shown to the picker."""
    conversation = Conversation(channel)
    try:
        return conversation.ask(model)
    finally:
        conversation.end()


def settled(read: Callable[[], Any], wanted: Any) -> Callable[[], bool]:
    """Whether something reads as it should; for `eventually`."""
    return lambda: bool(read() == wanted)
