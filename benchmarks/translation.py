"""What a change costs the control plane's core: CPU and memory with many routes and pools.

    python benchmarks/translation.py --routes 5000 --pools 1000

Half of the routes lead to pools, half to a Service, over 50 hostnames of one listener. Everything
is compared with a whole translation of the same objects in the same run.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable, Iterator

from pointsman.gateway.options import Options
from pointsman.gateway.statuses.facts import EnvoyFacts, Memory
from pointsman.gateway.statuses.objects import statuses
from pointsman.gateway.translate import Translation, translate
from pointsman.resources.core import Pod
from pointsman.resources.gateway_api import HTTPRoute
from pointsman.resources.parse import parse_text
from pointsman.store import Store

HOSTNAMES = 50
OPTIONS = Options(
    bind_address="127.0.0.1",
    advertised_address="127.0.0.1",
    own_picker_socket="/run/picker.sock",
    is_alone=True,
)
GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: llm}
spec:
  gatewayClassName: any
  listeners: [{name: http, port: 8080, protocol: HTTP}]
---
apiVersion: v1
kind: Service
metadata: {name: plain}
spec: {selector: {app: m0}, ports: [{port: 80, targetPort: 8000}]}
"""


def texts(routes: int, pools: int) -> Iterator[str]:
    """The manifests."""
    yield GATEWAY
    for number in range(pools):
        yield (
            "apiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\n"
            f"metadata: {{name: p{number}}}\n"
            "spec:\n  targetPorts: [{number: 80}]\n"
            f"  selector: {{matchLabels: {{app: m{number}}}}}\n"
        )
        address = f"10.1.{number // 250}.{number % 250 + 1}"
        yield (
            "apiVersion: v1\nkind: Pod\n"
            f"metadata: {{name: m{number}, labels: {{app: m{number}}}}}\n"
            f"status: {{podIP: {address}, conditions: [{{type: Ready, status: 'True'}}]}}\n"
        )
    for number in range(routes):
        pool = f"group: inference.networking.k8s.io, kind: InferencePool, name: p{number % pools}"
        yield (
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n"
            f"metadata: {{name: r{number}}}\nspec:\n  parentRefs: [{{name: llm}}]\n"
            f"  hostnames: [h{number % HOSTNAMES}.example.com]\n  rules:\n"
            f"    - matches: [{{path: {{type: Exact, value: /r/{number}}}}}]\n"
            f"      backendRefs: [{{{pool if number % 2 else 'name: plain, port: 80'}}}]\n"
        )


def loaded(routes: int, pools: int) -> Store:
    """A store with all of them."""
    store = Store()
    found = (item.resource for text in texts(routes, pools) for item in parse_text(text, "-"))
    store.apply(item for item in found if item is not None)
    return store


def change_route(store: Store, number: int) -> None:
    """Another hostname for one route."""
    route = store.get(HTTPRoute, "default", f"r{number}")
    if route is None:
        raise SystemExit(f"there is no route {number}")
    spec = route.spec.model_copy(update={"hostnames": (f"x{number % HOSTNAMES}.example.com",)})
    store.apply([route.model_copy(update={"spec": spec})])


def change_pod(store: Store, number: int) -> None:
    """Another address for one model server."""
    pod = store.get(Pod, "default", f"m{number}")
    if pod is None:
        raise SystemExit(f"there is no pod {number}")
    store.apply([pod.with_status({**(pod.status or {}), "podIP": f"10.2.0.{number + 1}"})])


def cost(
    store: Store,
    found: Translation,
    memory: Memory,
    change: Callable[[Store, int], None],
    times: int,
) -> tuple[Translation, float]:
    """The median CPU of a change: its translation and the statuses."""
    seconds = []
    for number in range(times):
        change(store, number)
        began = time.process_time()
        found = translate(store, OPTIONS, found)
        statuses(store, found, EnvoyFacts(connected=1), OPTIONS, memory)
        seconds.append(time.process_time() - began)
    return found, statistics.median(seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--routes", type=int, default=5000)
    parser.add_argument("--pools", type=int, default=1000)
    parser.add_argument("--changes", type=int, default=15)
    options = parser.parse_args()
    empty = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store = loaded(options.routes, options.pools)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = Memory()
    began = time.process_time()
    found = translate(store, OPTIONS)
    statuses(store, found, EnvoyFacts(connected=1), OPTIONS, memory)
    whole = time.process_time() - began
    found, route = cost(store, found, memory, change_route, options.changes)
    found, pod = cost(store, found, memory, change_pod, options.changes)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{options.routes} routes, {options.pools} pools, CPU of translation and statuses:")
    print(f"  whole: {whole * 1e3:.0f} ms")
    print(f"  one changed route: {route * 1e3:.1f} ms, {route / whole:.3f} of the whole")
    print(f"  one moved pod: {pod * 1e3:.1f} ms, {pod / whole:.3f} of the whole")
    print(f"memory: objects {(held - empty) / 1024:.0f} MiB, with all of the rest at its peak")
    print(f"  {(peak - empty) / 1024:.0f} MiB, over {empty / 1024:.0f} MiB of an empty process")


if __name__ == "__main__":
    main()
