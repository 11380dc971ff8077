"""`/tokenize` and `/detokenize`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from pointsman.modelserver.api.completions import read_prompts
from pointsman.modelserver.api.errors import RequestError, json_response
from pointsman.modelserver.api.fields import Body, flag
from pointsman.modelserver.api.generation import encode, find_model
from pointsman.modelserver.conversation import render

if TYPE_CHECKING:
    from pointsman.modelserver.replica import Replica


async def tokenize(replica: Replica, request: web.BaseRequest, body: Body) -> web.StreamResponse:
    """The token ids of a prompt or of a conversation."""
    find_model(replica, body)
    if "messages" in body:
        ids = encode(replica, render(body["messages"], body.get("tools")))
    else:
        prompts = read_prompts(replica, body.get("prompt"))
        if len(prompts) != 1:
            raise RequestError(400, "Only one prompt can be tokenized.", param="prompt")
        ids = prompts[0]
    answer: dict[str, object] = {
        "count": len(ids),
        "max_model_len": replica.models.max_model_len,
        "tokens": ids.tolist(),
        "token_strs": None,
    }
    if flag(body, "return_token_strs"):
        answer["token_strs"] = [replica.tokenizer.decode([token]) for token in ids]
    return json_response(answer)


async def detokenize(replica: Replica, request: web.BaseRequest, body: Body) -> web.StreamResponse:
    """The text of some token ids."""
    find_model(replica, body)
    tokens = body.get("tokens")
    if not isinstance(tokens, list) or not all(
        isinstance(token, int) and token >= 0 for token in tokens
    ):
        raise RequestError(400, "tokens has to be a list of token ids.", param="tokens")
    return json_response({"prompt": replica.tokenizer.decode(tokens)})
