"""Volumes of a pod as folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pointsman.resources.base import ObjectMeta
from pointsman.resources.core import ConfigMap, PodSpec
from pointsman.standalone.volumes import write_volumes
from pointsman.store import Store


def store_with(data: dict[str, str]) -> Store:
    store = Store()
    meta = ObjectMeta(name="settings", namespace="default")
    store.apply([ConfigMap(api_version="v1", kind="ConfigMap", metadata=meta, data=data)])
    return store


def spec(**volume: Any) -> PodSpec:
    return PodSpec.model_validate(
        {"containers": [{"name": "c"}], "volumes": [{"name": "v", **volume}]}
    )


def test_a_config_map_is_files_that_follow_it(tmp_path: Path) -> None:
    pod = spec(configMap={"name": "settings"})
    folder = write_volumes(store_with({"a.yaml": "1", "b": "2"}), "default", pod, tmp_path)["v"]
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a.yaml": "1", "b": "2"}
    write_volumes(store_with({"a.yaml": "3"}), "default", pod, tmp_path)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a.yaml": "3"}


def test_single_keys_can_have_paths_of_their_own(tmp_path: Path) -> None:
    items = [{"key": "a", "path": "deep/er/file"}, {"key": "gone", "path": "x"}]
    pod = spec(configMap={"name": "settings", "items": items})
    folder = write_volumes(store_with({"a": "1", "b": "2"}), "default", pod, tmp_path)["v"]
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert files == [Path("deep/er/file")]


def test_a_path_out_of_the_volume_is_not_written(tmp_path: Path) -> None:
    items = [{"key": "a", "path": "../../escaped"}]
    pod = spec(configMap={"name": "settings", "items": items})
    write_volumes(store_with({"a": "1"}), "default", pod, tmp_path)
    assert not list(tmp_path.rglob("escaped"))


def test_an_empty_dir_keeps_what_is_in_it(tmp_path: Path) -> None:
    pod = spec(emptyDir={})
    folder = write_volumes(Store(), "default", pod, tmp_path)["v"]
    (folder / "mine").write_text("x")
    write_volumes(Store(), "default", pod, tmp_path)
    assert (folder / "mine").read_text() == "x"
