"""The wish: which adapters have to exist and which must not, as the file says it.

    vLLMLoRAConfig:
      host: localhost          # optional
      port: 8000               # optional
      name: vllm-llama2-7b     # optional, for logs
      defaultBaseModel: ...    # optional, for adapters without base-model
      ensureExist:
        models:
        - id: tweet-summary-1
          source: org/adapter
          base-model: Qwen/Qwen2.5-1.5B
      ensureNotExist:
        models:
        - id: tweet-summary-0
          source: ...

Source: the dynamic-lora-sidecar of the Gateway API Inference Extension. A file that says something
wrong is refused as a whole with the place of the mistake: half a wish could unload what serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

ROOT = "vLLMLoRAConfig"
DEFAULT_HOST = "localhost"
DEFAULT_PORT = 8000
ADAPTERS_LIMIT = 4096
"""Adapters that one file may name in each list."""


class RolloutError(Exception):
    """The file cannot be used; the message says where and what was expected."""


@dataclass(frozen=True, slots=True)
class WantedAdapter:
    """An adapter named in the file."""

    id: str
    source: str
    base_model: str | None


@dataclass(frozen=True, slots=True)
class Rollout:
    """What the file wishes. Adapters that stand in both lists are in neither field."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    name: str = ""
    to_load: tuple[WantedAdapter, ...] = ()
    to_unload: tuple[WantedAdapter, ...] = ()
    contradictory: tuple[str, ...] = ()
    """Ids that stand in both lists, and are left as they are."""


def parse_rollout(text: str) -> Rollout:
    """Reads the file.

    Raises:
        RolloutError: if it is not YAML or not of the form above.
    """
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # PyYAML lets a date like 2026-13-01 and too deep a nesting out as these.
        raise RolloutError(f"not YAML: {error}") from None
    if document is None:
        return Rollout()
    root = _mapping(document, "the file").get(ROOT)
    if root is None:
        raise RolloutError(f"expected the key {ROOT}")
    fields = _mapping(root, ROOT)
    base = _text(fields, ROOT, "defaultBaseModel", "")
    wanted = _adapters(fields, "ensureExist", base)
    unwanted = _adapters(fields, "ensureNotExist", base)
    both = wanted.keys() & unwanted.keys()
    port = fields.get("port", DEFAULT_PORT)
    if isinstance(port, str) and port.isdigit():
        port = int(port)
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65_536:
        raise RolloutError(f"{ROOT}.port: expected a port number, got {port!r}")
    return Rollout(
        host=_text(fields, ROOT, "host", DEFAULT_HOST) or DEFAULT_HOST,
        port=port,
        name=_text(fields, ROOT, "name", ""),
        to_load=tuple(adapter for name, adapter in wanted.items() if name not in both),
        to_unload=tuple(adapter for name, adapter in unwanted.items() if name not in both),
        contradictory=tuple(sorted(both)),
    )


def _adapters(fields: dict[str, Any], key: str, base: str) -> dict[str, WantedAdapter]:
    place = f"{ROOT}.{key}"
    section = fields.get(key)
    if section is None:
        return {}
    models = _mapping(section, place).get("models")
    if models is None:
        return {}
    if not isinstance(models, list):
        raise RolloutError(f"{place}.models: expected a list, got {models!r}")
    if len(models) > ADAPTERS_LIMIT:
        raise RolloutError(f"{place}.models: at most {ADAPTERS_LIMIT} adapters")
    found: dict[str, WantedAdapter] = {}
    for index, entry in enumerate(models):
        where = f"{place}.models[{index}]"
        values = _mapping(entry, where)
        name = _text(values, where, "id", None)
        # Unloading needs no source, whatever the original's schema says.
        source = _text(values, where, "source", None if key == "ensureExist" else "")
        model = _text(values, where, "base-model", base)
        found[name] = WantedAdapter(name, source, model or None)
    return found


def _mapping(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RolloutError(f"{place}: expected a mapping, got {value!r}")
    return value


def _text(fields: dict[str, Any], place: str, key: str, default: str | None) -> str:
    """A text; `default` None means that it is required."""
    value = fields.get(key, default)
    if value is None and default is None:
        raise RolloutError(f"{place}.{key}: required")
    if value is None:
        return default or ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RolloutError(f"{place}.{key}: expected a text, got {value!r}")
    return str(value)
