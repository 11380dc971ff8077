"""Which files there are under the paths a user gave, and whether they have changed."""

from __future__ import annotations

import os
import stat
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
    """The scan `before`, with only the `touched` paths looked at again.

    None when that is not enough: something came or went that may be a folder or a new file.
    """
    files = dict(before.files)
    for path in touched:
        name = before.names.get(path)
        if name is None:
            if _is_of_no_interest(path):
                continue
            return None
        try:
            info = Path(name).stat()
        except OSError:
            files.pop(name, None)
            continue
        files[name] = _signature(info)
    return replace(before, files=files)


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
            yield _file(folder, name)
        # Folders count as entries too, so that a search through many empty ones ends.
        yield from ((name, None) for name in folders)


def _file(folder: str, name: str) -> tuple[str, os.stat_result | None]:
    full = str(Path(folder, name))
    if name.startswith(".") or not name.endswith(SUFFIXES):
        return full, None
    try:
        info = Path(full).stat()
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
