"""The volumes of a pod as folders, which follow the objects that they are made of.

As with a kubelet, the files of a ConfigMap, a Secret or a token are links into a folder that is
replaced as a whole, so a certificate and its key never come from two generations. Known are
configMap, secret, emptyDir, downwardAPI and projected volumes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.kubernetes.api import Api, Object
from tests.kubernetes.container import Mount
from tests.kubernetes.environment import ConfigError, Objects, data_of, expand, field

CURRENT = "..data"
FILE_MODE = 0o644
RENEWAL = 0.8
"""The part of a token's life after which there is a new one."""


@dataclass(frozen=True)
class File:
    """A file of a volume."""

    content: bytes
    mode: int = FILE_MODE


@dataclass(frozen=True)
class Token:
    """A token of the pod's service account."""

    text: str
    renewal_at: float
    """By the monotonic clock."""


class Volumes:
    """The volumes of one pod, below one folder."""

    def __init__(self, folder: Path, api: Api, objects: Objects) -> None:
        self._folder = folder
        self._api = api
        self._objects = objects
        self._tokens: dict[tuple[str, int], Token] = {}
        self._written: dict[str, dict[str, File]] = {}

    async def fill(self, pod: Object) -> None:
        """Make the folders, or bring them up to date.

        Raises:
            ConfigError: something that is not optional is not there.
            ApiError, aiohttp.ClientError, TimeoutError: there is no token to be had.
        """
        group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
        for volume in pod["spec"].get("volumes") or ():
            place = self._folder / volume["name"]
            if not place.exists():
                place.mkdir(parents=True)
                place.chmod(0o777 if "emptyDir" in volume else 0o755)
                if group is not None:
                    shutil.chown(place, group=group)
                    place.chmod(0o2777 if "emptyDir" in volume else 0o2755)
            if "emptyDir" in volume:
                continue
            files = await self._files(volume, pod)
            if self._written.get(volume["name"]) != files:
                _replace(place, files, group)
                self._written[volume["name"]] = files

    def mounts(self, container: Object, variables: Mapping[str, str]) -> list[Mount]:
        """Where the container sees them.

        Raises:
            ConfigError: a subPath leads to nothing.
        """
        found = []
        for item in container.get("volumeMounts") or ():
            source = self._folder / item["name"]
            below = item.get("subPath") or expand(item.get("subPathExpr", ""), variables)
            if below:
                source = (source / below).resolve()
                if item["name"] not in self._written:
                    source.mkdir(parents=True, exist_ok=True)
                elif not source.exists():
                    raise ConfigError(f"subPath {below} of volume {item['name']} is not there")
            # Volumes of objects are never written to, whatever the mount says.
            is_read_only = bool(item.get("readOnly")) or item["name"] in self._written
            found.append(Mount(str(source), item["mountPath"].rstrip("/"), is_read_only))
        return found

    async def _files(self, volume: Object, pod: Object) -> dict[str, File]:
        if "projected" in volume:
            default = volume["projected"].get("defaultMode", FILE_MODE)
            files: dict[str, File] = {}
            for source in volume["projected"].get("sources") or ():
                files |= await self._source(source, pod, default)
            return files
        kinds = {"configMap", "secret", "downwardAPI"} & volume.keys()
        if not kinds:
            raise ConfigError(f"the kind of volume {volume['name']} is not known here")
        default = volume[next(iter(kinds))].get("defaultMode", FILE_MODE)
        return await self._source(volume, pod, default)

    async def _source(self, source: Object, pod: Object, mode: int) -> dict[str, File]:
        namespace = pod["metadata"]["namespace"]
        if "configMap" in source:
            given = source["configMap"]
            found = self._objects.config_maps.get((namespace, given.get("name", "")))
            return _picked("configmap", given.get("name", ""), found, given, mode)
        if "secret" in source:
            given = source["secret"]
            name = given.get("secretName") or given.get("name", "")
            found = self._objects.secrets.get((namespace, name))
            return _picked("secret", name, found, given, mode)
        if "downwardAPI" in source:
            return {
                item["path"]: File(
                    field(item["fieldRef"]["fieldPath"], pod).encode(), item.get("mode", mode)
                )
                for item in source["downwardAPI"].get("items") or ()
                if "fieldRef" in item
            }
        if "serviceAccountToken" in source:
            given = source["serviceAccountToken"]
            text = await self._token(given, pod)
            return {given["path"]: File(text.encode(), mode)}
        raise ConfigError(f"a volume of {', '.join(source)} is not known here")

    async def _token(self, given: Object, pod: Object) -> str:
        audience, lifetime_s = given.get("audience", ""), given.get("expirationSeconds", 3600)
        known = self._tokens.get((audience, lifetime_s))
        if known is not None and time.monotonic() < known.renewal_at:
            return known.text
        meta = pod["metadata"]
        account = pod["spec"].get("serviceAccountName", "default")
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience] if audience else None,
                "expirationSeconds": lifetime_s,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": meta["name"],
                    "uid": meta["uid"],
                },
            },
        }
        path = f"/api/v1/namespaces/{meta['namespace']}/serviceaccounts/{account}/token"
        answer = await self._api.request("POST", path, body)
        text: str = answer["status"]["token"]
        renewal_at = time.monotonic() + RENEWAL * lifetime_s
        self._tokens[audience, lifetime_s] = Token(text, renewal_at)
        return text


def _picked(
    noun: str, name: str, found: Object | None, given: Object, mode: int
) -> dict[str, File]:
    if found is None:
        if given.get("optional"):
            return {}
        raise ConfigError(f'{noun} "{name}" not found')
    data = data_of(found)
    items: Iterable[Object] | None = given.get("items")
    if items is None:
        return {key: File(content, mode) for key, content in data.items()}
    picked = {}
    for item in items:
        if item["key"] in data:
            picked[item["path"]] = File(data[item["key"]], item.get("mode", mode))
        elif not given.get("optional"):
            raise ConfigError(f'{noun} "{name}" has no key "{item["key"]}"')
    return picked


def _replace(place: Path, files: Mapping[str, File], group: int | None) -> None:
    old = (place / CURRENT).resolve() if (place / CURRENT).is_symlink() else None
    fresh = place / f"..{time.time_ns()}"
    fresh.mkdir()
    fresh.chmod(0o755)
    for path, file in files.items():
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)
        target.chmod(file.mode | (0o040 if group is not None else 0))
        if group is not None:
            shutil.chown(target, group=group)
    swapped = place / "..data_tmp"
    swapped.symlink_to(fresh.name)
    swapped.replace(place / CURRENT)
    wanted = {Path(path).parts[0] for path in files}
    for name in wanted:
        if not (place / name).is_symlink():
            (place / name).symlink_to(f"{CURRENT}/{name}")
    for entry in place.iterdir():
        if not entry.name.startswith("..") and entry.name not in wanted:
            entry.unlink()
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
