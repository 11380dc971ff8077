"""Finds the Python module of an Envoy message type, so that an Any of that type can be read.

Modules are named by proto file and not by message, so the modules of the message's own package are
tried: `envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext` is in one of the modules under
`envoy/extensions/transport_sockets/tls/v3`.
"""

from __future__ import annotations

import importlib
import pkgutil

from google.protobuf import descriptor_pool

ROOTS = ("envoy.", "xds.", "udpa.")
"""Packages whose modules may be loaded for a type that a user names."""


def load(message_name: str) -> bool:
    """Whether the type is known once its package's modules are imported."""
    package = message_name.rpartition(".")[0]
    if not message_name.startswith(ROOTS):
        return False
    try:
        modules = importlib.import_module(package)
    except ImportError:
        return False
    for found in pkgutil.iter_modules(getattr(modules, "__path__", ())):
        if not found.name.endswith("_pb2"):
            continue
        importlib.import_module(f"{package}.{found.name}")
        try:
            descriptor_pool.Default().FindMessageTypeByName(message_name)
        except KeyError:
            continue
        return True
    return False
