"""Loading and unloading adapters at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from pointsman.modelserver.api.errors import NOT_FOUND, RequestError
from pointsman.modelserver.api.fields import Body, flag, text
from pointsman.modelserver.served import Adapter

if TYPE_CHECKING:
    from pointsman.modelserver.replica import Replica

_INVALID = "InvalidUserInput"


async def load(replica: Replica, request: web.BaseRequest, body: Body) -> web.StreamResponse:
    """`/v1/load_lora_adapter`: registers an adapter, which can be asked for at once.

    There is no file to read here, so every path is fine except one that begins with `missing`:
    that one is not found, so that clients can be tested with it.
    """
    name, path = text(body, "lora_name"), text(body, "lora_path")
    if not name or not path:
        raise RequestError(400, "Both 'lora_name' and 'lora_path' must be provided.", _INVALID)
    if replica.models.is_base(name):
        raise RequestError(400, f"'{name}' is the name of the base model.", _INVALID)
    if replica.models.find(name) is not None and not flag(body, "load_inplace"):
        raise RequestError(
            400,
            f"The lora adapter '{name}' has already been loaded. If you want to load the adapter"
            " in place, set 'load_inplace' to True.",
            _INVALID,
        )
    if path.startswith("missing"):
        raise RequestError(
            404, f"Loading lora {name} failed: No adapter found for <path>", NOT_FOUND
        )
    try:
        replica.models.add(Adapter(name, path, text(body, "base_model_name")))
    except OverflowError as error:
        raise RequestError(400, str(error), _INVALID) from None
    replica.driver.engine.scheduler.slots.forget(name)
    return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")


async def unload(replica: Replica, request: web.BaseRequest, body: Body) -> web.StreamResponse:
    """`/v1/unload_lora_adapter`: forgets an adapter; what runs with it runs on."""
    name = text(body, "lora_name")
    if not name:
        raise RequestError(400, "'lora_name' needs to be provided to unload a LoRA.", _INVALID)
    if replica.models.is_base(name) or not replica.models.remove(name):
        raise RequestError(404, f"The lora adapter '{name}' cannot be found.", NOT_FOUND)
    replica.driver.engine.scheduler.slots.forget(name)
    return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")
