"""Code of users that Envoy Gateway would run inside Envoy: Lua and Wasm.

Read so that mistakes in it are told; not run, which a condition says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from pointsman.resources.base import Model
from pointsman.resources.fields import (
    Broken,
    Flag,
    Group,
    KindName,
    NamespaceName,
    ObjectName,
    set_for_type,
)

WASM_URL = (
    r"^((https?:)(\/\/\/?)([\w]*(?::[\w]*)?@)?([\d\w\.-]+)(?::(\d+))?)?"
    r"([\/\\\w\.()-]*)?(?:([?][^#]*)?(#.*)?)*"
)


class LuaValueRef(Model):
    """A ConfigMap that holds a script."""

    group: Group
    kind: KindName
    name: ObjectName

    def _broken(self) -> Iterator[Broken]:
        if self.kind != "ConfigMap" or self.group:
            yield ("kind",), "must be ConfigMap, of the core group"


class Lua(Model):
    """A script, in place or by reference."""

    type: Literal["Inline", "ValueRef"] = "Inline"
    inline: str | None = None
    value_ref: LuaValueRef | None = None

    def _broken(self) -> Iterator[Broken]:
        fields = (("Inline", "inline", self.inline), ("ValueRef", "valueRef", self.value_ref))
        yield from set_for_type(self.type, fields)


class WasmHTTP(Model):
    """A module by its URL."""

    url: Annotated[str, Field(pattern=WASM_URL)]
    sha256: str | None = None


class PullSecretRef(Model):
    """The Secret that opens a registry."""

    group: Group = ""
    kind: KindName = "Secret"
    name: ObjectName
    namespace: NamespaceName | None = None

    def _broken(self) -> Iterator[Broken]:
        if self.kind != "Secret":
            yield ("kind",), f"must be Secret, is {self.kind}"


class WasmImage(Model):
    """A module by its image."""

    url: str
    sha256: str | None = None
    pull_secret_ref: PullSecretRef | None = None


class WasmCode(Model):
    """Where a module is found."""

    type: str
    http: WasmHTTP | None = None
    image: WasmImage | None = None
    pull_policy: Literal["IfNotPresent", "Always"] | None = None

    def _broken(self) -> Iterator[Broken]:
        fields = (("HTTP", "http", self.http), ("Image", "image", self.image))
        yield from set_for_type(self.type, fields)


class WasmEnv(Model):
    """Variables that a module sees."""

    host_keys: tuple[str, ...] = ()


class Wasm(Model):
    """A module that filters requests."""

    name: str | None = None
    root_id: str | None = Field(default=None, alias="rootID")
    code: WasmCode
    config: Any = None
    fail_open: Flag = False
    env: WasmEnv | None = None
