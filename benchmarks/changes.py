"""From a file written to the first answer by it, and requests lost while routes come and go.

    python benchmarks/changes.py [--routes 100] [--hostnames 1] [--changes 20] [--seconds 10]

The time is of the whole way: file system, parsing, translation, Envoy's acknowledgement, and the
request that meets the route. It is printed beside the time of one request over the same connection
in the same run.
"""

from __future__ import annotations

import argparse
import http.client
import shutil
import statistics
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from pointsman.cli.run import example_path
from tests.e2e.instances import Instance, running

GIVE_UP_S = 10.0
PORT = 8080


def hostname(number: int, hostnames: int) -> str:
    """The host of a route, where they are spread over several."""
    return f"h{number % hostnames}.example.com"


def route(number: int, hostnames: int = 1) -> str:
    """A route that answers by itself, so that nothing else is in the measurement."""
    return (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n"
        f"metadata: {{name: r{number}}}\n"
        "spec:\n  parentRefs: [{name: llm}]\n"
        f"  hostnames: [{hostname(number, hostnames)}]\n  rules:\n"
        f"    - matches: [{{path: {{type: Exact, value: /r/{number}}}}}]\n"
        "      filters:\n        - type: RequestRedirect\n"
        "          requestRedirect: {hostname: elsewhere.example.com, statusCode: 302}\n"
    )


def status_of(client: http.client.HTTPConnection, number: int, hostnames: int = 1) -> int:
    """The status of one GET that a route answers."""
    client.request("GET", f"/r/{number}", headers={"host": hostname(number, hostnames)})
    answer = client.getresponse()
    answer.read()
    return answer.status


def changes(
    folder: Path, instance: Instance, first: int, count: int, hostnames: int
) -> list[float]:
    """Seconds from writing each of `count` new files to the first answer by it."""
    client = http.client.HTTPConnection("127.0.0.1", instance.ports[PORT], timeout=GIVE_UP_S)
    found = []
    for number in range(first, first + count):
        began = time.perf_counter()
        (folder / f"r{number}.yaml").write_text(route(number, hostnames))
        while status_of(client, number, hostnames) != 302:
            if time.perf_counter() - began > GIVE_UP_S:
                raise SystemExit(f"route {number} did not come within {GIVE_UP_S:g} s")
        found.append(time.perf_counter() - began)
    return found


def round_trips(instance: Instance, count: int) -> list[float]:
    """Seconds of one request that Envoy answers by itself."""
    client = http.client.HTTPConnection("127.0.0.1", instance.ports[PORT], timeout=GIVE_UP_S)
    found = []
    for _ in range(count):
        began = time.perf_counter()
        status_of(client, 0)
        found.append(time.perf_counter() - began)
    return found


def churn(folder: Path, instance: Instance, seconds: float) -> tuple[Counter[int], int]:
    """Answers by status, and changes made, while a route comes and goes."""
    statuses: Counter[int] = Counter()
    stop = threading.Event()

    def load() -> None:
        client = http.client.HTTPConnection("127.0.0.1", instance.ports[PORT], timeout=GIVE_UP_S)
        while not stop.is_set():
            try:
                statuses[status_of(client, 0)] += 1
            except OSError:
                statuses[0] += 1
                client.close()

    workers = [threading.Thread(target=load) for _ in range(4)]
    for worker in workers:
        worker.start()
    made = 0
    path = folder / "churned.yaml"
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        path.write_text(route(900_000 + made))
        stop.wait(0.05)
        path.unlink()
        stop.wait(0.05)
        made += 2
    stop.set()
    for worker in workers:
        worker.join(GIVE_UP_S)
    return statuses, made


def main() -> None:
    """Run both measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--routes", type=int, default=100, help="routes that are there before")
    parser.add_argument("--hostnames", type=int, default=1, help="that the routes are spread over")
    parser.add_argument("--changes", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0, help="of coming and going")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "manifests"
        shutil.copytree(example_path(), folder)
        for number in range(options.routes):
            (folder / f"r{number}.yaml").write_text(route(number, options.hostnames))
        with running(folder, ports=(PORT,)) as instance:
            times = changes(folder, instance, options.routes, options.changes, options.hostnames)
            trips = round_trips(instance, 200)
            statuses, made = churn(folder, instance, options.seconds)
    median, trip = statistics.median(times), statistics.median(trips)
    print(
        f"file to answer, {options.routes} routes, {options.hostnames} hostnames: "
        f"median {median * 1e3:.1f} ms,"
    )
    print(
        f"  slowest of {len(times)}: {max(times) * 1e3:.1f} ms; one request: {trip * 1e3:.2f} ms;"
    )
    print(f"  ratio {median / trip:.0f}")
    lost = sum(count for status, count in statuses.items() if status != 302)
    print(f"lost while routes came and went: {lost} of {statuses.total()}, {made} changes")


if __name__ == "__main__":
    main()
