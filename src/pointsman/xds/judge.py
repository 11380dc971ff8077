"""Watches what Envoy refuses, finds out whose patch or route it is, and has it left out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from pointsman.gateway.refusals import PatchId, Refused
from pointsman.gateway.snapshot import Key
from pointsman.gateway.statuses.facts import BIND_ERROR, EnvoyFacts
from pointsman.gateway.translate import Translation
from pointsman.resources.base import Ref
from pointsman.resources.envoy_gateway import EnvoyPatchPolicy
from pointsman.resources.gateway_api import Gateway, GatewayClass
from pointsman.store import Store
from pointsman.xds.binary import EnvoyNotFoundError
from pointsman.xds.culprits import culprits
from pointsman.xds.server import DiscoveryServer

log = logging.getLogger(__name__)


class Judge:
    """Knows which patches and routes Envoy refuses, for as long as they are what they are."""

    INPUTS = (EnvoyPatchPolicy, Gateway, GatewayClass)
    """The kinds with which a verdict on a patch stands or falls; one on a route does with that."""

    def __init__(self, store: Store, on_verdict: Callable[[], None]) -> None:
        """`on_verdict` is called when one has been found out."""
        self._store = store
        self._on_verdict = on_verdict
        self._wake = asyncio.Event()
        self._refused: dict[PatchId | Ref, str] = {}
        self._versions: dict[Ref, int] = {}
        self._inputs: tuple[int, ...] = ()
        self._judged: dict[Key, str] = {}

    def refused(self) -> Refused:
        """What to leave out, with Envoy's words."""
        inputs = tuple(self._store.kind_version(kind) for kind in self.INPUTS)
        is_same = inputs == self._inputs
        self._inputs = inputs
        stands = {
            item: words for item, words in self._refused.items() if self._stands(item, is_same)
        }
        if len(stands) < len(self._refused) or not is_same:
            self._refused = stands
            self._versions = {ref: item for ref, item in self._versions.items() if ref in stands}
            self._judged = {}
        return self._refused

    def _stands(self, item: PatchId | Ref, is_same: bool) -> bool:
        if isinstance(item, PatchId):
            return is_same
        return self._store.version(item) == self._versions[item]

    def hear(self, facts: EnvoyFacts) -> None:
        """Take in what Envoy says now."""
        if facts.refused:
            self._wake.set()

    async def run(
        self, discovery: DiscoveryServer, translation: Callable[[], Translation | None]
    ) -> None:
        """Judge refusals as they come, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            refusals = dict(discovery.facts.refused)
            self._judged = {key: item for key, item in self._judged.items() if key in refusals}
            for key, message in refusals.items():
                found, version = translation(), discovery.version(key)
                is_judged = self._judged.get(key) == version
                if found is not None and not is_judged and BIND_ERROR not in message:
                    self._judged[key] = version
                    await self._judge(found, key)

    async def _judge(self, found: Translation, key: Key) -> None:
        inputs = self._inputs
        bad = await self._culprits(found, key)
        if self._inputs != inputs:
            # Policies or Gateways have become others meanwhile: what they are now may be refused.
            self._wake.set()
            return
        for item, words in bad.items():
            if isinstance(item, Ref):
                self._versions[item] = found.parts[item].version
            log.warning("%s is left out, for Envoy refuses it: %s", item, words)
        if bad:
            self._refused = {**self._refused, **bad}
            self._on_verdict()

    async def _culprits(self, found: Translation, key: Key) -> dict[PatchId | Ref, str]:
        try:
            return await culprits(self._store, found, key, self._refused)
        except (EnvoyNotFoundError, OSError) as error:
            log.warning("Nobody can say why Envoy refuses %s: %s", key.name, error)
        except Exception:
            # What is served is not touched by a fault of ours here.
            log.exception("The search for what makes Envoy refuse %s failed", key.name)
        return {}
