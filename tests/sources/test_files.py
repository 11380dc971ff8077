from __future__ import annotations

import asyncio
import errno
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pointsman.resources.base import Ref
from pointsman.resources.core import ConfigMap, Pod
from pointsman.resources.gateway_api import HTTPRoute
from pointsman.sources import apply_status
from pointsman.sources.files import FileSource
from pointsman.store import Store

Write = Callable[[str, str], Path]
Follow = Callable[..., Any]

A_MAP = Ref("", "ConfigMap", "default", "a")


def config_map(name: str, value: str = "1", metadata: str = "") -> str:
    head = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}{metadata}}}\n"
    return f"{head}data: {{x: '{value}'}}\n---\n"


def route(timeout: str = "1s", metadata: str = "") -> str:
    return (
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n"
        f"metadata: {{name: r{metadata}}}\nspec:\n  rules:\n"
        f"  - timeouts: {{request: {timeout}}}\n"
    )


def model(name: str) -> str:
    return (
        "apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferenceModel\n"
        f"metadata: {{name: m}}\nspec: {{modelName: {name}, poolRef: {{name: p}}}}\n"
    )


async def test_everything_under_the_paths_is_read(
    tmp_path: Path, write: Write, follow: Follow
) -> None:
    write("one/a.yaml", config_map("a") + config_map("b"))
    write("one/deep/er/c.yml", config_map("c"))
    write("one/d.json", '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "d"}}')
    write("one/notes.txt", "not: read")
    write("one/.hidden/x.yaml", config_map("x"))
    single = write("e.yaml", config_map("e"))

    async with follow(
        [str(tmp_path / "one"), str(single), "-"], stdin=io.BytesIO(config_map("f").encode())
    ) as w:
        names = [item.metadata.name for item in w.store.list(ConfigMap)]
        assert names == ["a", "b", "c", "d", "e", "f"]
        assert "+ ConfigMap default/a" in w.lines
        assert w.problems == []


async def test_an_object_gets_what_an_api_server_would_add(tmp_path: Path, write: Write) -> None:
    write(
        "a.yaml",
        config_map("a") + config_map("b", metadata=", creationTimestamp: '2020-01-01T00:00:00Z'"),
    )
    store = Store()

    await FileSource(store, [str(tmp_path)], now=lambda: "2026-01-01T00:00:00Z").start()

    a, b = (item.metadata for item in store.list(ConfigMap))
    assert (a.namespace, a.generation, a.creation_timestamp) == (
        "default",
        1,
        "2026-01-01T00:00:00Z",
    )
    assert b.creation_timestamp == "2020-01-01T00:00:00Z"
    assert len(a.uid) == 36
    assert a.uid != b.uid


async def test_a_change_is_applied_and_said_in_one_line(
    tmp_path: Path, write: Write, follow: Follow
) -> None:
    write("r.yaml", route("1s"))
    async with follow([str(tmp_path)]) as w:
        before = w.store.list(HTTPRoute)[0].metadata

        write("r.yaml", route("2s"))
        await w.until_line("~ HTTPRoute default/r (spec.rules[0].timeouts.request)")

        after = w.store.list(HTTPRoute)[0].metadata
        assert (after.uid, after.creation_timestamp) == (before.uid, before.creation_timestamp)
        assert after.generation == 2
        assert after.resource_version != before.resource_version


async def test_labels_change_no_generation(tmp_path: Path, write: Write, follow: Follow) -> None:
    write("r.yaml", route())
    async with follow([str(tmp_path)]) as w:
        write("r.yaml", route(metadata=", labels: {tier: a}"))
        await w.until_line("~ HTTPRoute default/r (metadata.labels)")

        assert w.store.list(HTTPRoute)[0].metadata.generation == 1


async def test_files_and_folders_come_and_go(tmp_path: Path, write: Write, follow: Follow) -> None:
    write("a.yaml", config_map("a"))
    async with follow([str(tmp_path)]) as w:
        write("new/folder/b.yaml", config_map("b"))
        await w.until_line("+ ConfigMap default/b")

        shutil.rmtree(tmp_path / "new")
        await w.until_line("- ConfigMap default/b")
        assert [item.metadata.name for item in w.store.list(ConfigMap)] == ["a"]


@pytest.mark.parametrize("as_folder", [True, False])
async def test_an_editor_s_rename_is_a_change_and_no_deletion(
    tmp_path: Path, write: Write, follow: Follow, as_folder: bool
) -> None:
    path = write("r.yaml", route("1s"))
    async with follow([str(tmp_path if as_folder else path)]) as w:
        # vi: the old file becomes a backup, the new one is written in its place.
        path.rename(tmp_path / "r.yaml~")
        write(".r.new", route("2s"))
        (tmp_path / ".r.new").rename(path)
        await w.until_line("~ HTTPRoute default/r (spec.rules[0].timeouts.request)")

        assert not any(line.startswith("- ") for line in w.lines)


async def test_a_folder_put_in_another_s_place_is_followed(
    tmp_path: Path, write: Write, follow: Follow
) -> None:
    write("live/a.yaml", config_map("a"))
    async with follow([str(tmp_path / "live")]) as w:
        write("next/b.yaml", config_map("b"))
        (tmp_path / "live").rename(tmp_path / "old")
        (tmp_path / "next").rename(tmp_path / "live")
        await w.until_line("+ ConfigMap default/b")
        await w.until_line("- ConfigMap default/a")

        write("live/c.yaml", config_map("c"))
        await w.until_line("+ ConfigMap default/c")


async def test_a_broken_file_leaves_its_last_good_objects(
    tmp_path: Path, write: Write, follow: Follow
) -> None:
    write("a.yaml", config_map("a") + config_map("b"))
    write("r.yaml", route("1s"))
    async with follow([str(tmp_path)]) as w:
        write("a.yaml", config_map("a", "2") + "data: [\n")
        await w.until_problem(": is not YAML")
        write("r.yaml", route("1x"))
        await w.until_problem("r.yaml:6: spec.rules[0].timeouts.request: must be a duration")

        assert [item.metadata.name for item in w.store.list(ConfigMap)] == ["a", "b"]
        assert w.store.list(HTTPRoute)[0].spec.rules[0].timeouts.request == "1s"
        assert "~ ConfigMap default/a (data.x)" in w.lines
        assert len(w.source.problems) == 2

        write("a.yaml", config_map("a", "3") + config_map("b"))
        write("r.yaml", route("3s"))
        await w.until(lambda: not w.source.problems and "~ HTTPRoute default/r" in w.lines[-1])


async def test_a_problem_is_said_once(tmp_path: Path, write: Write, follow: Follow) -> None:
    write("a.yaml", "kind: [")
    async with follow([str(tmp_path)]) as w:
        write("b.yaml", config_map("b"))
        await w.until_line("+ ConfigMap default/b")

        assert len(w.problems) == 1


async def test_an_unknown_field_is_a_warning(tmp_path: Path, write: Write, follow: Follow) -> None:
    write("a.yaml", config_map("a") + "\n" + config_map("b").replace("\ndata:", "\nmore: 1\ndata:"))
    async with follow([str(tmp_path)]) as w:
        assert [p.severity for p in w.problems] == ["warning"]
        assert len(w.store.list(ConfigMap)) == 2


async def test_of_an_object_in_two_files_the_first_counts(
    tmp_path: Path, write: Write, follow: Follow
) -> None:
    write("1.yaml", config_map("a", "first"))
    write("2.yaml", "\n" + config_map("a", "second"))
    async with follow([str(tmp_path)]) as w:
        assert w.store.list(ConfigMap)[0].data == {"x": "first"}
        (problem,) = w.problems
        assert str(problem).startswith(f"{tmp_path}/2.yaml:2: ConfigMap default/a")
        assert f"{tmp_path}/1.yaml:1" in problem.message

        (tmp_path / "1.yaml").unlink()
        await w.until_line("~ ConfigMap default/a (data.x)")
        assert w.store.list(ConfigMap)[0].data == {"x": "second"}
        assert not w.source.problems


async def test_the_order_of_the_paths_counts_before_that_of_names(
    tmp_path: Path, write: Write, follow: Follow
) -> None:
    late = write("z/a.yaml", config_map("a", "z"))
    write("a/a.yaml", config_map("a", "a"))
    async with follow([str(late), str(tmp_path)]) as w:
        assert w.store.list(ConfigMap)[0].data == {"x": "z"}


async def test_the_same_object_twice_in_a_file_is_a_problem(
    tmp_path: Path, write: Write, follow: Follow
) -> None:
    write("a.yaml", config_map("a", "1") + config_map("a", "2"))
    async with follow([str(tmp_path)]) as w:
        assert w.store.list(ConfigMap)[0].data == {"x": "1"}
        assert "stands in" in w.problems[0].message


async def test_an_immutable_field_keeps_its_value(
    tmp_path: Path, write: Write, follow: Follow
) -> None:
    path = write("m.yaml", model("one"))
    async with follow([str(tmp_path)]) as w:
        write("m.yaml", model("two"))
        await w.until_problem("spec.modelName: is immutable: was 'one', is 'two'")
        assert (
            w.store.find(
                Ref("inference.networking.x-k8s.io", "InferenceModel", "default", "m")
            ).spec.model_name
            == "one"
        )

        path.unlink()
        await w.until_line("- InferenceModel default/m")
        write("m.yaml", model("two"))
        await w.until(lambda: w.lines.count("+ InferenceModel default/m") == 2)


async def test_a_status_outlives_a_reload(tmp_path: Path, write: Write, follow: Follow) -> None:
    write("a.yaml", config_map("a", "1"))
    async with follow([str(tmp_path)]) as w:
        await w.source.write_status(A_MAP, {"seen": True})
        write("a.yaml", config_map("a", "2"))
        await w.until_line("~ ConfigMap default/a (data.x)")

        assert w.store.find(A_MAP).status == {"seen": True}


async def test_a_pod_s_status_is_the_user_s_to_say(
    tmp_path: Path, write: Write, follow: Follow
) -> None:
    text = "apiVersion: v1\nkind: Pod\nmetadata: {name: gpu}\nstatus: {podIP: 10.0.0.1}\n"
    write("pod.yaml", text)
    async with follow([str(tmp_path)]) as w:
        write("pod.yaml", text.replace("0.1", "0.2"))
        await w.until(lambda: w.lines[-1].startswith("~ Pod default/gpu"))

        assert w.store.list(Pod)[0].status == {"podIP": "10.0.0.2"}


async def test_a_file_that_is_written_in_two_steps_loses_nothing(
    tmp_path: Path, write: Write, follow: Follow
) -> None:
    path = write("a.yaml", config_map("a", "1") + config_map("b", "1"))
    async with follow([str(tmp_path)]) as w:
        half = config_map("a", "2")
        with path.open("w") as file:
            file.write(half)
            file.flush()
            await asyncio.sleep(0)  # the source may look at the half now
            file.write(config_map("b", "2"))
        await w.until_line("~ ConfigMap default/b (data.x)")

        assert not any(line.startswith("- ") for line in w.lines)


@pytest.mark.parametrize(
    ("content", "message"), [(b"\xff\xfe\x00", "is not UTF-8"), (b"kind: x\n", "apiVersion")]
)
async def test_a_file_that_is_no_text_is_a_problem(
    tmp_path: Path, content: bytes, message: str, follow: Follow
) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    async with follow([str(tmp_path)]) as w:
        assert message in str(w.problems[0])


async def test_a_path_that_is_not_there_is_a_problem_until_it_is(
    tmp_path: Path, write: Write, follow: Follow
) -> None:
    async with follow([str(tmp_path / "later")]) as w:
        assert str(w.problems[0]) == f"{tmp_path}/later: no such file or folder"

        write("later/a.yaml", config_map("a"))
        await w.until_line("+ ConfigMap default/a")
        assert not w.source.problems


async def test_a_status_of_an_object_that_went_is_dropped() -> None:
    assert apply_status(Store(), A_MAP, {"x": 1}) == ()


async def test_links_are_read_once(tmp_path: Path, write: Write, follow: Follow) -> None:
    target = write("data/a.yaml", config_map("a"))
    (tmp_path / "link.yaml").symlink_to(target)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "dead.yaml").symlink_to(tmp_path / "nowhere")
    async with follow([str(tmp_path)]) as w:
        assert w.problems == []
        assert len(w.store.list(ConfigMap)) == 1


async def test_standard_input_that_is_no_text_is_a_problem(tmp_path: Path, follow: Follow) -> None:
    async with follow(["-"], stdin=io.BytesIO(b"\xff")) as w:
        assert str(w.problems[0]).startswith("<stdin>: is not UTF-8")


async def test_a_folder_that_cannot_be_read_hides_its_files_and_removes_nothing(
    tmp_path: Path, write: Write, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("in/a.yaml", config_map("a"))
    real = os.walk

    def refused(path: str, onerror: Callable[[OSError], None]) -> Any:
        onerror(PermissionError(errno.EACCES, "Permission denied", str(path)))
        return iter(())

    async with follow([str(tmp_path / "in")]) as w:
        monkeypatch.setattr(os, "walk", refused)
        write("in/b.yaml", config_map("b"))
        await w.until_problem("in: cannot be read: Permission denied")
        monkeypatch.setattr(os, "walk", real)
        await w.until_line("+ ConfigMap default/b")

        assert "- ConfigMap default/a" not in w.lines
