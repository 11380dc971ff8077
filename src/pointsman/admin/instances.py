"""Which instances run on this machine: a folder for each, in a folder of this user.

    ${XDG_RUNTIME_DIR:-<temporary folder>}/pointsman-<uid>/<instance>/admin.sock

A folder belongs to whoever holds the lock inside it. The kernel lets go of a lock with its
process, so that the folder of an instance that was killed is known to be stale.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOCKET_NAME = "admin.sock"
LOCK_NAME = "lock"
DEFAULT_NAME = "default"
INSTANCE_VARIABLE = "POINTSMAN_INSTANCE"
MAX_INSTANCES = 100
"""Side by side for one user."""
_MAX_SOCKET_PATH = 103
"""Bytes; Linux has room for 107 and macOS for 103."""
_CONNECT_S = 1.0
_TRIES = 10
_PAUSE_S = 0.02
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")


class InstanceError(Exception):
    """No instance, several, or a folder that cannot be used; the text says what to do."""


def runtime_root() -> Path:
    """The folder in which this user's instances have theirs."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base, f"pointsman-{os.getuid()}")


@contextmanager
def instance_folder(name: str | None = None, root: Path | None = None) -> Iterator[Path]:
    """A folder of one's own for as long as the context lasts; its name is the instance's name.

    Without a name the first free one of `default`, `default-2`, ... is taken. The folder and what
    is in it are removed in the end. InstanceError when the name is taken or no folder can be had.
    """
    root = root if root is not None else runtime_root()
    _make_private(root)
    folder, lock = _take_named(root, name) if name is not None else _take_free(root)
    try:
        if len(os.fsencode(folder / SOCKET_NAME)) > _MAX_SOCKET_PATH:
            raise InstanceError(
                f"the path of the admin socket is too long for the system: {folder / SOCKET_NAME}"
                " (set XDG_RUNTIME_DIR to a shorter folder)"
            )
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def live_instances(root: Path | None = None) -> dict[str, Path]:
    """The admin sockets that answer, by instance; folders that nobody holds are removed."""
    root = root if root is not None else runtime_root()
    found: dict[str, Path] = {}
    for folder in _folders(root):
        if _answers(folder / SOCKET_NAME):
            found[folder.name] = folder / SOCKET_NAME
        else:
            _remove_stale(folder)
    return found


def choose(name: str | None, root: Path | None = None) -> Path:
    """The admin socket of the instance meant: the named one, or the only one that runs."""
    live = live_instances(root)
    names = ", ".join(live)
    if name is not None:
        if name in live:
            return live[name]
        running = f"running: {names}" if live else "none is running"
        raise InstanceError(f"no instance named {name!r} is running ({running})")
    if not live:
        raise InstanceError("no instance is running (start one with: pointsman run PATH)")
    if len(live) > 1:
        raise InstanceError(
            f"several instances are running: {names} (choose one with --instance NAME)"
        )
    return next(iter(live.values()))


def _take_named(root: Path, name: str) -> tuple[Path, int]:
    if not _NAME.fullmatch(name):
        raise InstanceError(
            f"{name!r} cannot be the name of an instance: at most 32 lower-case letters, digits"
            " and '-'"
        )
    taken = _take(root / name)
    if taken is None:
        raise InstanceError(f"an instance named {name!r} is running already")
    return root / name, taken


def _take_free(root: Path) -> tuple[Path, int]:
    for number in range(1, MAX_INSTANCES + 1):
        folder = root / (DEFAULT_NAME if number == 1 else f"{DEFAULT_NAME}-{number}")
        taken = _take(folder)
        if taken is not None:
            return folder, taken
    raise InstanceError(f"{MAX_INSTANCES} instances are running already")


def _take(folder: Path) -> int | None:
    """The lock of a fresh folder, None when another process holds it."""
    lock = _lock_fresh(folder)
    if lock is None:
        return None
    for entry in folder.iterdir():
        if entry.name != LOCK_NAME:  # left by an instance that was killed
            _remove(entry)
    return lock


def _lock_fresh(folder: Path) -> int | None:
    for _ in range(_TRIES):
        _make_private(folder)
        lock = _lock(folder)
        if lock is not None:
            return lock
        if _answers(folder / SOCKET_NAME):
            return None
        # Somebody who lists instances may just be clearing the folder away.
        time.sleep(_PAUSE_S)
    return None


def _lock(folder: Path) -> int | None:
    path = folder / LOCK_NAME
    try:
        lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None  # its holder is removing the folder at this moment
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The holder before may have removed the folder between our opening and locking.
        if os.fstat(lock).st_ino == path.stat().st_ino:
            return lock
    except OSError:
        pass  # held by another, or gone: not ours either way
    os.close(lock)
    return None


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.lstat()
    except OSError as error:
        raise InstanceError(f"cannot make the folder {folder}: {error.strerror}") from error
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise InstanceError(f"{folder} belongs to somebody else: remove it or set XDG_RUNTIME_DIR")
    if info.st_mode & 0o077:
        folder.chmod(0o700)


def _folders(root: Path) -> list[Path]:
    try:
        if root.lstat().st_uid != os.getuid():
            return []
        return sorted(entry for entry in root.iterdir() if entry.is_dir())[:MAX_INSTANCES]
    except OSError:
        return []  # nothing has ever run here


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_CONNECT_S)
        try:
            connection.connect(str(path))
        except OSError:
            return False
        return True


def _remove_stale(folder: Path) -> None:
    lock = _lock(folder)
    if lock is not None:  # else it is starting up or going down
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            entry.unlink()
