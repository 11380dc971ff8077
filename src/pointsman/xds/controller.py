"""The loop of the control plane: objects change, Envoy is told, conditions go back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from pointsman.gateway.options import Options
from pointsman.gateway.statuses.facts import EnvoyFacts, Memory, Status
from pointsman.gateway.statuses.objects import statuses
from pointsman.gateway.translate import Translation, translate
from pointsman.resources.base import Ref
from pointsman.store import Change, Store
from pointsman.xds.judge import Judge
from pointsman.xds.server import DiscoveryServer

FOLD_S = 0.01
"""Changes that come this soon after an update wait for each other and become one."""

Publish = Callable[[Mapping[Ref, Status]], Awaitable[None]]
"""Takes the statuses of all objects, as they are now."""

Complete = Callable[[EnvoyFacts, Translation], EnvoyFacts]
"""Adds what is known of Envoys beside what they say here."""

log = logging.getLogger(__name__)


class Controller:
    """Keeps Envoy and the conditions as the store wants them."""

    def __init__(
        self, store: Store, options: Options, publish: Publish, complete: Complete | None = None
    ) -> None:
        self._store = store
        self._options = options
        self._publish = publish
        self._complete = complete
        self._wake = asyncio.Event()
        self._memory = Memory()
        self._facts_changed = False
        self._config_problem: str | None = None
        self._translated = -1
        self._rests_until = 0.0
        self._judge = Judge(store, self._on_verdict)
        self.discovery = DiscoveryServer(self._on_facts)
        self.is_serving = asyncio.Event()
        """Something has been translated: an Envoy that asks now gets what there is."""
        self.translation: Translation | None = None

    @property
    def is_current(self) -> bool:
        """What is served is made from the objects as they stand."""
        return self._translated == self._store.revision

    async def run(self) -> None:
        """Follow the store until cancelled."""
        loop = asyncio.get_running_loop()
        with self._store.subscribe() as subscription:
            await self._translate()
            reader = asyncio.create_task(subscription.batch())
            judging = self._judge.run(self.discovery, lambda: self.translation)
            judge = asyncio.create_task(judging)
            try:
                while True:
                    waker = asyncio.create_task(self._wake.wait())
                    await asyncio.wait({reader, waker}, return_when=asyncio.FIRST_COMPLETED)
                    waker.cancel()
                    self._wake.clear()
                    changes: list[Change] = []
                    if reader.done():
                        await asyncio.sleep(max(0.0, self._rests_until - loop.time()))
                        changes += reader.result()
                        reader = asyncio.create_task(subscription.batch())
                    # All that has changed until now: what comes later is told from this state on.
                    changes += subscription.take()
                    if self._translated < 0 or any(item.is_of_content for item in changes):
                        await self._translate()
                    else:
                        self._translated = self._store.revision
                    if self._facts_changed:
                        await self._write_statuses()
            finally:
                reader.cancel()
                judge.cancel()

    def reconsider(self) -> None:
        """Publish the statuses once more: what is known of Envoys has changed."""
        self._facts_changed = True
        self._wake.set()

    def _on_facts(self, facts: EnvoyFacts) -> None:
        self.reconsider()
        self._judge.hear(facts)

    def _on_verdict(self) -> None:
        self._translated = -1
        self._wake.set()

    async def _translate(self) -> None:
        self._translated = self._store.revision
        self._rests_until = asyncio.get_running_loop().time() + FOLD_S
        try:
            found = translate(self._store, self._options, self.translation, self._judge.refused())
        except Exception:
            # A fault of ours must not take down what works: Envoy keeps what it has.
            log.exception("The objects could not be translated; what was served stays")
            return
        if found.config.problem != self._config_problem:
            self._config_problem = found.config.problem
            if found.config.problem is not None:
                log.warning("%s", found.config.problem)
        before = self.translation.parts if self.translation is not None else {}
        for ref, part in found.parts.items():
            if part.fault is not None and before.get(ref) is not part:
                log.error("%s is left out", ref, exc_info=part.fault)
        self.translation = found
        self.discovery.serve(found.fleets)
        self.is_serving.set()
        await self._write_statuses()

    async def _write_statuses(self) -> None:
        self._facts_changed = False
        if self.translation is None:
            return
        facts = self.discovery.facts
        if self._complete is not None:
            facts = self._complete(facts, self.translation)
        found = statuses(self._store, self.translation, facts, self._options, self._memory)
        await self._publish(found)
