"""Requests that do not stop while something happens, and what became of each."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.installation import NAMESPACE, Door

ADMIN_SOCKET = "/run/pointsman/envoy-admin.sock"
ENVOY_TELLS = ("clusters", "config_dump?include_eds", "stats?usedonly")
WORKERS = 4
MOST = 200_000
"""Requests in all; a test that goes on for too long does not go on for ever."""
REQUEST_S = 30.0


@dataclass
class Load:
    """Counts of what was asked and answered."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, failure: str | None) -> None:
        with self.lock:
            if failure is None:
                self.answered += 1
            else:
                self.failures.append(failure)


@contextmanager
def no_request_fails(cluster: Cluster, door: Door, model: str) -> Iterator[Load]:
    """Ask as `under_load` does, and fail at the end if any request failed.

    The first failure is the moment to look at what Envoys and controllers have: what they had then
    is in the message.
    """
    scene: list[str] = []

    def look(load: Load) -> None:
        while not done.wait(0.05):
            if load.failures:
                scene.append(_scene(cluster))
                return

    done = threading.Event()
    with under_load(door, model) as load:
        watcher = threading.Thread(target=look, args=(load,), daemon=True)
        watcher.start()
        try:
            yield load
        finally:
            done.set()
            watcher.join(REQUEST_S)
    assert load.failures == [], (
        f"{len(load.failures)} beside {load.answered}\n"
        + "\n".join(load.failures[:400])
        + "\n".join(scene)
    )


def _scene(cluster: Cluster) -> str:
    lines = [time.strftime("%H:%M:%S")]
    for pod in cluster.find("pods", "default", "gateway.networking.k8s.io/gateway-name"):
        name, ip = pod["metadata"]["name"], pod["status"].get("podIP")
        for path in ENVOY_TELLS:
            command = ("curl", "-s", "--unix-socket", ADMIN_SOCKET, f"http://envoy/{path}")
            lines.append(f"--- {name} {ip} {time.strftime('%H:%M:%S')} {path}")
            try:
                lines.append(cluster.exec(name, *command, container="envoy"))
            except (AssertionError, OSError, ValueError) as error:
                lines.append(f"{error!r}")
    return "\n".join((*lines, cluster.story(NAMESPACE), cluster.story("default")))


@contextmanager
def under_load(door: Door, model: str, *, keeps_connections: bool = True) -> Iterator[Load]:
    """Ask for completions from several sides for as long as the context lasts.

    Half of the workers keep their connection while the gateway does; the others take a new one for
    each request.
    """
    load = Load()
    stop = threading.Event()
    workers = [
        threading.Thread(
            target=_work,
            args=(door, model, load, stop, keeps_connections and number % 2 == 0),
            daemon=True,
        )
        for number in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    try:
        yield load
    finally:
        stop.set()
        for worker in workers:
            worker.join(REQUEST_S)


def _work(door: Door, model: str, load: Load, stop: threading.Event, keeps: bool) -> None:
    body = json.dumps({"model": model, "prompt": "Say something.", "max_tokens": 2})
    connection: http.client.HTTPConnection | None = None
    while not stop.is_set() and load.answered < MOST:
        if connection is None:
            connection = http.client.HTTPConnection(door.host, door.port, timeout=REQUEST_S)
        try:
            connection.request(
                "POST", "/v1/completions", body, {"content-type": "application/json"}
            )
            answer = connection.getresponse()
            text = answer.read()
            load.note(
                None
                if answer.status == 200
                else f"{time.time():.3f} {answer.status} {dict(answer.getheaders())} {text[:200]!r}"
            )
            is_over = not keeps or answer.getheader("connection", "").lower() == "close"
        except (OSError, http.client.HTTPException) as error:
            load.note(f"{type(error).__name__}: {error}")
            is_over = True
        if is_over:
            connection.close()
            connection = None
        # A client that asks without any pause would only measure itself.
        stop.wait(0.01)
    if connection is not None:
        connection.close()
