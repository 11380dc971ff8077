"""What the picker costs: CPU per request without a socket, and the time of a decision.

Run: `python benchmarks/picker.py [--quick]`. Each figure is the mean of many requests in this
process; the ratios are against the same messages merely parsed by protobuf in the same run.

With `--soak N` it shows the resident memory over N requests instead, each with a prompt of its own;
some are aborted, some broken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from pointsman.inference.models import PoolModels, ServedModel, Target
from pointsman.picker.director import Director
from pointsman.picker.endpoints.measures import Measures, read_measures
from pointsman.picker.endpoints.table import Endpoint, Place, Table
from pointsman.picker.extproc.service import PROCESS, ExtProc
from pointsman.picker.pools import Pools, PoolView
from pointsman.picker.prefix.index import MAX_BLOCKS, PrefixIndex
from pointsman.picker.report import Report
from pointsman.picker.scheduling.profile import DEFAULT, choose
from pointsman.picker.scheduling.request import Wanted
from pointsman.resources.base import Ref
from pointsman.store import Store
from pointsman.wire import frames
from pointsman.wire.grpc import Channel, framed
from pointsman.wire.headers import literal
from pointsman.wire.http2 import Connection

BUFFERED, FULL_DUPLEX = 2, 4
HEADERS = {
    ":method": "POST",
    ":scheme": "http",
    ":authority": "gateway:8081",
    ":path": "/v1/chat/completions",
    "user-agent": "benchmark/1",
    "content-type": "application/json",
    "content-length": "2048",
    "authorization": "Bearer 0123456789",
    "x-forwarded-for": "10.0.0.1",
    "x-forwarded-proto": "http",
    "x-envoy-internal": "true",
    "x-request-id": "00000000-0000-0000-0000-000000000000",
    "accept": "*/*",
}
BLOCK = b"\x20" + b"".join(
    literal(name, value)
    for name, value in (
        (b":method", b"POST"),
        (b":path", PROCESS),
        (b":authority", b"picker"),
        (b":scheme", b"http"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"x-pointsman-pool", b"default/pool"),
    )
)


class FixedPools(Pools):
    """One pool that does not change."""

    def __init__(self, endpoints: int, target: str) -> None:
        super().__init__(Store(), Table())
        served = ServedModel("m", 1, (Target(target, 1),), Ref("", "", "", ""))
        made = tuple(make_endpoint(number) for number in range(endpoints))
        self.view = PoolView("default", "pool", PoolModels({"m": served}), made, endpoints)

    def get(self, key: str) -> PoolView | None:
        """Always the same."""
        return self.view


def make_endpoint(number: int) -> Endpoint:
    """An endpoint with some load."""
    rng = random.Random(number)
    it = Endpoint(Place(f"10.0.{number // 250}.{number % 250 + 1}", 8000, "default", f"p{number}"))
    it.measures = Measures(
        at=0.0,
        waiting=rng.choice((0, 0, 0, 1, 2)),
        running=rng.randrange(20),
        kv_cache=rng.random() * 0.7,
        running_adapters=frozenset({f"lora-{number % 4}"}),
        max_adapters=4,
        base_models=frozenset({"m"}),
    )
    return it


def frame_all(stream: int, data: bytes) -> bytes:
    """A message as DATA frames."""
    whole = framed(data)
    step = frames.DEFAULT_FRAME_BYTES
    return b"".join(
        frames.frame(frames.DATA, 0, stream, whole[at : at + step])
        for at in range(0, len(whole), step)
    )


def messages(mode: int, body: bytes) -> tuple[bytes, list[bytes]]:
    """The headers message, and the body's."""
    head = pb.ProcessingRequest()
    for name, value in HEADERS.items():
        head.request_headers.headers.headers.add(key=name, raw_value=value.encode())
    head.protocol_config.request_body_mode = mode
    step = len(body) if mode == BUFFERED else 32_768
    parts = [
        pb.ProcessingRequest(
            request_body=pb.HttpBody(
                body=body[at : at + step], end_of_stream=at + step >= len(body)
            )
        ).SerializeToString()
        for at in range(0, len(body), step)
    ]
    return head.SerializeToString(), parts


@dataclass
class Case:
    """One kind of request."""

    name: str
    mode: int
    size: int
    target: str


CASES = [
    Case(f"{label} {size_label}{' rewritten' if target != 'm' else ''}", mode, size, target)
    for label, mode in (("buffered", BUFFERED), ("full duplex", FULL_DUPLEX))
    for size_label, size in (("2 KB", 2_000), ("20 KB", 20_000), ("220 KB", 220_000))
    for target in ("m", "m-lora")
]


def chat(size: int) -> bytes:
    """A chat request of about so many bytes, with the escapes of prose."""
    text = ('The quick brown fox said "jump".\n' * (size // 33 + 1))[: size - 150]
    fields = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "You are helpful."},
            {"role": "user", "content": text},
        ],
        "max_tokens": 100,
        "temperature": 0.7,
        "stream": True,
    }
    return json.dumps(fields).encode()


def cpu_us(case: Case, repeat: int) -> tuple[float, float]:
    """CPU of one request in microseconds: all of it, and protobuf's parsing of its messages."""
    ext_proc = ExtProc(Director(FixedPools(16, case.target), random.Random(1)), Report())
    connection = Connection()
    channel = Channel(ext_proc.methods(), connection, lambda: None)
    channel.receive(
        frames.PREFACE
        + frames.settings({frames.SETTINGS_INITIAL_WINDOW_SIZE: 2**31 - 1})
        + frames.window_update(0, 2**30)
    )
    head, parts = messages(case.mode, chat(case.size))
    scripts = []
    for number in range(repeat):
        stream = 2 * number + 1
        scripts.append(
            (
                frames.frame(frames.HEADERS, frames.END_HEADERS, stream, BLOCK)
                + frame_all(stream, head),
                b"".join(frame_all(stream, part) for part in parts),
                frames.frame(frames.DATA, frames.END_STREAM, stream, b"")
                + frames.reset(stream, frames.ErrorCode.INTERNAL_ERROR),
            )
        )
    sent = 0
    started = time.process_time()
    for script in scripts:
        for piece in script:
            # A socket gives at most 256 KiB at once.
            for at in range(0, len(piece), 262_144):
                channel.receive(piece[at : at + 262_144])
                sent += len(connection.take_output())
            if sent > 2**29:
                channel.receive(frames.window_update(0, sent))
                sent = 0
    total = time.process_time() - started
    if len(ext_proc.director.ring) != min(repeat, 1000) or channel.open_calls:
        raise RuntimeError("not every request was answered")
    started = time.process_time()
    for _ in range(repeat):
        for message in (head, *parts):
            pb.ProcessingRequest.FromString(message)
    parsing = time.process_time() - started
    return total / repeat * 1e6, parsing / repeat * 1e6


def quantiles_us(action: Callable[[], object], repeat: int) -> tuple[float, float]:
    """Median and 99th percentile of an action's wall time, in microseconds."""
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    times.sort()
    return times[repeat // 2] * 1e6, times[repeat * 99 // 100] * 1e6


PER_CONNECTION = 50_000
STEPS = 20


def resident_mb() -> float:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def one(channel: Channel, stream: int, rng: random.Random) -> None:
    """A request of its own kind, to its end."""
    prompt = "".join(rng.choices("abcdefghij ", k=64)) * rng.randrange(1, 40)
    name = "m" if rng.random() < 0.9 else f"unknown-{stream}"
    body = json.dumps({"model": name, "prompt": prompt, "user": stream}).encode()
    head, parts = messages(BUFFERED, body)
    kind = rng.random()
    said = [frames.frame(frames.HEADERS, frames.END_HEADERS, stream, BLOCK)]
    if kind < 0.02:
        said.append(frame_all(stream, b"broken"))
    else:
        said.append(frame_all(stream, head))
        said += [frame_all(stream, part) for part in parts]
    if kind < 0.9:
        said.append(frames.frame(frames.DATA, frames.END_STREAM, stream, b""))
    said.append(frames.reset(stream, frames.ErrorCode.INTERNAL_ERROR))
    channel.receive(b"".join(said))


def soak(count: int) -> None:
    """Memory over many requests; exits with an error if the second half has grown it by a tenth."""
    rng = random.Random(1)
    ext_proc = ExtProc(Director(FixedPools(16, "m-lora"), rng), Report())
    sizes: list[float] = []
    started = time.monotonic()
    for number in range(count):
        if number % PER_CONNECTION == 0:
            connection = Connection()
            channel = Channel(ext_proc.methods(), connection, lambda: None)
            channel.receive(frames.PREFACE + frames.window_update(0, 2**30))
        one(channel, number % PER_CONNECTION * 2 + 1, rng)
        connection.take_output()
        if (number + 1) % (count // STEPS) == 0:
            sizes.append(resident_mb())
            print(f"{number + 1:>9} requests {sizes[-1]:>7.1f} MB", flush=True)
    view = ext_proc.director.pools.get("default/pool")
    if view is None or ext_proc.open_streams or any(e.requests for e in view.endpoints):
        sys.exit("some request has not ended")
    growth = sizes[-1] / sizes[STEPS // 2 - 1] - 1
    print(f"{growth:+.1%} in the second half, {time.monotonic() - started:.0f} s")
    if growth > 0.1:
        sys.exit("the memory has grown")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests")
    parser.add_argument("--soak", type=int, metavar="N", help="the memory over N requests")
    options = parser.parse_args()
    if options.soak:
        soak(options.soak)
        return
    scale = 10 if options.quick else 1
    print("CPU of one request, 16 endpoints        us    parsing us   ratio")
    for case in CASES:
        repeat = max(20, (4_000 if case.size < 100_000 else 400) // scale)
        cpu_us(case, repeat // 10)
        total, parsing = cpu_us(case, repeat)
        print(f"{case.name:<34} {total:>8.0f} {parsing:>12.1f} {total / parsing:>8.1f}")
    print("\nOne choice by the default profile       p50 us       p99 us")
    for count in (16, 256, 1024):
        endpoints = [make_endpoint(number) for number in range(count)]
        rng = random.Random(2)
        for model in ("m", "lora-1", "lora-new"):
            wanted = Wanted(model)
            p50, p99 = quantiles_us(
                lambda endpoints=endpoints, wanted=wanted, rng=rng: choose(  # type: ignore[misc]
                    DEFAULT, endpoints, wanted, rng
                ),
                2_000 // scale,
            )
            print(f"{count:>5} endpoints, {model:<16} {p50:>14.0f} {p99:>12.0f}")
    text = (
        b"".join(
            b'vllm:other_%d{engine="0",model_name="m"} 1.0\n' % number for number in range(1_200)
        )
        + b'vllm:num_requests_waiting{engine="0",model_name="m"} 1.0\n'
    )
    p50, p99 = quantiles_us(lambda: read_measures(text, 0.0), 1_000 // scale)
    before = resident_mb()
    index = PrefixIndex()
    servers, prompts = 100 // scale, MAX_BLOCKS // 32
    for server in range(servers):
        for _ in range(prompts):
            index.add(f"server-{server}", [rng.getrandbits(61) for _ in range(32)], 2**40)
    print(f"\n{index.blocks} blocks of {servers} servers: {resident_mb() - before:.0f} MB")
    print(f"Reading {len(text) // 1000} KB of metrics: p50 {p50:.0f} us, p99 {p99:.0f} us")


if __name__ == "__main__":
    main()
