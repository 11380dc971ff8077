"""Requests that do not stop while something happens, and what became of each."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pointsman.cluster.envoys import ADMIN_SOCKET
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.installation import Door

ENVOY_TELLS = (
    "clusters",
    *(
        f"config_dump?include_eds&resource=dynamic_{kind}"
        for kind in ("active_clusters", "warming_clusters", "endpoint_configs", "route_configs")
    ),
)
SHOWN_FAILURES = 20
WORKERS = 4
MOST = 200_000
"""Requests in all; a test that goes on for too long does not go on for ever."""
REQUEST_S = 30.0
LOOK_S = 0.1


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
    """Ask for completions for as long as the context lasts; fail at its end if any request failed.

    The first failure is the moment to look at what the Envoys have: that is in the message, and
    also in that of a test that fails inside of the context.
    """
    scene: list[str] = []
    is_over = threading.Event()

    def watch(load: Load) -> None:
        while not is_over.wait(LOOK_S):
            if load.failures:
                scene.extend(_told_by_envoys(cluster))
                return

    with _asking(door, model) as load:
        watcher = threading.Thread(target=watch, args=(load,), daemon=True)
        watcher.start()
        try:
            yield load
        except AssertionError as error:
            error.add_note("\n".join(_told_by_envoys(cluster)))
            raise
        finally:
            is_over.set()
            watcher.join(REQUEST_S)
    failures = load.failures
    shown = "\n".join((*failures[:SHOWN_FAILURES], *scene))
    assert not failures, f"{len(failures)} failed and {load.answered} did not:\n{shown}"


def _told_by_envoys(cluster: Cluster) -> Iterator[str]:
    for pod in cluster.find("pods", "default", "gateway.networking.k8s.io/gateway-name"):
        name = pod["metadata"]["name"]
        for path in ENVOY_TELLS:
            command = ("curl", "-s", "--unix-socket", str(ADMIN_SOCKET), f"http://envoy/{path}")
            yield f"--- {name} at {_now()}: {path}"
            try:
                yield cluster.exec(name, *command, container="envoy")
            except (AssertionError, OSError, ValueError) as error:
                yield repr(error)


def _now() -> str:
    return datetime.now(UTC).strftime("%H:%M:%S.%f")


@contextmanager
def _asking(door: Door, model: str) -> Iterator[Load]:
    """Ask from several sides.

    Half of the workers keep their connection while the gateway does; the others take a new one for
    each request.
    """
    load = Load()
    stop = threading.Event()
    workers = [
        threading.Thread(
            target=_work,
            args=(door, model, load, stop, number % 2 == 0),
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
            load.note(None if answer.status == 200 else f"{_now()} {answer.status} {text[:200]!r}")
            is_over = not keeps or answer.getheader("connection", "").lower() == "close"
        except (OSError, http.client.HTTPException) as error:
            load.note(f"{_now()} {type(error).__name__}: {error}")
            is_over = True
        if is_over:
            connection.close()
            connection = None
        # A client that asks without any pause would only measure itself.
        stop.wait(0.01)
    if connection is not None:
        connection.close()
