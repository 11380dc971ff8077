"""The picker as a process: flags, feed, TLS, health, metrics, admin socket, drain."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from pointsman.certificates import self_signed
from pointsman.picker.process import Picker
from pointsman.picker.serving import listening
from pointsman.picker.settings.options import Options
from pointsman.store import Store
from tests.picker.conftest import (
    PROCESS,
    Feed,
    Objects,
    command,
    free_ports,
    model,
    model_server,
    pod,
    pool,
    serving,
)


async def healthy(channel: grpc.aio.Channel, service: str, expected: bytes = b"\x08\x01") -> None:
    check = channel.unary_unary("/grpc.health.v1.Health/Check")
    name = service.encode()
    message = bytes((0x0A, len(name))) + name if name else b""
    deadline = asyncio.get_running_loop().time() + 10
    while True:
        with contextlib.suppress(grpc.aio.AioRpcError):
            if await check(message, timeout=1, wait_for_ready=True) == expected:
                return
        assert asyncio.get_running_loop().time() < deadline, "the picker did not become healthy"
        await asyncio.sleep(0.02)


async def get(path: Path, what: str) -> Any:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get(f"http://admin{what}") as response,
    ):
        return await response.json()


def head(*, end: bool) -> pb.ProcessingRequest:
    message = pb.ProcessingRequest()
    message.request_headers.end_of_stream = end
    message.request_headers.headers.headers.add(key=":path", raw_value=b"/v1/completions")
    message.protocol_config.request_body_mode = 4
    return message


METRICS = """\
vllm:num_requests_running{engine="0",model_name="base"} 3.0
vllm:num_requests_waiting{engine="0",model_name="base"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="base"} 0.25
vllm:lora_requests_info{max_lora="4",running_lora_adapters="a",waiting_lora_adapters=""} 1.0
"""


async def test_the_guides_command_line_serves_tls_health_and_metrics(folder: Path) -> None:
    async with model_server(lambda: METRICS) as port:
        mapped = {"pointsman.dev/ports": f"8000={port}"}
        feed = Feed(
            [pool(), pod("p0", "127.0.0.1", annotations=mapped), model("m", targets=[("a", None)])]
        )
        grpc_port, health_port, metrics_port = free_ports(3)
        async with (
            serving(feed, folder / "feed.sock"),
            command(
                *("-poolName", "pool", "-v", "4", f"-grpcPort={grpc_port}"),
                *("--grpcHealthPort", str(health_port), f"--metricsPort={metrics_port}"),
                *("--bind", "127.0.0.1", "--feed", f"unix:{folder}/feed.sock"),
                *("--admin-socket", str(folder / "admin.sock"), "-refreshMetricsInterval=50ms"),
            ) as process,
        ):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{health_port}") as channel:
                await healthy(channel, "inference-extension")
            assert feed.kinds.startswith("Pod.,InferencePool.inference.networking.k8s.io,")
            certificate = await asyncio.to_thread(certificate_of, grpc_port)
            credentials = grpc.ssl_channel_credentials(certificate.encode())
            async with grpc.aio.secure_channel(f"localhost:{grpc_port}", credentials) as channel:
                await healthy(channel, "envoy.service.ext_proc.v3.ExternalProcessor")
                process_call = channel.stream_stream(
                    PROCESS,
                    request_serializer=pb.ProcessingRequest.SerializeToString,
                    response_deserializer=pb.ProcessingResponse.FromString,
                )
                stream = process_call(timeout=10)
                await stream.write(head(end=False))
                data = b'{"model":"m","prompt":"hi"}'
                part = pb.HttpBody(body=data, end_of_stream=True)
                await stream.write(pb.ProcessingRequest(request_body=part))
                answer = (await stream.read()).request_headers.response.header_mutation
                values = {h.header.key: h.header.raw_value for h in answer.set_headers}
                assert values["x-gateway-destination-endpoint"] == f"127.0.0.1:{port}".encode()
                echoed = (await stream.read()).request_body.response.body_mutation
                assert echoed.streamed_response.body == b'{"model":"a","prompt":"hi"}'
            rows = await get(folder / "admin.sock", "/endpoints")
            assert rows[0]["queue"] == 2
            assert rows[0]["adapters"] == ["a"]
            (decision,) = await get(folder / "admin.sock", "/decisions")
            assert (decision["model"], decision["target"]) == ("m", "a")
            assert decision["totals"]
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{metrics_port}/metrics") as response,
            ):
                text = await response.text()
            assert 'inference_pool_average_queue_size{name="pool"} 2' in text
            assert 'request_total{model_name="m",target_model_name="a"} 1' in text
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 5) == 0


def certificate_of(port: int) -> str:
    import ssl

    return ssl.get_server_certificate(("127.0.0.1", port))


async def test_a_certificate_that_is_given_is_served_and_taken_up_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "CERTIFICATE_INTERVAL_S", 0.01)

    def give(name: str) -> str:
        certificate, key = self_signed(name, (name,))
        (folder / "tls.key").write_bytes(key)
        (folder / "tls.crt").write_bytes(certificate)
        return certificate.decode().strip()

    first = give("first.example")
    port, health_port, metrics_port = free_ports(3)
    options = Options(
        pool_name="pool",
        bind="127.0.0.1",
        cert_path=folder,
        grpc_port=port,
        grpc_health_port=health_port,
        metrics_port=metrics_port,
    )
    store = Store()
    picker = Picker(options, store, Objects(store))

    async def served() -> str:
        return (await asyncio.to_thread(certificate_of, port)).strip()

    async with picker.running():
        assert await served() == first
        second = give("second.example")
        async with asyncio.timeout(5):
            while await served() != second:
                pass
        (folder / "tls.crt").write_text("broken")
        assert await served() == second


async def test_it_drains_when_its_parent_ends(folder: Path) -> None:
    feed = Feed([pool(), pod("p0", "127.0.0.1")])
    async with (
        serving(feed, folder / "feed.sock"),
        command(
            *("--listen", f"unix:{folder}/p.sock", "--feed", f"unix:{folder}/feed.sock"),
            "--exit-with-parent",
            stdin=asyncio.subprocess.PIPE,
        ) as process,
        grpc.aio.insecure_channel(f"unix:{folder}/p.sock") as channel,
    ):
        await healthy(channel, "")
        process_call = channel.stream_stream(
            PROCESS,
            request_serializer=pb.ProcessingRequest.SerializeToString,
            response_deserializer=pb.ProcessingResponse.FromString,
        )
        stream = process_call(metadata=(("x-pointsman-pool", "default/pool"),), timeout=10)
        await stream.write(head(end=True))
        await stream.read()
        assert process.stdin is not None
        process.stdin.close()
        assert await stream.read() is grpc.aio.EOF
        assert (await stream.code()) is grpc.StatusCode.OK
        assert await asyncio.wait_for(process.wait(), 5) == 0


async def test_a_wrong_command_line_says_what_to_write() -> None:
    async with command("--poolNam", "x") as process:
        _, errors = await asyncio.wait_for(process.communicate(), 10)
        assert process.returncode == 2
        assert "did you mean --poolName?" in errors.decode()
