"""What the web framework beneath vLLM counts about HTTP requests, and the process about itself."""

from __future__ import annotations

import gc
import os
import platform
import resource
import sys
import time
from pathlib import Path

from pointsman.modelserver.histogram import HistogramLines, labels_text

_FINE_BOUNDS_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0,
    7.5, 10.0, 30.0, 60.0,
)  # fmt: skip
_COARSE_BOUNDS_S = (0.1, 0.5, 1.0)

_HANDLERS_LIMIT = 64
"""Different paths that are counted; the server has fewer."""


class _Route:
    """Counts of one path and method."""

    __slots__ = ("coarse", "created_s", "request_bytes", "requests", "response_bytes", "statuses")

    def __init__(self, labels: dict[str, str]) -> None:
        self.created_s = time.time()
        self.statuses: dict[str, int] = {}
        self.requests = 0
        self.request_bytes = 0
        self.response_bytes = 0
        self.coarse = HistogramLines("http_request_duration_seconds", labels, _COARSE_BOUNDS_S)


class HttpTraffic:
    """Counts requests by path, method and class of status."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str], _Route] = {}
        self._fine = HistogramLines("http_request_duration_highr_seconds", {}, _FINE_BOUNDS_S)
        self._created_s = time.time()

    def observe(
        self,
        path: str,
        method: str,
        status: int,
        duration_s: float,
        request_bytes: int,
        response_bytes: int,
    ) -> None:
        """Counts one answered request."""
        route = self._routes.get((path, method))
        if route is None:
            if len(self._routes) >= _HANDLERS_LIMIT:
                return
            route = _Route({"handler": path, "method": method})
            self._routes[(path, method)] = route
        kind = f"{status // 100}xx"
        route.statuses[kind] = route.statuses.get(kind, 0) + 1
        route.requests += 1
        route.request_bytes += request_bytes
        route.response_bytes += response_bytes
        route.coarse.histogram.observe(duration_s)
        self._fine.histogram.observe(duration_s)

    def write(self, lines: list[str]) -> None:
        """Appends the families in the text format."""
        self._write_requests(lines)
        self._write_sizes(lines, "http_request_size_bytes", "Bytes of request bodies.")
        self._write_sizes(lines, "http_response_size_bytes", "Bytes of plain answers.")
        name = "http_request_duration_highr_seconds"
        lines += [f"# HELP {name} Time to answer, finely.", f"# TYPE {name} histogram"]
        self._fine.write(lines)
        lines += [
            f"# HELP {name}_created Time to answer, finely.",
            f"# TYPE {name}_created gauge",
            f"{name}_created {self._created_s!r}",
        ]
        name = "http_request_duration_seconds"
        lines += [f"# HELP {name} Time to answer, by path.", f"# TYPE {name} histogram"]
        for route in self._routes.values():
            route.coarse.write(lines)
        self._write_created(lines, name, "Time to answer, by path.", with_method=True)

    def _write_requests(self, lines: list[str]) -> None:
        text = "Requests by method, status and path."
        lines += [f"# HELP http_requests_total {text}", "# TYPE http_requests_total counter"]
        created = []
        for (path, method), route in self._routes.items():
            for status, count in route.statuses.items():
                labels = labels_text({"handler": path, "method": method, "status": status})
                lines.append(f"http_requests_total{labels} {count}.0")
                created.append(f"http_requests_created{labels} {route.created_s!r}")
        if created:
            lines += [f"# HELP http_requests_created {text}", "# TYPE http_requests_created gauge"]
            lines += created

    def _write_sizes(self, lines: list[str], name: str, text: str) -> None:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} summary"]
        is_request = name == "http_request_size_bytes"
        for (path, _method), route in self._routes.items():
            labels = labels_text({"handler": path})
            total = route.request_bytes if is_request else route.response_bytes
            lines.append(f"{name}_count{labels} {route.requests}.0")
            lines.append(f"{name}_sum{labels} {total}.0")
        self._write_created(lines, name, text, with_method=False)

    def _write_created(self, lines: list[str], name: str, text: str, *, with_method: bool) -> None:
        if not self._routes:
            return
        lines += [f"# HELP {name}_created {text}", f"# TYPE {name}_created gauge"]
        for (path, method), route in self._routes.items():
            labels = {"handler": path, "method": method} if with_method else {"handler": path}
            lines.append(f"{name}_created{labels_text(labels)} {route.created_s!r}")


def write_process(lines: list[str], started_s: float) -> None:
    """Appends the families about the Python process."""
    stats = gc.get_stats()
    for name, key in (
        ("python_gc_objects_collected_total", "collected"),
        ("python_gc_objects_uncollectable_total", "uncollectable"),
        ("python_gc_collections_total", "collections"),
    ):
        lines += [f"# HELP {name} Garbage collection by generation.", f"# TYPE {name} counter"]
        for generation, entry in enumerate(stats):
            lines.append(f'{name}{{generation="{generation}"}} {float(entry[key])!r}')
    version = sys.version_info
    labels = {
        "implementation": platform.python_implementation(),
        "major": str(version.major),
        "minor": str(version.minor),
        "patchlevel": str(version.micro),
        "version": platform.python_version(),
    }
    lines += ["# HELP python_info The Python that runs this.", "# TYPE python_info gauge"]
    lines.append(f"python_info{labels_text(labels)} 1.0")
    times = os.times()
    virtual, resident = _memory_bytes()
    for name, kind, value in (
        ("process_virtual_memory_bytes", "gauge", virtual),
        ("process_resident_memory_bytes", "gauge", resident),
        ("process_start_time_seconds", "gauge", started_s),
        ("process_cpu_seconds_total", "counter", times.user + times.system),
        ("process_open_fds", "gauge", float(_open_files())),
        ("process_max_fds", "gauge", float(resource.getrlimit(resource.RLIMIT_NOFILE)[0])),
    ):
        lines += [f"# HELP {name} Of this process.", f"# TYPE {name} {kind}"]
        lines.append(f"{name} {value!r}")


def _memory_bytes() -> tuple[float, float]:
    """Virtual and resident memory; where there is no /proc, the peak of the latter for both."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        peak = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return peak, peak
    size = resource.getpagesize()
    return float(int(pages[0]) * size), float(int(pages[1]) * size)


def _open_files() -> int:
    """Open file descriptors; 0 where there is no /proc."""
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only, and quickly
    except OSError:
        return 0
