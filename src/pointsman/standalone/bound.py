"""Runs a command that ends when its parent does: `python -m pointsman.standalone.bound COMMAND...`.

On Linux the kernel is asked to send SIGTERM when the parent is gone, which survives the exec.
Elsewhere this process stays, starts the command, and ends it when standard input ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading

PR_SET_PDEATHSIG = 1
GRACE_S = 10.0


def main(argv: list[str]) -> int:
    """Become the command, or its guardian."""
    if not argv:
        print("usage: python -m pointsman.standalone.bound COMMAND...", file=sys.stderr)  # noqa: T201
        return 2
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            return 1  # the parent was gone before the kernel was asked
        os.execvp(argv[0], argv)  # noqa: S606 - no shell is what is wanted
    return _guard(argv)


def _guard(argv: list[str]) -> int:
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL)  # noqa: S603 - no shell
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    threading.Thread(target=_end_with_input, args=(child,), daemon=True).start()
    return child.wait()


def _end_with_input(child: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    child.terminate()
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
