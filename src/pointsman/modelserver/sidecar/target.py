"""The model server that the sidecar keeps in order, seen over its HTTP API."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import aiohttp
import orjson

from pointsman.modelserver.sidecar.rollout import WantedAdapter

_ANSWER_LIMIT_BYTES = 16 * 1024 * 1024


class TargetError(Exception):
    """The server did not do what it was asked. `is_final`: asking again is of no use."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


class Target:
    """A model server at a URL. Every call has a deadline."""

    def __init__(self, url: str, *, timeout_s: float = 30.0, load_timeout_s: float = 300.0) -> None:
        self.url = url
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        # A real server reads the adapter from disk or from a hub before it answers.
        self._load_timeout = aiohttp.ClientTimeout(total=load_timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Target:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def is_healthy(self) -> bool:
        """True if `/health` answers 200."""
        try:
            status, _ = await self._ask("GET", "/health", None, self._timeout, is_read=False)
        except TargetError:
            return False
        return status == 200

    async def adapters(self) -> set[str]:
        """Ids of everything that the server lists, base models included.

        Raises:
            TargetError: if it cannot be asked or answers something else.
        """
        status, body = await self._ask("GET", "/v1/models", None, self._timeout)
        if status != 200 or not isinstance(body, dict) or not isinstance(body.get("data"), list):
            raise TargetError(f"{self.url}/v1/models answered {status}")
        return {str(card.get("id")) for card in body["data"] if isinstance(card, dict)}

    async def load(self, adapter: WantedAdapter) -> None:
        """Loads an adapter.

        Raises:
            TargetError: if the server refuses or cannot be reached.
        """
        body = {"lora_name": adapter.id, "lora_path": adapter.source}
        if adapter.base_model:
            body["base_model_name"] = adapter.base_model
        await self._command("/v1/load_lora_adapter", body, self._load_timeout)

    async def unload(self, adapter: WantedAdapter) -> None:
        """Unloads an adapter.

        Raises:
            TargetError: if the server refuses or cannot be reached.
        """
        await self._command("/v1/unload_lora_adapter", {"lora_name": adapter.id}, self._timeout)

    async def _command(
        self, path: str, body: dict[str, str], timeout: aiohttp.ClientTimeout
    ) -> None:
        status, answer = await self._ask("POST", path, body, timeout)
        if status < 400:
            return
        hint = ""
        if status == 404 and isinstance(answer, dict) and "detail" in answer:
            hint = " (is VLLM_ALLOW_RUNTIME_LORA_UPDATING set for the server?)"
        raise TargetError(f"{path} answered {status}: {answer}{hint}", is_final=400 <= status < 500)

    async def _ask(
        self,
        method: str,
        path: str,
        body: Any,
        timeout: aiohttp.ClientTimeout,
        *,
        is_read: bool = True,
    ) -> tuple[int, Any]:
        """Status and body; `is_read` false: the body does not matter."""
        if self._session is None:
            raise RuntimeError("a target is used inside its context")
        try:
            async with self._session.request(
                method, self.url + path, json=body, timeout=timeout
            ) as response:
                if not is_read:
                    return response.status, None
                data = await response.content.read(_ANSWER_LIMIT_BYTES)
                if "json" in response.content_type:
                    return response.status, orjson.loads(data)
                return response.status, data.decode("utf-8", "replace")[:500]
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise TargetError(f"{self.url}{path}: {error or type(error).__name__}") from None
