"""LoRA adapters on the device: a few slots, loaded on demand, the least recently used replaced.

A batch may use at most `slots` different adapters. An adapter that is not in a slot is copied
there when a step first needs it, and that step waits for it (vLLM activates adapters inside the
step); one that is not even in host memory is read from disk first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable


class AdapterSlots:
    """Which adapters are on the device and which in host memory.

    Both are bounded: `slots` on the device, `host_slots` (at least as many) in host memory.
    """

    def __init__(self, slots: int, host_slots: int | None = None) -> None:
        self.slots = slots
        self.host_slots = max(slots, host_slots or slots)
        self._device: OrderedDict[str, None] = OrderedDict()
        self._host: OrderedDict[str, None] = OrderedDict()

    @property
    def resident(self) -> list[str]:
        """Adapters on the device, the least recently used first."""
        return list(self._device)

    def activate(self, adapters: Iterable[str]) -> tuple[int, int]:
        """Brings the adapters of one step in, and returns `(loads, fetches)`.

        A load copies from host memory into a slot; a fetch reads from disk into host memory.
        """
        loads = fetches = 0
        wanted = list(dict.fromkeys(adapters))
        for name in wanted:
            if name in self._host:
                self._host.move_to_end(name)
            else:
                fetches += 1
                self._host[name] = None
            if name in self._device:
                self._device.move_to_end(name)
            else:
                loads += 1
                self._device[name] = None
        self._trim(self._device, self.slots)
        self._trim(self._host, self.host_slots)
        return loads, fetches

    def forget(self, name: str) -> None:
        """Drops an adapter that was unloaded, so that a new one of the same name is read again."""
        self._device.pop(name, None)
        self._host.pop(name, None)

    @staticmethod
    def _trim(entries: OrderedDict[str, None], limit: int) -> None:
        while len(entries) > limit:
            entries.popitem(last=False)
