"""The real commands of containers, where they are installed on this machine and asked for.

A container's command is run as its manifest has it, with paths of its volumes turned into folders
of this machine. A vLLM is told to listen on its pod's address. What is not installed is left to the
stand-in. Nothing of this happens unless the user asks for it: a manifest could name any program.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from functools import lru_cache

from pointsman.resources.core import Container, Probe
from pointsman.standalone.images import (
    MODEL_SERVER_PORT,
    Surroundings,
    int_flag,
    is_vllm,
)

VLLM_MODULE = "vllm.entrypoints.openai.api_server"
ASK_TIMEOUT_S = 20.0
_PYTHON = re.compile(r"(^|/)python[0-9.]*$")


def real_command(container: Container) -> tuple[str, ...] | None:
    """The command line of a container that can run here; None where it cannot."""
    line = (*container.command, *container.args)
    if is_vllm(container.image) and not container.command:
        line = ("python3", "-m", VLLM_MODULE, *container.args)
    elif not container.command:
        return None  # the image's own entry point is not known
    program = shutil.which(line[0])
    if program is None:
        return None
    if _PYTHON.search(line[0]) and line[1:2] == ("-m",):
        module = line[2].partition(".")[0] if len(line) > 2 else ""
        if not module.isidentifier() or not _has_module(program, module):
            return None
    return (program, *line[1:])


def placed(
    container: Container, line: tuple[str, ...], around: Surroundings
) -> tuple[tuple[str, ...], Probe | None]:
    """The command line in its place, and how to ask whether it is ready."""
    local = tuple(around.local_path(part) for part in line)
    if not is_vllm(container.image) and VLLM_MODULE not in line:
        return local, None
    port = int_flag(line, "--port", MODEL_SERVER_PORT)
    probe = Probe.model_validate({"httpGet": {"path": "/health", "port": port}})
    # The last of a repeated flag counts.
    return (*local, "--host", around.place.ip, "--port", str(around.place.port(port))), probe


@lru_cache(maxsize=64)
def _has_module(python: str, module: str) -> bool:
    """Whether that Python can import a module."""
    if python == sys.executable:
        return importlib.util.find_spec(module) is not None
    code = f"import importlib.util; raise SystemExit(importlib.util.find_spec({module!r}) is None)"
    try:
        done = subprocess.run(  # noqa: S603 - what runs here was asked for, and no shell reads it
            [python, "-c", code], timeout=ASK_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
