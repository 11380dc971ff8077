"""A look at what was touched finds what a look at everything would find."""

from __future__ import annotations

from pathlib import Path

import pytest

from pointsman.sources.folders import Scan, rescan, scan


def written(folder: Path, *names: str) -> list[str]:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return [str(folder / name) for name in names]


def agrees(found: Scan | None, folder: Path) -> bool:
    whole = scan([str(folder)])
    return found is not None and list(found.files.items()) == list(whole.files.items())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    written(tmp_path, "b.yaml", "d.yaml", "c/a.yaml", "c/z.yaml", "a/m.yaml")
    return tmp_path


@pytest.mark.parametrize(
    "name", ["a.yaml", "c.yaml", "z.yaml", "a/a.yaml", "c/m.yaml", "c/zz.yaml"]
)
def test_a_new_file_takes_its_place_in_the_order(folder: Path, name: str) -> None:
    before = scan([str(folder)])
    assert agrees(rescan(before, written(folder, name)), folder)


def test_a_file_that_went_and_came_back_takes_its_old_place(folder: Path) -> None:
    first = scan([str(folder)])
    path = folder / "b.yaml"
    path.unlink()
    gone = rescan(first, [str(path)])
    assert gone is not None
    assert agrees(gone, folder)
    assert agrees(rescan(gone, written(folder, "b.yaml")), folder)


def test_another_content_keeps_the_place(folder: Path) -> None:
    before = scan([str(folder)])
    (folder / "d.yaml").write_text("other and longer")
    assert agrees(rescan(before, [str(folder / "d.yaml")]), folder)


def test_a_relative_path_keeps_its_form(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    before = scan(["c/"])
    found = rescan(before, written(folder, "c/m.yaml"))
    assert found is not None
    assert list(found.files) == ["c/a.yaml", "c/m.yaml", "c/z.yaml"]


def test_editors_own_files_are_passed_over(folder: Path) -> None:
    before = scan([str(folder)])
    touched = written(folder, ".b.yaml.swp", "b.yaml~", "notes.txt")
    assert agrees(rescan(before, touched), folder)


@pytest.mark.parametrize("what", ["folder", "hidden", "link", "two paths"])
def test_what_names_alone_cannot_tell_needs_a_look_at_everything(folder: Path, what: str) -> None:
    paths = [str(folder), str(folder / "c")] if what == "two paths" else [str(folder)]
    before = scan(paths)
    path = folder / "new.yaml"
    if what == "folder":
        path.mkdir()
    elif what == "hidden":
        (path,) = map(Path, written(folder, ".data/new.yaml"))
    elif what == "link":
        path.hardlink_to(folder / "b.yaml")
    else:
        written(folder, "new.yaml")
    assert rescan(before, [str(path)]) is None
