"""What happens to requests when the server is told to end.

`vllm`, without a shutdown timeout: the port closes at once; running requests end at once, streams
with the finish reason `abort` and `[DONE]`, status 200.

`vllm`, with one: running requests go on; the port stays open and `/health` stays 200, but every
new request gets 500. That is how vLLM 0.32 behaves, and a trap for whoever trusts `/health`.

`graceful`: running requests go on, `/health` answers 503 and new requests get 503 with Retry-After,
as one would wish.
"""

from __future__ import annotations

import asyncio

from pointsman.modelserver.options import ServerOptions
from pointsman.modelserver.replica import Replica

_GRACEFUL_DEFAULT_S = 30.0
_ABORT_S = 2.0
"""How long aborted requests may take to tell their clients."""


def patience_s(options: ServerOptions) -> float:
    """How long running requests may go on."""
    if options.drain == "graceful":
        return options.shutdown_timeout_s or _GRACEFUL_DEFAULT_S
    return options.shutdown_timeout_s


def refuse_new(replica: Replica) -> None:
    """Makes a replica refuse what comes from now on, in the way of its drain."""
    if replica.options.drain == "graceful":
        replica.conduct.is_healthy = False
        replica.conduct.refuses_with = 503
    else:
        replica.conduct.refuses_with = 500


async def finish_running(replicas: list[Replica], timeout_s: float) -> None:
    """Waits until nothing is being answered, but no longer than that; then aborts the rest."""
    await _wait_idle(replicas, timeout_s)
    for replica in replicas:
        replica.driver.abort_all()
    await _wait_idle(replicas, _ABORT_S)


async def _wait_idle(replicas: list[Replica], timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            for replica in replicas:
                await replica.idle.wait()
    except TimeoutError:
        return  # what is left is aborted by the caller
