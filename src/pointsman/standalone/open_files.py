"""How many files and connections the processes of an instance may have open."""

from __future__ import annotations

import resource
from contextlib import suppress

MOST = 1_048_576
"""Enough for every limit of ours; some systems take no larger one."""


def raise_open_files() -> int:
    """Take as many as the system grants without asking for more rights; returns how many.

    Shells start programs with 1,024 on many systems. A request that is held open takes two in
    Envoy, so a few hundred streams would use that up. Children inherit the limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
