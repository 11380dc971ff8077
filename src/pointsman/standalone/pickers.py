"""The picker that one machine provides to pools whose own is not there, and what pickers tell.

One process serves every such pool. It is started when the first pool needs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp

from pointsman.admin.providers import EndpointRow
from pointsman.gateway.translate import Translation
from pointsman.standalone.outputs import Outputs
from pointsman.standalone.processes import Command, Process, own_command
from pointsman.store import Store

ASK_TIMEOUT_S = 2.0
POLL_S = 0.05
NAME = "picker"


class ProvidedPicker:
    """Our own picker as a child process, while a pool needs it."""

    def __init__(
        self,
        folder: Path,
        feed: Path,
        outputs: Outputs,
        translation: Callable[[], Translation | None],
    ) -> None:
        self.admin_socket = folder / "picker-admin.sock"
        arguments = (
            *("--listen", f"unix:{folder / 'picker.sock'}"),
            *("--feed", f"unix:{feed}"),
            *("--admin-socket", str(self.admin_socket)),
        )
        self.process = Process(
            Command(NAME, own_command("picker", arguments)), outputs.of(NAME), self._on_change
        )
        self._translation = translation
        self._is_serving = False

    @property
    def is_wanted(self) -> bool:
        """Some pool is picked for by us."""
        found = self._translation()
        return found is not None and any(item.asks_own_picker for item in found.pools.values())

    async def is_ready(self) -> bool:
        """It serves and knows every endpoint that Envoy knows, or nobody needs it."""
        found = self._translation()
        if not self.is_wanted or found is None:
            return True
        known = {row["address"] for row in await endpoint_rows([self.admin_socket])}
        wanted = {
            f"{address.host}:{address.port}"
            for item in found.pools.values()
            if item.asks_own_picker
            for address in item.servers
        }
        return self._is_serving and wanted <= known

    async def run(self, store: Store) -> None:
        """Wait until it is needed, then keep it running until cancelled."""
        with store.subscribe() as subscription:
            while not self.is_wanted:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await subscription.batch()
        async with self.process.running():
            while True:
                if not self._is_serving:
                    self._is_serving = await _is_serving(self.admin_socket)
                await self.process.changed(POLL_S if not self._is_serving else 1.0)

    def _on_change(self) -> None:
        self._is_serving = False


async def endpoint_rows(sockets: Iterable[Path]) -> list[EndpointRow]:
    """What the pickers behind `sockets` know of their endpoints; one that is silent is left out."""
    answers = await asyncio.gather(*(_get(path, "/endpoints") for path in sockets))
    rows: dict[tuple[str, str], EndpointRow] = {}
    for row in (row for answer in answers for row in answer):
        found = EndpointRow(
            pool=row["pool"],
            name=row["pod"],
            address=row["endpoint"],
            is_ready=row["ready"],
            in_flight=row["in_flight"],
            adapters=row["adapters"],
        )
        if row["metrics_age_s"] is not None:
            found["running"] = row["running"]
            found["waiting"] = row["queue"]
            found["kv_cache"] = row["kv_cache"]
            found["metrics_age_s"] = row["metrics_age_s"]
        rows[row["pool"], row["endpoint"]] = found
    return [rows[key] for key in sorted(rows)]


async def decision_rows(
    sockets: Iterable[Path], limit: int, only: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The last decisions of the pickers behind `sockets`, the newest first."""
    query = {**only, "limit": str(limit)}
    answers = await asyncio.gather(
        *(_get(path, f"/decisions?{urlencode(query)}") for path in sockets)
    )
    rows = [row for answer in answers for row in answer]
    return sorted(rows, key=lambda row: row["at"], reverse=True)[:limit]


async def _is_serving(path: Path) -> bool:
    try:
        async with _session(path) as session, session.get("http://picker/healthz") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


async def _get(path: Path, query: str) -> list[dict[str, Any]]:
    try:
        async with _session(path) as session, session.get(f"http://picker{query}") as answer:
            rows: list[dict[str, Any]] = await answer.json()
            return rows
    except (aiohttp.ClientError, OSError, TimeoutError):
        return []


def _session(path: Path) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(str(path)),
        timeout=aiohttp.ClientTimeout(ASK_TIMEOUT_S),
    )
