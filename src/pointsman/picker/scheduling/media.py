"""Images, sounds and films: the server that has seen one has it encoded already."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from pointsman.picker.endpoints.table import Loaded
from pointsman.picker.scheduling.parameters import Parameters, Plugin
from pointsman.picker.scheduling.request import Wanted
from pointsman.picker.scheduling.scorers import Scores

ITEM_MIB = 2
"""What one is taken to need of a server's memory, as the reference assumes."""
DEFAULT_MIB = 4_096
MAX_SERVERS = 4_096
MAX_ITEMS = 256
"""Of one request; more are not looked at."""

_KINDS = ("image_url", "input_image", "image", "audio_url", "input_audio", "video_url", "video")
_PLACES = ("url", "data", "file_id", "source")


class MediaMemory:
    """`m / n`: how many of the request's n different items the server probably holds.

    Each server holds the last `cacheSizeInMBPerServer / 2` items that were sent to it. No items: 0.
    """

    def __init__(self, capacity: int = DEFAULT_MIB // ITEM_MIB) -> None:
        self.capacity = capacity
        """Items of one server."""
        self._servers: OrderedDict[str, OrderedDict[int, None]] = OrderedDict()

    def score(self, endpoints: Sequence[Loaded], wanted: Wanted) -> Scores:
        """The scores."""
        items = wanted.media
        if not items:
            return [0.0] * len(endpoints)
        nothing: OrderedDict[int, None] = OrderedDict()
        held = [self._servers.get(endpoint.address, nothing) for endpoint in endpoints]
        return [sum(item in each for item in items) / len(items) for each in held]

    def picked(self, address: str, wanted: Wanted) -> None:
        """The server encodes them now."""
        if not wanted.media:
            return
        held = self._servers.setdefault(address, OrderedDict())
        self._servers.move_to_end(address)
        for item in wanted.media:
            held[item] = None
            held.move_to_end(item)
        while len(held) > self.capacity:
            held.popitem(last=False)
        while len(self._servers) > MAX_SERVERS:
            self._servers.popitem(last=False)


def media_of(fields: Mapping[str, Any]) -> tuple[int, ...]:
    """A number for each different item of a prompt, by its address or content."""
    found: dict[int, None] = {}
    for name in ("messages", "input"):
        for item in _items(fields.get(name)):
            found[hash(item)] = None
            if len(found) >= MAX_ITEMS:
                return tuple(found)
    return tuple(found)


def _items(messages: Any) -> Iterator[str]:
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") in _KINDS:
                yield from _named(part)


def _named(part: Mapping[str, Any]) -> Iterator[str]:
    """What names an item, wherever the API puts it."""
    for key in (*_KINDS, *_PLACES):
        value = part.get(key)
        if isinstance(value, str):
            yield value
            return
        if isinstance(value, dict):
            yield from _named(value)
            return


class MediaScorer(Parameters):
    """Servers that have seen the request's images, sounds and films."""

    producer_name: str = ""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        memory = MediaMemory()
        return Plugin(scorer=memory.score, listener=memory, reads_media=True)


class MediaProducer(Parameters):
    """Says how many images, sounds and films a server remembers."""

    cache_size_in_mb_per_server: int = Field(
        DEFAULT_MIB, le=1024 * 1024, alias="cacheSizeInMBPerServer"
    )

    def __call__(self) -> Plugin:
        """Make the plugin."""
        size = self.cache_size_in_mb_per_server
        return Plugin(media_items=max(1, (size if size > 0 else DEFAULT_MIB) // ITEM_MIB))
