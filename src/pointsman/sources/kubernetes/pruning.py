"""What of an object is kept. The rest is dropped on arrival, before anything is made of it.

A cluster's Pods and Secrets are many and large, and little of them matters here: of a Pod who it
is, which ports it names, where it lives and whether it is ready; of a Secret and a ConfigMap the
keys that Gateway API objects can refer to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pointsman.resources.base import Resource
from pointsman.resources.core import ConfigMap, Pod, Secret
from pointsman.resources.discovery import EndpointSlice
from pointsman.resources.envoy_gateway import CONFIG_KEY
from pointsman.resources.unused import CustomResourceDefinition

AUTHORITIES_KEY = "ca.crt"
SECRET_KEYS = frozenset({"tls.crt", "tls.key", AUTHORITIES_KEY})
"""Certificates with their keys, and authorities."""
CONFIG_MAP_KEYS = frozenset({AUTHORITIES_KEY, CONFIG_KEY})
"""Authorities, and the configuration of Envoy Gateway."""
LARGE_ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"

_POD_CONDITIONS = frozenset({"Ready"})

Data = dict[str, Any]


def pruned(cls: type[Resource], data: Data) -> Data:
    """The object with what matters of it; `data` may be changed."""
    meta = data.get("metadata")
    if isinstance(meta, dict):
        meta.pop("managedFields", None)
        annotations = meta.get("annotations")
        if isinstance(annotations, dict):
            annotations.pop(LARGE_ANNOTATION, None)
    prune = _BY_CLASS.get(cls)
    return prune(data) if prune is not None else data


def _pod(data: Data) -> Data:
    spec = _mapping(data.get("spec"))
    status = _mapping(data.get("status"))
    return {
        **_unversioned(data),
        "spec": {
            "containers": [_container(item) for item in spec.get("containers") or ()],
            "initContainers": [
                _container(item)
                for item in spec.get("initContainers") or ()
                if item.get("restartPolicy") == "Always" and item.get("ports")
            ],
            "nodeName": spec.get("nodeName") or "",
        },
        "status": {
            "podIP": status.get("podIP"),
            "conditions": [
                {"type": item.get("type"), "status": item.get("status")}
                for item in status.get("conditions") or ()
                if item.get("type") in _POD_CONDITIONS
            ],
        },
    }


def _container(item: Data) -> Data:
    kept = ("name", "ports", "restartPolicy")
    return {key: item[key] for key in kept if item.get(key)}


def _secret(data: Data) -> Data:
    content = _mapping(data.get("data"))
    return {
        **_identity(data),
        "type": data.get("type"),
        "data": {key: content[key] for key in SECRET_KEYS & content.keys()},
    }


def _config_map(data: Data) -> Data:
    content = _mapping(data.get("data"))
    return {
        **_identity(data),
        "data": {key: content[key] for key in CONFIG_MAP_KEYS & content.keys()},
    }


def _endpoint_slice(data: Data) -> Data:
    endpoints = [
        {
            "addresses": item.get("addresses"),
            "conditions": item.get("conditions"),
        }
        for item in data.get("endpoints") or ()
    ]
    return {
        **_unversioned(data),
        "addressType": data.get("addressType"),
        "endpoints": endpoints,
        "ports": data.get("ports") or [],
    }


def _definition(data: Data) -> Data:
    return _identity(data)


def _identity(data: Data) -> Data:
    return {key: data[key] for key in ("apiVersion", "kind", "metadata") if key in data}


def _unversioned(data: Data) -> Data:
    """Without the version: what is written often and read here only needs none."""
    found = _identity(data)
    meta = _mapping(found.get("metadata"))
    kept = {
        key: value for key, value in meta.items() if key not in ("resourceVersion", "generation")
    }
    return {**found, "metadata": kept}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


_BY_CLASS: Mapping[type[Resource], Callable[[Data], Data]] = {
    Pod: _pod,
    Secret: _secret,
    ConfigMap: _config_map,
    EndpointSlice: _endpoint_slice,
    CustomResourceDefinition: _definition,
}
