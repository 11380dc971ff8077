"""Adapters that come and go while the server runs."""

from __future__ import annotations

import pytest

from tests.modelserver.conftest import Served, Serving


async def test_a_loaded_adapter_is_listed_and_served_at_once(served: Served) -> None:
    body = {"lora_name": "new", "lora_path": "/new", "base_model_name": "tiny"}
    status, text = await served.post("/v1/load_lora_adapter", body)
    assert (status, text) == (200, "Success: LoRA adapter 'new' added successfully.")
    _, models = await served.get("/v1/models")
    assert "new" in [card["id"] for card in models["data"]]
    status, answer = await served.post("/v1/completions", {"model": "new", "prompt": "Hi"})
    assert (status, answer["model"]) == (200, "new")


async def test_an_unloaded_adapter_is_gone(served: Served) -> None:
    status, _ = await served.post("/v1/unload_lora_adapter", {"lora_name": "lora-a"})
    assert status == 200
    status, _ = await served.post("/v1/completions", {"model": "lora-a", "prompt": "Hi"})
    assert status == 404
    status, _ = await served.post("/v1/unload_lora_adapter", {"lora_name": "lora-a"})
    assert status == 404


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"lora_name": "lora-a", "lora_path": "/a"}, 400, "InvalidUserInput"),
        ({"lora_name": "tiny", "lora_path": "/a"}, 400, "InvalidUserInput"),
        ({"lora_name": "x"}, 400, "InvalidUserInput"),
        ({"lora_name": "x", "lora_path": "missing/x"}, 404, "NotFoundError"),
    ],
)
async def test_what_cannot_be_loaded_is_refused(
    served: Served, body: dict[str, str], status: int, kind: str
) -> None:
    found, answer = await served.post("/v1/load_lora_adapter", body)
    assert (found, answer["error"]["type"]) == (status, kind)


async def test_an_adapter_can_be_replaced_in_place(served: Served) -> None:
    body = {"lora_name": "lora-a", "lora_path": "/other", "load_inplace": True}
    status, _ = await served.post("/v1/load_lora_adapter", body)
    assert status == 200
    _, models = await served.get("/v1/models")
    assert {card["id"]: card["root"] for card in models["data"]}["lora-a"] == "/other"


async def test_the_paths_do_not_exist_unless_updates_are_allowed(serving: Serving) -> None:
    async with serving(allows_lora_updates=False) as served:
        body = {"lora_name": "x", "lora_path": "/x"}
        answer = await served.post("/v1/load_lora_adapter", body)
        assert answer == (404, {"detail": "Not Found"})
