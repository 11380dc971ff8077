"""Volumes of a pod as folders: texts of ConfigMaps and Secrets, and empty ones.

A file is replaced by renaming, so that who watches it never reads half of it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pointsman.resources.core import ConfigMap, PodSpec, Secret, Volume
from pointsman.store import Store


def write_volumes(store: Store, namespace: str, spec: PodSpec, folder: Path) -> dict[str, Path]:
    """Bring the folders of a pod's volumes up to date; returns volume name to folder."""
    result = {}
    for volume in spec.volumes:
        path = folder / "volumes" / volume.name
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        contents = _contents(store, namespace, volume)
        if contents is not None:
            _write(path, contents)
        result[volume.name] = path
    return result


def _contents(store: Store, namespace: str, volume: Volume) -> dict[str, bytes] | None:
    """File name to bytes; None for a volume that is not ours to fill."""
    if volume.config_map is not None:
        found = store.get(ConfigMap, namespace, volume.config_map.name)
        data = {key: text.encode() for key, text in (found.data if found else {}).items()}
        items = volume.config_map.items
    elif volume.secret is not None:
        secret = store.get(Secret, namespace, volume.secret.secret_name)
        keys = secret.data if secret is not None else {}
        values = {key: secret.value(key) for key in keys} if secret is not None else {}
        data = {key: value for key, value in values.items() if value is not None}
        items = volume.secret.items
    else:
        return None
    if not items:
        return data
    return {item.path: data[item.key] for item in items if item.key in data}


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    root = folder.resolve()
    wanted = set()
    for name, content in contents.items():
        path = (root / name).resolve()
        # A key cannot hold a slash in Kubernetes; a path that leaves its volume is not written.
        if root not in path.parents:
            continue
        wanted.add(path)
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, content)
    for path in root.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()


def _replace(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(temporary).replace(path)
