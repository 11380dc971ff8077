"""Sessions: what tells them apart, and the server that each one stays on.

Two ways, as in the reference: `session_id` remembers here which server a client's session went to;
`encoded_endpoint_header` remembers nothing, but gives the client a token that names the server and
that it sends back with its next request.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pointsman.picker.endpoints.table import Loaded
from pointsman.picker.scheduling.parameters import Attribute, Parameters, Plugin, Settings
from pointsman.picker.scheduling.request import Wanted, attribute_header
from pointsman.picker.scheduling.scorers import Scores

MAX_SESSIONS = 100_000

AGENT_HEADERS = ("x-claude-code-session-id", "x-session-affinity", "session-id", "session_id")
"""Of Claude Code, OpenCode, Codex, and Codex of old."""

AGENT_IDENTITY = "agent-identity"
SESSION_ID = "session-id"


class SessionAffinity:
    """Keeps a session on its server: 1 for that one, else 0; as a filter it leaves only that one.

    The session is the value of the first request header among some that is there. A session
    unknown, idle for longer than `ttl_s`, or whose server is no candidate, constrains nothing.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        sources: Sequence[str] = ("x-session-id",),
        ttl_s: float = 300.0,
    ) -> None:
        self._clock = clock
        self._sources = sources
        self._ttl_s = ttl_s
        self._sessions: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def score(self, endpoints: Sequence[Loaded], wanted: Wanted) -> Scores:
        """The scores."""
        address = self._address(wanted)
        return [1.0 if endpoint.address == address else 0.0 for endpoint in endpoints]

    def keep(self, endpoints: Sequence[Loaded], wanted: Wanted) -> Sequence[Loaded]:
        """The server of the session; all where it has none yet, or where that is gone."""
        address = self._address(wanted)
        return [endpoint for endpoint in endpoints if endpoint.address == address] or endpoints

    def picked(self, address: str, wanted: Wanted) -> None:
        """The session is there from now on."""
        session = self._session(wanted)
        if not session:
            return
        self._sessions[session] = (address, self._clock())
        self._sessions.move_to_end(session)
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)

    def _session(self, wanted: Wanted) -> str:
        return next((value for name in self._sources if (value := wanted.headers.get(name))), "")

    def _address(self, wanted: Wanted) -> str | None:
        session = self._session(wanted)
        known = self._sessions.get(session) if session else None
        if known is None or self._clock() - known[1] > self._ttl_s:
            return None
        return known[0]


class EncodedEndpoint:
    """Follows a request's token: 1 for the server that it names, else 0; or leaves only that one.

    The token is the server's name (`namespace/pod-rank-number`) in base64; the answer has a new one
    in the header of the same name. One that cannot be read, or whose server is no candidate,
    constrains nothing.
    """

    def __init__(self, header: str = "x-session-token") -> None:
        self._header = header

    def score(self, endpoints: Sequence[Loaded], wanted: Wanted) -> Scores:
        """The scores."""
        name = self._name(wanted)
        return [1.0 if name and endpoint.name == name else 0.0 for endpoint in endpoints]

    def keep(self, endpoints: Sequence[Loaded], wanted: Wanted) -> Sequence[Loaded]:
        """The server that the token names; all where it names none that is there."""
        name = self._name(wanted)
        return [e for e in endpoints if name and e.name == name] or endpoints

    def _name(self, wanted: Wanted) -> str:
        try:
            return base64.b64decode(wanted.headers.get(self._header, ""), validate=True).decode()
        except (binascii.Error, ValueError):
            return ""


def token_of(name: str) -> str:
    """The token that leads back to a server.

    >>> token_of("default/llama-0-rank-0")
    'ZGVmYXVsdC9sbGFtYS0wLXJhbmstMA=='
    """
    return base64.b64encode(name.encode()).decode()


class SessionSource(Settings):
    """Where a session's id stands: in a header, or in what another plugin found."""

    header: str = ""
    attribute: Literal["", "agent-identity", "session-id"] = ""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if bool(self.header) == bool(self.attribute):
            raise ValueError("must have either header or attribute")
        return self

    @property
    def name(self) -> str:
        """The header that `Wanted.headers` has it in."""
        return self.header.lower() if self.header else attribute_header(self.attribute)


class SessionIdConfig(Settings):
    """Where the session's id stands, the first that is there counting; how long it is kept."""

    sources: Annotated[tuple[SessionSource, ...], Field(min_length=1)] = (
        SessionSource(header="x-session-id"),
    )
    eviction_ttl_seconds: float = Field(300, gt=0)
    eviction_sweep_seconds: float = Field(10, gt=0)


class EncodedEndpointHeaderConfig(Settings):
    """The header of the token, of requests and answers."""

    header: str = Field("x-session-token", pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")


class SessionAffinityParameters(Parameters):
    """Keeps a session on its server."""

    strategy: Literal["encoded_endpoint_header", "session_id"] = "encoded_endpoint_header"
    session_id_config: SessionIdConfig = SessionIdConfig()
    encoded_endpoint_header_config: EncodedEndpointHeaderConfig = EncodedEndpointHeaderConfig()
    profile_name: Literal[""] = ""

    def _plugin(self, *, is_filter: bool) -> Plugin:
        memory: SessionAffinity | EncodedEndpoint
        header = ""
        if self.strategy == "session_id":
            config = self.session_id_config
            sources = tuple(source.name for source in config.sources)
            memory = SessionAffinity(time.monotonic, sources, config.eviction_ttl_seconds)
        else:
            header = self.encoded_endpoint_header_config.header.lower()
            memory = EncodedEndpoint(header)
        return Plugin(
            filter=memory.keep if is_filter else None,
            scorer=None if is_filter else memory.score,
            listener=memory if isinstance(memory, SessionAffinity) else None,
            token_header=header,
            reads_headers=True,
        )


class SessionAffinityScorer(SessionAffinityParameters):
    """Keeps a session on its server, as a score."""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        return self._plugin(is_filter=False)


class SessionAffinityFilter(SessionAffinityParameters):
    """Keeps a session on its server."""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        return self._plugin(is_filter=True)


class AgentIdentity(Parameters):
    """Finds the session of an agent in the headers that agents send, for sessions to stay by."""

    additional_session_headers: tuple[str, ...] = ()

    def __call__(self) -> Plugin:
        """Make the plugin."""
        names = (*(name.lower() for name in self.additional_session_headers), *AGENT_HEADERS)

        def read(headers: Mapping[str, str]) -> str:
            return next((value for name in names if (value := headers.get(name))), "")

        return Plugin(attribute=Attribute(attribute_header(AGENT_IDENTITY), read))


class SessionIdProducer(Parameters):
    """Finds the session in a header or a cookie, for sessions to stay by."""

    header_name: str = ""
    cookie_name: str = ""
    lru_size: int = Field(1_024, ge=1)
    ttl: str = "30m"

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.header_name and self.cookie_name:
            raise ValueError("must not have both headerName and cookieName")
        return self

    def __call__(self) -> Plugin:
        """Make the plugin."""
        header, cookie = (self.header_name or "x-session-id").lower(), self.cookie_name

        def read(headers: Mapping[str, str]) -> str:
            if not cookie:
                return headers.get(header, "")
            for part in headers.get("cookie", "").split(";"):
                name, _, value = part.strip().partition("=")
                if name == cookie:
                    return value.strip('"')
            return ""

        return Plugin(attribute=Attribute(attribute_header(SESSION_ID), read))
