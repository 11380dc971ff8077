"""A container's environment and the texts made of it, as a kubelet makes them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from tests.kubernetes.api import Key, Object

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)")
_KEYED = re.compile(r"^(metadata\.(?:labels|annotations))\['(.+)'\]$")


class ConfigError(Exception):
    """Something that the container asks for is not there; it may come later."""


class Objects(Protocol):
    """The objects that pods refer to, by namespace and name."""

    config_maps: Mapping[Key, Object]
    secrets: Mapping[Key, Object]
    services: Mapping[Key, Object]


def environment(container: Object, pod: Object, objects: Objects) -> dict[str, str]:
    """The variables of a container.

    Raises:
        ConfigError: a ConfigMap, a Secret or a key that is not optional is not there.
    """
    namespace = pod["metadata"]["namespace"]
    found = dict(_service_variables(pod, objects))
    for source in container.get("envFrom") or ():
        prefix = source.get("prefix", "")
        for kind in ("configMapRef", "secretRef"):
            if kind in source:
                data = _data(kind, source[kind], namespace, objects)
                found |= {prefix + key: value.decode() for key, value in data.items()}
    for item in container.get("env") or ():
        if "valueFrom" not in item:
            found[item["name"]] = expand(item.get("value", ""), found)
            continue
        value = _value(item["valueFrom"], pod, objects)
        if value is not None:
            found[item["name"]] = value
    return found


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` becomes the value; an unknown name stays as it is, and `$$` is a dollar sign."""

    def replaced(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return "$"
        return variables.get(match.group(1), match.group(0))

    return _REFERENCE.sub(replaced, text)


def field(path: str, pod: Object) -> str:
    """A field of a pod as a text.

    Raises:
        ConfigError: the downward API does not have it.
    """
    keyed = _KEYED.match(path)
    if keyed:
        name = keyed.group(1).removeprefix("metadata.")
        return str((pod["metadata"].get(name) or {}).get(keyed.group(2), ""))
    if path in ("metadata.labels", "metadata.annotations"):
        items = pod["metadata"].get(path.removeprefix("metadata.")) or {}
        return "\n".join(f'{key}="{value}"' for key, value in sorted(items.items()))
    status = pod.get("status") or {}
    known = {
        "metadata.name": pod["metadata"]["name"],
        "metadata.namespace": pod["metadata"]["namespace"],
        "metadata.uid": pod["metadata"]["uid"],
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", ""),
        "status.hostIP": status.get("hostIP", ""),
        "status.podIP": status.get("podIP", ""),
        "status.podIPs": ",".join(item["ip"] for item in status.get("podIPs") or ()),
    }
    if path not in known:
        raise ConfigError(f"fieldRef {path} is not known here")
    return str(known[path])


def data_of(item: Object) -> dict[str, bytes]:
    """The contents of a ConfigMap or a Secret by key."""
    if item.get("kind") == "Secret" or "type" in item:
        return {key: base64.b64decode(text) for key, text in (item.get("data") or {}).items()}
    plain = {key: text.encode() for key, text in (item.get("data") or {}).items()}
    packed = item.get("binaryData") or {}
    return plain | {key: base64.b64decode(text) for key, text in packed.items()}


def _data(kind: str, reference: Object, namespace: str, objects: Objects) -> dict[str, bytes]:
    known = objects.secrets if kind.startswith("secret") else objects.config_maps
    found = known.get((namespace, reference.get("name", "")))
    if found is not None:
        return data_of(found)
    if reference.get("optional"):
        return {}
    noun = "secret" if kind.startswith("secret") else "configmap"
    raise ConfigError(f'{noun} "{reference.get("name", "")}" not found')


def _value(source: Object, pod: Object, objects: Objects) -> str | None:
    if "fieldRef" in source:
        return field(source["fieldRef"]["fieldPath"], pod)
    for kind in ("configMapKeyRef", "secretKeyRef"):
        if kind in source:
            reference = source[kind]
            data = _data(kind, reference, pod["metadata"]["namespace"], objects)
            if reference["key"] in data:
                return data[reference["key"]].decode()
            if reference.get("optional"):
                return None
            raise ConfigError(f"couldn't find key {reference['key']} in {reference.get('name')}")
    raise ConfigError(f"{', '.join(source)} is not known here")


def _service_variables(pod: Object, objects: Objects) -> Iterator[tuple[str, str]]:
    """Of the Services of the namespace (unless the pod wants none) and of `kubernetes`."""
    namespace = pod["metadata"]["namespace"]
    wants_all = pod["spec"].get("enableServiceLinks", True)
    for (place, name), service in sorted(objects.services.items()):
        is_api = (place, name) == ("default", "kubernetes")
        if is_api or (wants_all and place == namespace):
            yield from _variables_of(name, service["spec"])


def _variables_of(name: str, spec: Object) -> Iterable[tuple[str, str]]:
    address, ports = spec.get("clusterIP"), spec.get("ports") or ()
    if not address or address == "None" or not ports:
        return
    prefix = name.upper().replace("-", "_")
    yield f"{prefix}_SERVICE_HOST", address
    yield f"{prefix}_SERVICE_PORT", str(ports[0]["port"])
    for port in ports:
        if port.get("name"):
            shown = port["name"].upper().replace("-", "_")
            yield f"{prefix}_SERVICE_PORT_{shown}", str(port["port"])
    for index, port in enumerate(ports):
        protocol = port.get("protocol", "TCP")
        url = f"{protocol.lower()}://{address}:{port['port']}"
        if index == 0:
            yield f"{prefix}_PORT", url
        long = f"{prefix}_PORT_{port['port']}_{protocol}"
        yield long, url
        yield f"{long}_PROTO", protocol.lower()
        yield f"{long}_PORT", str(port["port"])
        yield f"{long}_ADDR", address
