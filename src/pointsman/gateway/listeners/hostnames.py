"""Which hostnames a listener and a route have in common.

Rule (Gateway API, HTTPRoute.spec.hostnames): a wildcard `*.example.com` stands for one or more
labels before `example.com`, never for `example.com` itself; a listener or route without hostname
takes any.

>>> intersection("*.example.com", "a.b.example.com")
'a.b.example.com'
>>> intersection("*.example.com", "example.com") is None
True
>>> intersection("*", "*.example.com")
'*.example.com'
>>> intersection("*.example.com", "*.a.example.com")
'*.a.example.com'
"""

from __future__ import annotations

from collections.abc import Sequence

ANY = "*"


def intersection(one: str, other: str) -> str | None:
    """The hostnames that both take, as one hostname; None where there are none."""
    if covers(one, other):
        return other
    return one if covers(other, one) else None


def covers(pattern: str, hostname: str) -> bool:
    """Whether everything that `hostname` stands for is taken by `pattern`."""
    if ANY in (pattern, hostname):
        return pattern == ANY
    if not pattern.startswith("*."):
        return pattern.lower() == hostname.lower()
    return hostname.lower().endswith(pattern[1:].lower())


def common(listener_hostname: str, route_hostnames: Sequence[str]) -> tuple[str, ...]:
    """The hostnames under which a route is served on a listener."""
    if not route_hostnames:
        return (listener_hostname,)
    found = (intersection(listener_hostname, hostname) for hostname in route_hostnames)
    return tuple(dict.fromkeys(hostname for hostname in found if hostname is not None))


def specificity(hostname: str) -> tuple[int, int, str]:
    """Sorts exact names before wildcards, longer before shorter, and the catch-all last."""
    rank = 2 if hostname == ANY else 1 if hostname.startswith("*.") else 0
    return (rank, -len(hostname), hostname)
