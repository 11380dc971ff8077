"""One container: `python -m tests.kubernetes.container FD`, with a `Container` as JSON on stdin.

This process makes the namespaces, becomes the parent of the container's first process, tells the
node its process id (or an error) as a line of JSON on the open file FD, and ends as that one ends.

The container sees this machine's files, changes to them are its own and end with it; in place of
/proc, /dev, /sys and /tmp it has fresh ones, and its volumes where it wants them. What it may not
do is real as well: its user, its capabilities, a root that cannot be written to.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from tests.kubernetes import linux

ROOT_SIZE = "512m"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LAYERS = Path("/mnt")
"""Where the container's root is put together; it is covered for this container only."""
NOT_STARTED = 128


@dataclass(frozen=True)
class Mount:
    """A file or folder of this machine and where the container sees it."""

    source: str
    target: str
    is_read_only: bool = False


@dataclass(frozen=True)
class Container:
    """What is started, and what it may do."""

    arguments: list[str]
    environment: dict[str, str]
    network: int
    """The pod's network namespace, an open file."""
    hostname: str
    files: dict[str, str]
    """Texts by path, written into the root."""
    mounts: list[Mount]
    kept: list[str]
    """Folders of this machine that must be there, readable by everybody and written by nobody."""
    user: int
    group: int
    groups: list[int]
    capabilities: list[str]
    may_gain_privileges: bool
    is_root_read_only: bool
    folder: str

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Container:
        given = json.loads(text)
        return cls(**{**given, "mounts": [Mount(**item) for item in given["mounts"]]})


def main() -> int:
    """The exit code of the container's first process, or 128 and the signal that ended it."""
    report = os.fdopen(int(sys.argv[1]), "w")
    linux.end_with_parent()
    container = Container.from_json(sys.stdin.read())
    reading, writing = os.pipe()
    try:
        linux.enter(container.network, linux.NEW_NETWORK)
        linux.unshare(
            linux.NEW_MOUNTS | linux.NEW_PIDS | linux.NEW_IPC | linux.NEW_HOSTNAME,
        )
    except OSError as error:
        return _refused(report, str(error))
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        report.close()
        _become(container, writing)
    os.close(writing)
    with os.fdopen(reading) as trouble:
        error_text = trouble.read()
    if error_text:
        os.waitpid(pid, 0)
        return _refused(report, error_text)
    report.write(json.dumps({"pid": pid}) + "\n")
    report.close()
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _refused(report: TextIO, text: str) -> int:
    report.write(json.dumps({"error": text}) + "\n")
    report.close()
    return NOT_STARTED


def _become(container: Container, trouble: int) -> None:
    """Turn into the container's first process; the open file closes when that has worked."""
    try:
        os.set_inheritable(trouble, False)
        os.setsid()
        os.umask(0o022)
        socket.sethostname(container.hostname[:63])
        _enter_root(container)
        _give_up_rights(container)
        linux.end_with_parent()
        os.chdir(container.folder)
        # What Python ignores its children would ignore too.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        name = container.arguments[0]
        program = shutil.which(name, path=container.environment.get("PATH"))
        if program is None:
            raise FileNotFoundError(f"{name}: no such program")
        os.execve(program, container.arguments, container.environment)
    except BaseException as error:
        os.write(trouble, str(error).encode())
    finally:
        os._exit(NOT_STARTED)


def _enter_root(container: Container) -> None:
    linux.mount("none", "/", flags=linux.RECURSIVE | linux.PRIVATE)
    # Opened before the machine's folders are covered.
    sources = {path: os.open(path, os.O_PATH) for path in _sources(container)}
    linux.mount("tmpfs", str(LAYERS), "tmpfs", options=f"size={ROOT_SIZE},mode=755")
    upper, work, root = (LAYERS / name for name in ("upper", "work", "root"))
    for path in (upper, work, root):
        path.mkdir()
    layers = f"lowerdir=/,upperdir={upper},workdir={work}"
    linux.mount("overlay", str(root), "overlay", options=layers)
    _mount_system(root)
    for folder in container.kept:
        _bind(sources[folder], _place(root, folder, is_folder=True), is_read_only=True)
        _open_the_way(root, folder)
    for name, text in container.files.items():
        _write(root, name, text)
    # The outer ones first, whatever their order in the manifest.
    for item in sorted(container.mounts, key=lambda item: item.target.count("/")):
        place = _place(root, item.target, is_folder=Path(item.source).is_dir())
        _bind(sources[item.source], place, item.is_read_only)
        # What the programs are is still there, wherever on this machine it lies.
        for folder in container.kept:
            if folder.startswith(f"{item.target.rstrip('/')}/"):
                _bind(sources[folder], _place(root, folder, is_folder=True), is_read_only=True)
                _open_the_way(root, folder)
    _place(root, container.folder, is_folder=True)
    if container.is_root_read_only:
        covered = {item.target.rstrip("/") for item in container.mounts}
        for name in {"/tmp", "/run"} - covered:
            _make_read_only(root / name[1:])
        _make_read_only(root)
    for handle in sources.values():
        os.close(handle)
    os.chdir(root)
    linux.mount(str(root), "/", flags=linux.MOVE)
    os.chroot(".")
    os.chdir("/")


def _sources(container: Container) -> set[str]:
    return {*container.kept, *(item.source for item in container.mounts)}


def _mount_system(root: Path) -> None:
    safe = linux.NO_SUID | linux.NO_DEV | linux.NO_EXEC
    linux.mount("proc", str(root / "proc"), "proc", safe)
    linux.mount("/sys", str(root / "sys"), flags=linux.BIND)
    _make_read_only(root / "sys")
    linux.mount("tmpfs", str(root / "tmp"), "tmpfs", linux.NO_SUID | linux.NO_DEV, "mode=1777")
    linux.mount("tmpfs", str(root / "run"), "tmpfs", linux.NO_SUID | linux.NO_DEV, "mode=755")
    devices = root / "dev"
    linux.mount("tmpfs", str(devices), "tmpfs", linux.NO_SUID, "mode=755")
    for name in DEVICES:
        (devices / name).touch()
        linux.mount(f"/dev/{name}", str(devices / name), flags=linux.BIND)
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (devices / name).symlink_to(f"/proc/self/{target}")
    (devices / "shm").mkdir()
    linux.mount("tmpfs", str(devices / "shm"), "tmpfs", safe, "mode=1777,size=64m")


def _place(root: Path, target: str, *, is_folder: bool) -> Path:
    """Where to mount something, made if it is not there. Links stay inside of the root."""
    place = root
    for part in Path(target).parts[1:]:
        place = place / part
        for _ in range(40):
            if not place.is_symlink():
                break
            led = place.readlink()
            place = root / str(led).lstrip("/") if led.is_absolute() else place.parent / led
    if is_folder:
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    return place


def _bind(source: int, place: Path, is_read_only: bool) -> None:
    linux.mount(f"/proc/self/fd/{source}", str(place), flags=linux.BIND | linux.RECURSIVE)
    if is_read_only:
        _make_read_only(place)


def _make_read_only(place: Path) -> None:
    linux.mount("none", str(place), flags=linux.REMOUNT | linux.BIND | linux.READ_ONLY)


def _open_the_way(root: Path, folder: str) -> None:
    """Everybody may pass through what leads to a folder, as through the folders of an image."""
    for parent in Path(folder).parents:
        inside = root / str(parent).lstrip("/")
        mode = inside.stat().st_mode
        if mode & 0o011 != 0o011:
            inside.chmod((mode & 0o7777) | 0o011)


def _write(root: Path, path: str, text: str) -> None:
    place = root / path.lstrip("/")
    # A link may lead out of the root, and something may hold the file open.
    place.unlink(missing_ok=True)
    place.write_text(text)
    place.chmod(0o644)


def _give_up_rights(container: Container) -> None:
    linux.keep_capabilities(set(container.capabilities))
    if not container.may_gain_privileges:
        linux.forbid_new_privileges()
    os.setgroups(container.groups)
    os.setgid(container.group)
    os.setuid(container.user)


if __name__ == "__main__":
    sys.exit(main())
