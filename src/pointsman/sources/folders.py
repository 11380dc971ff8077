"""Which files there are under the paths a user gave, and whether they have changed."""

from __future__ import annotations

import os
import stat
from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pointsman.resources.documents import MAX_CHARACTERS
from pointsman.resources.problems import Problem

SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "-"
MAX_FILES = 20_000
MAX_ENTRIES = 200_000
"""Looked at while searching; who gives `/` as the path is told so instead of kept waiting."""
MAX_BYTES = 4 * MAX_CHARACTERS
"""Of one file: UTF-8 needs at most four bytes a character."""


class Signature(NamedTuple):
    """Changes when a file's content, name or permissions do."""

    device: int
    inode: int
    size: int
    changed_ns: int


@dataclass(slots=True)
class Scan:
    """What was found: files by the name that problems bear, in their order."""

    files: dict[str, Signature] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    """The name of each file by its absolute path."""
    bases: dict[str, str] = field(default_factory=dict)
    """The paths that were given, as absolute paths, with the name of each."""
    unreadable: list[str] = field(default_factory=list)
    """Folders that are there and cannot be read: what is in them is not known."""

    def hides(self, name: str) -> bool:
        """Whether a file that was not found may be there all the same."""
        return any(name == path or name.startswith(f"{path}/") for path in self.unreadable)


def scan(paths: Sequence[str]) -> Scan:
    """All files under `paths`, in the order of the paths and by name within a folder.

    Folders are searched in full for YAML and JSON; names that start with a dot are passed over
    (editors' own files, and the folders behind a mounted ConfigMap).
    """
    found = Scan()
    seen: set[tuple[int, int]] = set()
    entries = 0
    for path in paths:
        if path == STDIN:
            continue
        base = os.path.abspath(path)  # noqa: PTH100  # resolve() would follow links
        found.bases[base] = path.rstrip("/")
        for name, info in _under(path, found):
            entries += 1
            if entries > MAX_ENTRIES or len(found.files) >= MAX_FILES:
                message = f"holds too many files, only the first {len(found.files)} are read"
                found.problems.append(Problem("error", path, 0, "", message))
                return found
            if info is None or (info.st_dev, info.st_ino) in seen:
                continue
            seen.add((info.st_dev, info.st_ino))
            found.files[name] = _signature(info)
            found.names[base + name.removeprefix(path.rstrip("/"))] = name
    return found


def _signature(info: os.stat_result) -> Signature:
    return Signature(info.st_dev, info.st_ino, info.st_size, info.st_ctime_ns)


def rescan(before: Scan, touched: Iterable[str]) -> Scan | None:
    """The scan `before`, with only the `touched` absolute paths looked at again.

    None when that is not enough: a folder may have come or gone, or the files' order is not to be
    told from their names alone.
    """
    files, names = dict(before.files), dict(before.names)
    fresh: dict[str, Signature] = {}
    for path in touched:
        name = names.get(path)
        if name is None:
            if _is_of_no_interest(path):
                continue
            name = _name_of(path, before)
            if name is None:
                return None
        try:
            info = Path(name).stat()
        except OSError:
            if files.pop(name, None) is None:
                return None
            continue
        if not stat.S_ISREG(info.st_mode):
            return None
        names[path] = name
        if name in files:
            files[name] = _signature(info)
        else:
            fresh[name] = _signature(info)
    if fresh:
        inodes = {(mark.device, mark.inode) for mark in files.values()}
        if len(files) + len(fresh) > MAX_FILES or any(
            (mark.device, mark.inode) in inodes for mark in fresh.values()
        ):
            return None
        order = list(files)
        for name in fresh:
            insort(order, name, key=_place)
        files.update(fresh)
        files = {name: files[name] for name in order}
    return replace(before, files=files, names=names)


def _name_of(path: str, before: Scan) -> str | None:
    """The name of a file that is new; None where more than its path decides whether it counts."""
    if len(before.bases) != 1 or before.problems:
        return None
    ((base, given),) = before.bases.items()
    inner = path.removeprefix(f"{base}/")
    is_hidden = any(part.startswith(".") for part in inner.split("/"))
    return None if inner == path or is_hidden else f"{given}/{inner}"


def _place(name: str) -> tuple[tuple[bool, str], ...]:
    """Sorts files as a search through folders meets them: files before folders, then by name."""
    *folders, file = name.split("/")
    return (*((True, folder) for folder in folders), (False, file))


def _is_of_no_interest(path: str) -> bool:
    name = Path(path).name
    if name.startswith(".") or name.endswith("~"):
        return True
    return not name.endswith(SUFFIXES) and Path(path).is_file()


def read_text(path: str) -> str:
    """The text of a file; OSError, or ValueError with a message, when there is none."""
    with Path(path).open("rb") as file:
        return text_of(file)


def text_of(stream: BinaryIO) -> str:
    """The text that a stream holds; raises as `read_text` does."""
    content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"is too large, at most {MAX_BYTES >> 20} MiB are read")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"is not UTF-8 text (line {line})") from error


def _under(path: str, found: Scan) -> Iterator[tuple[str, os.stat_result | None]]:
    try:
        info = Path(path).stat()
    except OSError as error:
        _note(found, path, error)
        return
    if not stat.S_ISDIR(info.st_mode):
        yield path, info
        return

    def on_error(error: OSError) -> None:
        _note(found, str(error.filename), error)

    for folder, folders, names in os.walk(path, onerror=on_error):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            yield _file(f"{folder.rstrip('/')}/{name}", name)
        # Folders count as entries too, so that a search through many empty ones ends.
        yield from ((name, None) for name in folders)


def _file(full: str, name: str) -> tuple[str, os.stat_result | None]:
    if name.startswith(".") or not name.endswith(SUFFIXES):
        return full, None
    try:
        info = os.stat(full)  # noqa: PTH116  # ten thousand Paths take half a second
    except OSError:
        return full, None  # gone since it was listed, or a link to nowhere: as good as absent
    return full, info if stat.S_ISREG(info.st_mode) else None


def _note(found: Scan, path: str, error: OSError) -> None:
    if isinstance(error, FileNotFoundError):
        message = "no such file or folder"
    else:
        message = f"cannot be read: {error.strerror or error}"
        found.unreadable.append(path.rstrip("/"))
    found.problems.append(Problem("error", path, 0, "", message))
