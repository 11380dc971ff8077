"""What a translation needs to know beyond the objects: where it will run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pointsman.gateway.listeners.access_logs import AccessLog

CONTROLLER_NAME = "gateway.envoyproxy.io/gatewayclass-controller"
"""The controller whose classes are served when the EnvoyGateway configuration names no other."""


@dataclass(frozen=True, slots=True)
class Options:
    """The surroundings of a translation."""

    bind_address: str = "0.0.0.0"
    """The IP that Envoy's listeners bind to."""
    advertised_address: str = ""
    """The IP that goes into a Gateway's status; "" while none is known."""
    port_map: Mapping[int, int] = field(default_factory=dict)
    """Listener port to the port that is really bound, where they differ."""
    exclusive_ports: bool = False
    """Bind without SO_REUSEPORT, so that a port that another process holds is an error."""
    own_picker_socket: str | None = None
    """The Unix socket of our own picker; None where each pool must bring one."""
    access_logs: tuple[AccessLog, ...] = ()
    """What is written of requests, on every listener."""
    authorities_path: str = "/etc/ssl/certs/ca-certificates.crt"
    """The file with the well-known certificate authorities, where Envoy runs; "" where none is. The
    default is that of Debian, Ubuntu, Alpine and Envoy's own image."""
    controllers: frozenset[str] = frozenset()
    """In a cluster: the controllers whose classes are ours; empty for the one that the EnvoyGateway
    configuration names."""
    is_alone: bool = False
    """One machine and no other controller: every GatewayClass is ours, one that nobody defines is
    adopted, and Backends may name loopback addresses."""

    def bound_port(self, port: int) -> int:
        """The port that a listener's port is bound to."""
        return self.port_map.get(port, port)
