"""The models that one server answers for: the base model's names, and adapters that come and go."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

ADAPTER_LIMIT = 4096
"""Adapters that may be registered at once; vLLM has no limit."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter: the name that requests use, where it comes from, and its base model."""

    name: str
    path: str
    base_model: str | None = None
    created_s: int = field(default_factory=lambda: int(time.time()))


@dataclass(frozen=True, slots=True)
class Served:
    """What a request's model name stands for."""

    name: str
    adapter: Adapter | None


class ServedModels:
    """Names and adapters. `root` is where the base model comes from, `names` what it is called."""

    def __init__(
        self, root: str, names: tuple[str, ...], max_model_len: int, adapters: tuple[Adapter, ...]
    ) -> None:
        if not names:
            raise ValueError("a server needs at least one model name")
        self.root = root
        self.names = names
        self.max_model_len = max_model_len
        self._created_s = int(time.time())
        self._bases = {name: Served(name, None) for name in names}
        self._adapters = {adapter.name: Served(adapter.name, adapter) for adapter in adapters}

    @property
    def primary(self) -> str:
        """The name in metrics, and the model of requests that name none."""
        return self.names[0]

    @property
    def adapters(self) -> list[str]:
        """Names of the adapters, in the order they came."""
        return list(self._adapters)

    def find(self, name: str | None) -> Served | None:
        """What a name stands for; no name means the base model; None if there is no such model."""
        if name is None:
            return self._bases[self.names[0]]
        return self._bases.get(name) or self._adapters.get(name)

    def is_base(self, name: str) -> bool:
        """True for a name of the base model."""
        return name in self._bases

    def add(self, adapter: Adapter) -> None:
        """Registers an adapter, or replaces the one of that name.

        Raises:
            OverflowError: if there are too many.
        """
        if adapter.name not in self._adapters and len(self._adapters) >= ADAPTER_LIMIT:
            raise OverflowError(f"{ADAPTER_LIMIT} adapters are registered already")
        self._adapters[adapter.name] = Served(adapter.name, adapter)

    def remove(self, name: str) -> bool:
        """Forgets an adapter; False if there is none of that name."""
        return self._adapters.pop(name, None) is not None

    def cards(self) -> list[dict[str, Any]]:
        """The entries of `/v1/models`."""
        cards = [self._card(name, self.root, None, self._created_s) for name in self.names]
        for served in self._adapters.values():
            adapter = served.adapter
            if adapter is not None:
                parent = adapter.base_model or self.primary
                cards.append(self._card(adapter.name, adapter.path, parent, adapter.created_s))
        return cards

    def _card(self, name: str, root: str, parent: str | None, created_s: int) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": created_s,
            "owned_by": "vllm",
            "root": root,
            "parent": parent,
            "max_model_len": self.max_model_len if parent is None else None,
            "permission": [
                {
                    "id": f"modelperm-{name}",
                    "object": "model_permission",
                    "created": created_s,
                    "allow_create_engine": False,
                    "allow_sampling": True,
                    "allow_logprobs": True,
                    "allow_search_indices": False,
                    "allow_view": True,
                    "allow_fine_tuning": False,
                    "organization": "*",
                    "group": None,
                    "is_blocking": False,
                }
            ],
        }
