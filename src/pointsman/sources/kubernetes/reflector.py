"""One kind of a cluster (or of a namespace, or with some labels), kept up to date.

Lists, then watches from where the list ended; a watch that breaks is taken up where it was, one
that is told that this is too old (410) begins with a list again. While the API server cannot be
reached, what is known stays.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from typing import Any, Protocol

from pointsman.resources.base import Resource
from pointsman.resources.core import ConfigMap, Secret
from pointsman.resources.unused import CustomResourceDefinition
from pointsman.sources.kubernetes.api import (
    JSON,
    METADATA_ONLY,
    METADATA_ONLY_WATCH,
    PAGE,
    Api,
    ApiError,
    path_of,
)
from pointsman.sources.kubernetes.pruning import pruned

WATCH_S = (240, 480)
"""A watch ends by itself after a time between these, so that thousands do not end together."""
SHORT_S = 1.0
"""A watch that ends sooner is no reason to begin the next at once."""
FIRST_PAUSE_S = 0.1
LARGE_PAGE = 50
LONGEST_PAUSE_S = 5.0
"""Between two tries to reach an API server that is gone."""
RIGHTS_S = 5.0
"""How long rights may take to be in force that were given just before we began. Who went on without
them would serve a cluster in which half of everything is missing."""
FORBIDDEN_PAUSE_S = 15.0
"""Between two tries of what we have no right to: rights are given while we run."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Interest:
    """Objects that somebody wants to know of."""

    cls: type[Resource]
    namespace: str = ""
    """"" for those of all namespaces."""
    labels: str = ""
    """A label selector."""
    fields: str = ""
    """A field selector."""

    @property
    def selectors(self) -> dict[str, str]:
        """The query that narrows them."""
        given = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {key: value for key, value in given.items() if value}

    @property
    def is_metadata_only(self) -> bool:
        """Nothing but the metadata is asked for: definitions are large."""
        return self.cls is CustomResourceDefinition

    @property
    def page(self) -> int:
        """How many are asked for at once: fewer of those that may have a megabyte each."""
        return LARGE_PAGE if self.cls in (ConfigMap, Secret) else PAGE

    def __str__(self) -> str:
        kind = self.cls.KIND
        name = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
        return f"{name} in {self.namespace}" if self.namespace else name


class Receiver(Protocol):
    """Who is told what a reflector sees."""

    def replace(self, interest: Interest, version: str, items: list[dict[str, Any]]) -> None:
        """These are all that there are."""

    def event(self, interest: Interest, version: str, kind: str, item: dict[str, Any]) -> None:
        """One came (ADDED), changed (MODIFIED) or went (DELETED)."""


class Reflector:
    """Follows one interest, in one version of its kind."""

    def __init__(self, api: Api, interest: Interest, version: str, receiver: Receiver) -> None:
        self._api = api
        self._interest = interest
        self._version = version
        self._receiver = receiver
        self._path = path_of(interest.cls.KIND, version, interest.namespace)
        self._pause_s = FIRST_PAUSE_S
        self._seen = ""
        """The resource version from which a watch goes on; "" before a list."""
        self._complaint = ""
        self._began = time.monotonic()
        self.settled = asyncio.Event()
        """All that exists has been told, or cannot be had."""
        self.has_listed = False
        """All that exists has been told."""

    @property
    def complaint(self) -> str:
        """Why nothing is heard at this moment; "" where all is well."""
        return self._complaint

    async def run(self) -> None:
        """Follow until cancelled, or until the kind is no longer served."""
        while True:
            try:
                if not self._seen:
                    await self._list()
                began = time.monotonic()
                await self._watch()
                if time.monotonic() - began < SHORT_S:
                    # An API server that goes down may end each watch as it begins.
                    await self._rest()
            except ApiError as error:
                if error.is_missing:
                    self.settled.set()
                    return
                await self._recover(error)
            except Exception as error:
                # What nobody has thought of must not leave a kind unheard.
                log.exception("%s: a fault in Pointsman; all of it is read anew", self._interest)
                self._complaint = f"a fault in Pointsman: {error!r}"
                self._seen = ""
                if not self._has_patience:
                    self.settled.set()
                await self._rest()

    async def _list(self) -> None:
        interest = self._interest
        accept = METADATA_ONLY if interest.is_metadata_only else JSON
        items: list[dict[str, Any]] = []
        seen = ""
        async for page, version in self._api.pages(
            self._path, interest.selectors, accept=accept, size=interest.page
        ):
            # Of what is not needed there is never more than a page.
            items += [pruned(interest.cls, item) for item in page]
            seen = version
        self._receiver.replace(interest, self._version, items)
        self._seen = seen
        self._heard()
        self.has_listed = True
        self.settled.set()

    async def _watch(self) -> None:
        interest = self._interest
        params = {
            **interest.selectors,
            "resourceVersion": self._seen,
            "timeoutSeconds": str(random.randint(*WATCH_S)),
        }
        accept = METADATA_ONLY_WATCH if interest.is_metadata_only else JSON
        events = self._api.watch(self._path, params, accept=accept, on_open=self._heard)
        async for event in events:
            self._pause_s = FIRST_PAUSE_S
            seen = (event.object.get("metadata") or {}).get("resourceVersion")
            if event.type != "BOOKMARK":
                item = pruned(interest.cls, event.object)
                self._receiver.event(interest, self._version, event.type, item)
            if seen:
                self._seen = str(seen)

    def _heard(self) -> None:
        if self._complaint:
            log.info("%s: heard again", self._interest)
        self._complaint = ""

    async def _recover(self, error: ApiError) -> None:
        if error.is_gone:
            self._seen = ""
            log.debug("%s: listed anew (%s)", self._interest, error)
        elif str(error) != self._complaint:
            self._complaint = str(error)
            log.warning("%s: not heard (%s); what is known stays", self._interest, error)
        if error.is_forbidden and (self.settled.is_set() or not self._has_patience):
            # Nothing is to be waited for here: the rest must start without it.
            self.settled.set()
            await asyncio.sleep(FORBIDDEN_PAUSE_S * random.uniform(0.5, 1.0))
        else:
            await self._rest()

    @property
    def _has_patience(self) -> bool:
        return time.monotonic() - self._began < RIGHTS_S

    async def _rest(self) -> None:
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, LONGEST_PAUSE_S)
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
