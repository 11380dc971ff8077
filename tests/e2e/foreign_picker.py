"""A picker that is not ours, as a process of its own: what llm-d's and the extension's do to Envoy.

It answers a request's headers only when it has read the body, so it deadlocks in any mode but
FULL_DUPLEX_STREAMED. It picks what the header `test-epp-endpoint-selection` lists (addresses with
or without a port) among its own endpoints, in that order; without the header, each in turn. It says
in `x-conformance-test-served-endpoint` of the answer who served, as the gateway told it.

The header `test-epp` makes it misbehave for one request: `hang` never answers, `refuse` answers 429
by itself, `fail` ends the stream with an error, `stray` names a host outside its pool, `die` ends
the process.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import grpc
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from google.protobuf.struct_pb2 import Struct

from pointsman.certificates import self_signed

PROCESS = "Process"
SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
SELECTION = "test-epp-endpoint-selection"
BEHAVIOUR = "test-epp"
PICKED = "test-epp-picked-by"
SERVED = "x-conformance-test-served-endpoint"
DESTINATION = "x-gateway-destination-endpoint"
SERVED_KEY = "x-gateway-destination-endpoint-served"
STRAY = "203.0.113.7:80"
CHUNK_BYTES = 62_000
"""As the extension's picker cuts its answers."""
REFUSAL = b"the picker's own words"


class Picker:
    """The service."""

    def __init__(self, name: str, endpoints: Sequence[str]) -> None:
        self._name = name
        self._endpoints = endpoints
        self._turn = count()

    async def process(self, messages: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """One stream: the request is held until its end, then answered at once."""
        headers: dict[str, str] = {}
        chunks: list[bytes] = []
        async for message in messages:
            kind = message.WhichOneof("request")
            if kind == "request_headers":
                headers = _headers(message.request_headers)
                if message.request_headers.end_of_stream:
                    async for answer in self._answers(headers, None, context):
                        yield answer
            elif kind == "request_body":
                chunks.append(message.request_body.body)
                if message.request_body.end_of_stream:
                    async for answer in self._answers(headers, b"".join(chunks), context):
                        yield answer
            elif kind == "request_trailers":
                async for answer in self._answers(headers, b"".join(chunks), context):
                    yield answer
                yield pb.ProcessingResponse(request_trailers={})
            elif kind == "response_headers":
                known = message.metadata_context.filter_metadata
                served = known["envoy.lb"].fields if "envoy.lb" in known else {}
                value = served[SERVED_KEY].string_value if SERVED_KEY in served else "nobody"
                yield pb.ProcessingResponse(
                    response_headers={"response": _setting({SERVED: value})}
                )

    async def _answers(
        self, headers: dict[str, str], body: bytes | None, context: Any
    ) -> AsyncIterator[Any]:
        behaviour = headers.get(BEHAVIOUR)
        if behaviour == "hang":
            await asyncio.Event().wait()
        if behaviour == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if behaviour == "fail":
            await context.abort(grpc.StatusCode.INTERNAL, "asked for")
        picked = STRAY if behaviour == "stray" else self._pick(headers.get(SELECTION))
        if behaviour == "refuse" or not picked:
            status = {"code": 429 if picked else 503}
            yield pb.ProcessingResponse(
                immediate_response={"status": status, "body": REFUSAL, "details": "asked for"}
            )
            return
        told = Struct()
        told.update({"envoy.lb": {DESTINATION: picked}})
        response = _setting({DESTINATION: picked, PICKED: self._name}, clear_route_cache=True)
        yield pb.ProcessingResponse(request_headers={"response": response}, dynamic_metadata=told)
        if body is None:
            return
        starts = range(0, len(body), CHUNK_BYTES) if body else (0,)
        for start in starts:
            piece = body[start : start + CHUNK_BYTES]
            is_last = start + CHUNK_BYTES >= len(body)
            mutation = {"streamed_response": {"body": piece, "end_of_stream": is_last}}
            yield pb.ProcessingResponse(request_body={"response": {"body_mutation": mutation}})

    def _pick(self, selection: str | None) -> str:
        if selection is None:
            return self._endpoints[next(self._turn) % len(self._endpoints)]
        wanted = [item.strip() for item in selection.split(",")]
        return ",".join(
            endpoint
            for item in wanted
            for endpoint in self._endpoints
            if item in (endpoint, endpoint.rpartition(":")[0])
        )


def _headers(message: Any) -> dict[str, str]:
    return {
        item.key.lower(): (item.raw_value or item.value.encode()).decode()
        for item in message.headers.headers
    }


def _setting(headers: dict[str, str], **more: Any) -> dict[str, Any]:
    options = [
        {
            "header": {"key": key, "raw_value": value.encode()},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
        for key, value in headers.items()
    ]
    return {"header_mutation": {"set_headers": options}, **more}


async def serve(options: argparse.Namespace) -> None:
    """Serve until killed; prints the port when it is open."""
    # By default gRPC throws calls away at random when more than a thousand are not yet accepted.
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.server.max_pending_requests", 100_000),
            ("grpc.server.max_pending_requests_hard_limit", 200_000),
        ]
    )
    picker = Picker(options.name, options.endpoints)
    method = grpc.stream_stream_rpc_method_handler(
        picker.process, pb.ProcessingRequest.FromString, pb.ProcessingResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {PROCESS: method}),)
    )
    if options.health:
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc

        servicer = health.aio.HealthServicer()
        await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    address = f"{options.address}:{options.port}"
    if options.plaintext:
        port = server.add_insecure_port(address)
    else:
        certificate, key = self_signed("picker")
        credentials = grpc.ssl_server_credentials([(key, certificate)])
        port = server.add_secure_port(address, credentials)
    await server.start()
    print(port, flush=True)  # noqa: T201
    await server.wait_for_termination()


@dataclass
class ForeignPicker:
    """A running one."""

    name: str
    port: int
    process: subprocess.Popen[str]

    def hang(self) -> None:
        """Its connections stay open and nothing comes out of them."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def manifest(self) -> str:
        """Its Pod, and the Service that pools name."""
        return pod(f"{self.name}-0", self.name, "127.0.0.1", {9002: self.port})


def pod(name: str, app: str, address: str, ports: dict[int, int] | None = None) -> str:
    """A server that runs already."""
    mapped = ",".join(f"{port}={real}" for port, real in (ports or {}).items())
    return f"""
---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  labels: {{app: {app}}}
  annotations: {{pointsman.dev/ports: "{mapped}"}}
status: {{podIP: {address}}}
"""


def service(name: str, *, h2c: bool = False) -> str:
    """The Service of a picker."""
    protocol = ", appProtocol: kubernetes.io/h2c" if h2c else ""
    return f"""
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 9002{protocol}}}]}}
"""


@contextmanager
def foreign_picker(
    name: str,
    endpoints: Sequence[str],
    *,
    port: int = 0,
    is_plaintext: bool = False,
    has_health: bool = False,
) -> Iterator[ForeignPicker]:
    """A picker of `endpoints` (`ip:port`) on this machine, until the block ends."""
    flags = [
        *(["--plaintext"] if is_plaintext else []),
        *(["--health"] if has_health else []),
    ]
    command = [sys.executable, __file__, name, *endpoints, f"--port={port}", *flags]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
        try:
            line = process.stdout.readline() if process.stdout is not None else ""
            if not line:
                errors.seek(0)
                raise AssertionError(errors.read().decode())
            yield ForeignPicker(name, int(line), process)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def main() -> None:
    """Be the picker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("endpoints", nargs="+")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--plaintext", action="store_true")
    parser.add_argument("--health", action="store_true")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
