"""What Python before 3.12 cannot ask of Linux: namespaces, mounts, and to end with a parent."""

from __future__ import annotations

import ctypes
import os
import signal

NEW_MOUNTS = 0x00020000
NEW_HOSTNAME = 0x04000000
NEW_IPC = 0x08000000
NEW_PIDS = 0x20000000
NEW_NETWORK = 0x40000000

READ_ONLY = 1
NO_SUID = 2
NO_DEV = 4
NO_EXEC = 8
REMOUNT = 32
BIND = 4096
MOVE = 8192
RECURSIVE = 16384
PRIVATE = 1 << 18

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38

_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
    "SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
    "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG "
    "WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
CAPABILITIES = tuple(_NAMES.split())
"""Capabilities in the order of their numbers in Linux, from 0."""

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """New namespaces for the calling thread."""
    _checked("unshare", _libc.unshare(flags))


def enter(namespace: int, kind: int) -> None:
    """The calling thread goes to a namespace, given as an open file."""
    _checked("setns", _libc.setns(namespace, kind))


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """As mount(2)."""
    parts = (text.encode() or None for text in (source, target, kind))
    result = _libc.mount(*parts, ctypes.c_ulong(flags), options.encode() or None)
    _checked(f"mount {kind or source} at {target}", result)


def end_with_parent() -> None:
    """This process is killed when the thread ends that made it. A change of user undoes this."""
    _checked("prctl", _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def keep_capabilities(names: set[str]) -> None:
    """No program that is started from here on can have another capability than these."""
    for number, name in enumerate(CAPABILITIES):
        # One that this kernel does not know, or that nobody has, needs no dropping.
        if name not in names and _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            continue


def forbid_new_privileges() -> None:
    """No program that is started from here on gets more rights than this process has."""
    _checked("prctl", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _checked(what: str, result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
