"""Where a Gateway's listeners bind, when the Gateway asks for addresses of its own.

Rule (Gateway API, Gateway.spec.addresses): a type that is not served makes the Gateway unaccepted
(`UnsupportedAddress`); an address that cannot be had leaves it accepted and not programmed
(`AddressNotUsable`); an entry without a value asks for any address.

On one machine an address is one to bind to: a loopback address, the one that listeners bind to
anyway, or any where they bind to all. In a cluster the addresses are those of the Gateway's
Service, and Envoy binds to all.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from pointsman.gateway.options import Options
from pointsman.resources.gateway_api import Gateway

IP_ADDRESS = "IPAddress"
HOSTNAME = "Hostname"


@dataclass(frozen=True, slots=True)
class Binding:
    """Where the listeners of a Gateway are."""

    addresses: tuple[str, ...] = ()
    """The IPs that the Gateway has for itself; () for those that all share."""
    unsupported: str | None = None
    """What it asks for and nobody here knows."""
    unusable: str | None = None
    """Which of its addresses it cannot have."""
    is_bound: bool = True
    """At least one address is left."""

    def hosts(self, options: Options) -> tuple[str, ...]:
        """The IPs to bind to."""
        return self.addresses or (options.bind_address,)

    def advertised(self, options: Options) -> tuple[str, ...]:
        """The IPs that clients go to; () while none is known."""
        if not self.is_bound:
            return ()
        return self.addresses or ((options.advertised_address,) * bool(options.advertised_address))


def binding_of(gateway: Gateway, options: Options) -> Binding:
    """Where a Gateway's listeners bind."""
    wanted = gateway.spec.addresses
    unknown = [item.type for item in wanted if item.type != IP_ADDRESS]
    if unknown:
        listed = ", ".join(dict.fromkeys(unknown))
        return Binding(unsupported=f"Addresses of type {listed} are not supported; use IPAddress")
    named = [item.value for item in wanted if item.value is not None]
    usable = tuple(dict.fromkeys(value for value in named if _is_usable(value, options)))
    bad = [value for value in named if value not in usable]
    is_bound = bool(usable) or not named
    unusable = _refusal(bad, options) if bad else None
    return Binding(usable if options.is_alone else (), None, unusable, is_bound)


def _is_usable(value: str, options: Options) -> bool:
    if not options.is_alone:
        # Where it is not known here, the Gateway's Service will tell.
        return options.advertised_address in ("", value)
    address = ipaddress.ip_address(value)
    bound = ipaddress.ip_address(options.bind_address)
    if bound.is_unspecified:
        return not address.is_unspecified
    return address == bound or address.is_loopback


def _refusal(bad: list[str], options: Options) -> str:
    listed = ", ".join(bad)
    if not options.is_alone:
        return f"The Gateway's Service does not have {listed}"
    return (
        f"Listeners bind to {options.bind_address} and to loopback addresses, not to {listed}; "
        "with `--address 0.0.0.0` a Gateway may ask for any address of this machine"
    )


SHARED = Binding()
"""Of a Gateway that asks for no addresses."""
