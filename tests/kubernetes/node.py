"""The node of a cluster for tests: `python -m tests.kubernetes.node`, which `Cluster` starts.

It stands in for what a machine with containers does: the scheduler (every pod goes to this node),
the kubelet, kube-proxy, the DNS of the cluster and a cloud's load balancer. All else of the cluster
is real. Nothing is pulled and there are no images: `images.py` says what runs in whose place.

Real are a pod's own network with an address, its name, processes, files, volumes, users,
capabilities, sysctls, probes, hooks, the order of its containers and its end. Not there: limits of
memory and CPU, seccomp, IPv6, UDP Services, node ports, more than one node, volumes that outlive a
pod, and what kubectl needs for exec and port-forward; logs are there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path

import uvloop
from aiohttp import web

from tests.kubernetes import linux
from tests.kubernetes.api import PAUSE_S, UNREACHABLE, Api, ApiError, Object
from tests.kubernetes.names import Names
from tests.kubernetes.network import Network, Outside
from tests.kubernetes.pods import Pods
from tests.kubernetes.services import Services

NAME = "node"
READY_FILE = "node.json"
HEARTBEAT_S = 20.0
FOLLOW_S = 0.2

_log = logging.getLogger("node")


async def run(folder: Path, api_port: int, outside: Outside) -> None:
    """Be the node until this process ends."""
    network = Network()
    await network.set_up()
    async with Api(f"https://127.0.0.1:{api_port}", folder, outside) as api:
        services = Services(api, outside, api_port)
        pods = Pods(api, network, services, NAME, folder)
        logs_port = await _serve_logs(folder, outside)
        async with asyncio.TaskGroup() as group:
            group.create_task(services.run())
            await services.services.is_filled.wait()
            await Names(services).start()
            group.create_task(_be_listed(api, logs_port))
            group.create_task(pods.run())
            about = {"pid": os.getpid(), "balancers": services.network}
            fresh = folder / f"{READY_FILE}.new"
            fresh.write_text(json.dumps(about))
            fresh.replace(folder / READY_FILE)


async def _be_listed(api: Api, logs_port: int) -> None:
    """Keep the Node object there, and its heartbeat fresh."""
    node: Object = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NAME, "labels": {"kubernetes.io/hostname": NAME}},
    }
    while True:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        room = {"cpu": "64", "memory": "256Gi", "pods": "250", "ephemeral-storage": "256Gi"}
        status = {
            "conditions": [{**ready, "lastHeartbeatTime": now, "lastTransitionTime": now}],
            # Where the API server finds the logs; pods see the node under another address.
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": logs_port}},
            "capacity": room,
            "allocatable": room,
        }
        try:
            try:
                await api.request("POST", "/api/v1/nodes", node)
            except ApiError as error:
                if error.status != 409:
                    raise
            await api.patch_status(f"/api/v1/nodes/{NAME}", status)
        except (ApiError, *UNREACHABLE) as error:
            _log.warning("node: %s", error)
            await asyncio.sleep(PAUSE_S)
            continue
        await asyncio.sleep(HEARTBEAT_S)


async def _serve_logs(folder: Path, outside: Outside) -> int:
    """The part of a kubelet's API that `kubectl logs` needs; returns its port."""

    async def logs(request: web.Request) -> web.StreamResponse:
        about = request.match_info
        place = folder / "pods" / about["namespace"] / about["pod"]
        found = sorted(
            place.glob(f"{about['container']}.*.log"), key=lambda path: int(path.suffixes[-2][1:])
        )
        is_previous = request.query.get("previous") == "true"
        if len(found) <= is_previous:
            raise web.HTTPNotFound(text="there is no such log")
        answer = web.StreamResponse(headers={"content-type": "text/plain"})
        await answer.prepare(request)
        with found[-2 if is_previous else -1].open("rb") as log:
            content = log.read()
            if "tailLines" in request.query:
                lines = content.splitlines(keepends=True)
                content = b"".join(lines[len(lines) - int(request.query["tailLines"]) :])
            await answer.write(content)
            while request.query.get("follow") == "true":
                await answer.write(log.read())
                await asyncio.sleep(FOLLOW_S)
        return answer

    app = web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", logs)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "apiserver.crt", folder / "apiserver.key")
    listener = outside.listener("127.0.0.1", 0)
    await web.SockSite(runner, listener, ssl_context=context).start()
    port: int = listener.getsockname()[1]
    return port


def main() -> int:
    """Never ends by itself; the exit code tells that it could not go on."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True, help="of the cluster")
    parser.add_argument("--api-port", type=int, required=True, help="on 127.0.0.1")
    given = parser.parse_args()
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
    )
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    linux.unshare(linux.NEW_NETWORK)
    uvloop.run(run(given.folder, given.api_port, Outside(here)))
    return 1


if __name__ == "__main__":
    sys.exit(main())
