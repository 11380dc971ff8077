"""What Envoy says of a resource that it refuses, without what nobody can read.

Envoy puts the whole message into its complaint, as protobuf's debug text, and the reason at the
end; over the wire it cuts the complaint off, often before the reason.
"""

from __future__ import annotations

import re

_LOG_PREFIX = re.compile(r"^\[[\d :.-]+\]\[\d+\]\[\w+\]\[\w+\] \[[^\]]*\] ")
_FILE = re.compile(r"^error initializing configuration '[^']*': ")
_DUMP = re.compile(r"goo\.gle/debug\w*")
_NO_REASON = "Envoy names no reason"


def essence(text: str) -> str:
    r"""The complaint in one line, or the lines of it that are words.

    >>> essence("Error adding listener a: goo.gle/debugonly  \nrds {\n}\n: the name is short")
    'Error adding listener a: the name is short'
    >>> essence("[2026-01-01 10:00:00.123][7][critical][main] [a/b.cc:76] it is wrong\n")
    'it is wrong'
    """
    text = _FILE.sub("", _LOG_PREFIX.sub("", text.strip()))
    found = _DUMP.search(text)
    if found is None:
        return text
    head = text[: found.start()].rstrip(": \n")
    _, mark, reason = text[found.end() :].rpartition("\n: ")
    parts = (head, reason.strip() if mark else _NO_REASON)
    return ": ".join(part for part in parts if part)
