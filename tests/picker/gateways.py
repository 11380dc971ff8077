"""How gateways speak to a picker: one table for the machine alone and for the real Envoy.

Each row is the processing mode of a gateway, and the conversation that comes of it for a request
with a JSON body that is answered with JSON: the kinds of messages that Envoy sends, each of which
gets an answer of its kind. Kinds that repeat are told once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.picker.envoys import GUIDE, listener

MODES = {
    "NONE": 0,
    "STREAMED": 1,
    "BUFFERED": 2,
    "BUFFERED_PARTIAL": 3,
    "FULL_DUPLEX_STREAMED": 4,
}
HEAD, BODY, TRAILERS = "request_headers", "request_body", "request_trailers"
ANSWER_HEAD, ANSWER_BODY = "response_headers", "response_body"


@dataclass(frozen=True)
class Gateway:
    """A gateway's settings, and what is said."""

    request: str
    response: str
    says: tuple[str, ...]
    """By Envoy, about a request with a body and its answer."""
    picks_at: str
    """The kind of the answer that carries the pick."""
    response_headers: str = "SEND"
    no_wait: bool = False
    trailers: str = "SKIP"

    @property
    def reads_bodies(self) -> bool:
        """Whether the model can be read, and another put in its place."""
        return self.request in ("BUFFERED", "BUFFERED_PARTIAL", "FULL_DUPLEX_STREAMED") or (
            self.no_wait
        )

    @property
    def mode(self) -> dict[str, str]:
        """Envoy's `processing_mode`."""
        return {
            "request_header_mode": "SEND",
            "request_body_mode": self.request,
            "request_trailer_mode": self.trailers,
            "response_header_mode": self.response_headers,
            "response_body_mode": self.response,
            "response_trailer_mode": self.trailers,
        }

    def listener(self, name: str, message_timeout: str = "5s") -> dict[str, Any]:
        """A listener that speaks so, in front of the cluster that follows the header."""
        made = listener(GUIDE, name.replace(" ", "_"))
        made["name"] = name
        manager = made["filter_chains"][0]["filters"][0]["typed_config"]
        manager["http_protocol_options"] = {"enable_trailers": True}
        ext_proc = manager["http_filters"][0]["typed_config"]
        ext_proc["processing_mode"] = self.mode
        ext_proc["message_timeout"] = message_timeout
        ext_proc["send_body_without_waiting_for_header_response"] = self.no_wait
        return made


GATEWAYS = {
    # Istio, kgateway, GKE, Envoy AI Gateway, and the reference's own standalone Envoy.
    "full duplex": Gateway(
        *("FULL_DUPLEX_STREAMED", "FULL_DUPLEX_STREAMED"),
        (HEAD, BODY, ANSWER_HEAD, ANSWER_BODY),
        HEAD,
        trailers="SEND",
    ),
    # Envoy Gateway as the guide's EnvoyExtensionPolicy sets it up.
    "guide buffered": Gateway("BUFFERED", "NONE", (HEAD, BODY, ANSWER_HEAD), BODY),
    # The same policy with bodies streamed.
    "guide streamed": Gateway("STREAMED", "STREAMED", (HEAD, BODY, ANSWER_HEAD, ANSWER_BODY), HEAD),
    "buffered answers": Gateway(
        "BUFFERED", "BUFFERED", (HEAD, BODY, ANSWER_HEAD, ANSWER_BODY), BODY
    ),
    "request only": Gateway(
        "FULL_DUPLEX_STREAMED", "NONE", (HEAD, BODY), HEAD, response_headers="SKIP", trailers="SEND"
    ),
    "streamed no wait": Gateway(
        "STREAMED", "NONE", (HEAD, BODY, ANSWER_HEAD), HEAD, no_wait=True, trailers="SEND"
    ),
    "in part": Gateway("BUFFERED_PARTIAL", "NONE", (HEAD, BODY, ANSWER_HEAD), BODY),
    "headers only": Gateway("NONE", "NONE", (HEAD, ANSWER_HEAD), HEAD),
}
