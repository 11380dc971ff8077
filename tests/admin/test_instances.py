from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import socket
import threading
from pathlib import Path

import pytest

from pointsman.admin.instances import (
    LOCK_NAME,
    SOCKET_NAME,
    InstanceError,
    choose,
    instance_folder,
    live_instances,
    runtime_root,
)


def listen(folder: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / SOCKET_NAME))
    listening.listen()
    return listening


def test_the_root_is_this_user_s(monkeypatch: pytest.MonkeyPatch, short_folder: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_folder))
    assert runtime_root() == short_folder / f"pointsman-{os.getuid()}"

    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert runtime_root().name == f"pointsman-{os.getuid()}"


def test_a_folder_is_private_and_goes_in_the_end(short_folder: Path) -> None:
    with instance_folder("one", short_folder / "root") as folder:
        assert folder == short_folder / "root" / "one"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert folder.parent.stat().st_mode & 0o777 == 0o700
        (folder / "more").mkdir()

    assert not folder.exists()


def test_a_name_is_taken_once(short_folder: Path) -> None:
    with instance_folder("one", short_folder):
        with pytest.raises(InstanceError, match="'one' is running already"):
            instance_folder("one", short_folder).__enter__()
        with instance_folder("two", short_folder):
            pass

    with instance_folder("one", short_folder):
        pass


def test_without_a_name_the_first_free_one_is_taken(short_folder: Path) -> None:
    with (
        instance_folder(None, short_folder) as first,
        instance_folder(None, short_folder) as second,
    ):
        assert (first.name, second.name) == ("default", "default-2")


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "a" * 33, "-a", "a\n"])
def test_a_name_is_a_plain_word(short_folder: Path, name: str) -> None:
    with pytest.raises(InstanceError, match="cannot be the name"):
        instance_folder(name, short_folder).__enter__()


def test_what_a_killed_instance_left_is_cleared_away(short_folder: Path) -> None:
    left = short_folder / "one"
    left.mkdir()
    (left / LOCK_NAME).touch()
    (left / "old").mkdir()
    (left / "file").touch()
    listen(left).close()

    with instance_folder("one", short_folder) as folder:
        assert [entry.name for entry in folder.iterdir()] == [LOCK_NAME]


def test_stale_folders_are_removed_when_instances_are_listed(short_folder: Path) -> None:
    stale = short_folder / "stale"
    stale.mkdir()
    listen(stale).close()

    with instance_folder("live", short_folder) as folder, listen(folder):
        assert live_instances(short_folder) == {"live": folder / SOCKET_NAME}
    assert not stale.exists()


def test_a_folder_of_an_instance_that_starts_is_left_alone(short_folder: Path) -> None:
    with instance_folder("starting", short_folder) as folder:
        assert live_instances(short_folder) == {}
        assert folder.exists()


def hold(root: Path, ready: socket.socket) -> None:
    with instance_folder("one", root):
        ready.send(b"x")
        ready.recv(1)


def test_the_lock_of_another_process_counts_and_goes_with_it(short_folder: Path) -> None:
    ours, theirs = socket.socketpair()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=hold, args=(short_folder, theirs))
    process.start()
    ours.settimeout(5)
    assert ours.recv(1) == b"x"
    try:
        with pytest.raises(InstanceError, match="running already"):
            instance_folder("one", short_folder).__enter__()
    finally:
        process.kill()
        process.join(5)
        ours.close()
        theirs.close()

    with instance_folder("one", short_folder):
        pass


def test_the_only_instance_is_chosen(short_folder: Path) -> None:
    with pytest.raises(InstanceError, match="no instance is running"):
        choose(None, short_folder)

    with instance_folder("one", short_folder) as one, listen(one):
        assert choose(None, short_folder) == one / SOCKET_NAME
        assert choose("one", short_folder) == one / SOCKET_NAME
        with pytest.raises(InstanceError, match=r"'two' is running \(running: one\)"):
            choose("two", short_folder)

        with instance_folder("two", short_folder) as two, listen(two):
            with pytest.raises(InstanceError, match="several instances are running: one, two"):
                choose(None, short_folder)
            assert choose("two", short_folder) == two / SOCKET_NAME


def test_a_root_that_is_not_a_folder_of_ours_is_refused(short_folder: Path) -> None:
    (short_folder / "file").touch()
    (short_folder / "link").symlink_to(short_folder)

    for name in ("file", "link"):
        with pytest.raises(InstanceError):
            instance_folder("one", short_folder / name).__enter__()


def test_an_open_root_is_closed(short_folder: Path) -> None:
    root = short_folder / "root"
    root.mkdir(mode=0o755)

    with instance_folder("one", root):
        assert root.stat().st_mode & 0o777 == 0o700


def test_a_path_too_long_for_a_socket_is_said_so(short_folder: Path) -> None:
    with pytest.raises(InstanceError, match="XDG_RUNTIME_DIR"):
        instance_folder("one", short_folder / ("x" * 100)).__enter__()


def test_a_folder_that_is_being_cleared_away_is_waited_for(short_folder: Path) -> None:
    cleared = short_folder / "one"
    cleared.mkdir(mode=0o700)
    lock = os.open(cleared / LOCK_NAME, os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)

    def clear() -> None:
        shutil.rmtree(cleared)
        os.close(lock)

    clearing = threading.Timer(0.05, clear)
    clearing.start()
    try:
        with instance_folder("one", short_folder) as folder:
            assert folder.exists()
    finally:
        clearing.join(5)
