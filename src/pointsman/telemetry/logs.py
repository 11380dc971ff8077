"""Logs of a command: on stderr, quiet by default."""

from __future__ import annotations

import logging
import sys

FORMAT = "%(asctime)s %(levelname).1s %(message)s"
DETAILED = "%(asctime)s.%(msecs)03d %(levelname).1s %(name)s: %(message)s"


def configure(verbosity: int) -> None:
    """Log to stderr: what changes and what is wrong; with `verbosity` also why."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbosity else logging.INFO,
        format=DETAILED if verbosity else FORMAT,
        datefmt="%H:%M:%S",
    )
    # Libraries speak up only when something is wrong.
    for name in ("asyncio", "aiohttp", "watchfiles", "grpc"):
        logging.getLogger(name).setLevel(logging.WARNING)
