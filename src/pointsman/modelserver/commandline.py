"""vLLM's command line, as charts and guides write it, brought into the form that click reads.

What vLLM accepts and click does not:

- `vllm serve MODEL ...`, `serve MODEL ...` or `python3 -m vllm.entrypoints.openai.api_server ...`
  before the flags, when a manifest's whole command is handed over;
- underscores in flags (`--max_loras`), and values as `--flag=value`;
- several values after one flag (`--lora-modules a=/x b=/y`);
- flags that only mean something with a GPU: they are collected and reported once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from pointsman.modelserver.served import Adapter

MULTIPLE = frozenset(("--lora-modules", "--served-model-name", "--api-key", "--failure-types"))
"""Flags that take several values at once."""

_SWITCHES = frozenset(
    (
        "--async-scheduling",
        "--disable-log-requests",
        "--disable-log-stats",
        "--enable-auto-tool-choice",
        "--enable-chunked-prefill",
        "--enable-expert-parallel",
        "--enable-log-requests",
        "--enable-sleep-mode",
        "--enforce-eager",
        "--trust-remote-code",
    )
)
"""Ignored flags after which no value follows, so that a model's name after them is not lost."""

_SINGLE_DASH = {"-O", "-tp", "-pp", "-dp", "-q", "-sc", "-cc", "-asc", "-n", "-r", "-dcp", "-ep"}
"""Short forms of vLLM flags, none of which mean anything here."""


@dataclass(slots=True)
class Arguments:
    """A command line in click's form, and what was left out of it."""

    kept: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def normalized(args: list[str], takes_value: dict[str, bool]) -> Arguments:
    """Brings arguments into click's form.

    `takes_value` names the known flags, and says of each whether a value follows.
    """
    result = Arguments()
    rest = _without_program(list(args))
    position = 0
    while position < len(rest):
        word = rest[position]
        position += 1
        if not word.startswith("-") or word in ("-", "-h"):
            result.kept.append(word)
            continue
        flag, equals, value = word.partition("=")
        if flag.startswith("--"):
            flag = flag.replace("_", "-")
        follow = _values_after(rest, position)
        if flag not in takes_value:
            if not equals and flag not in _SWITCHES and not flag.startswith("--no-"):
                position += len(follow)
                value = " ".join(follow)
            result.ignored.append(f"{flag} {value}".rstrip())
        elif not takes_value[flag]:
            # A JSON-ish boolean (`--enable-lora=true`) is understood, since charts write it.
            if value.lower() not in ("false", "0"):
                result.kept.append(flag)
        elif equals:
            result.kept += [flag, value]
        elif flag in MULTIPLE:
            position += len(follow)
            for entry in follow:
                result.kept += [flag, entry]
        elif position < len(rest):
            result.kept += [flag, rest[position]]
            position += 1
        else:
            result.kept.append(flag)
    return result


def _without_program(args: list[str]) -> list[str]:
    """Drops what stands before the arguments in a manifest's command."""
    if args and args[0].rsplit("/", 1)[-1].startswith("python"):
        args = args[1:]
        while args and args[0].startswith("-") and args[0] != "-m":
            args = args[1:]
        if args[:1] == ["-m"]:
            args = args[2:]
    if args and args[0].rsplit("/", 1)[-1] == "vllm":
        args = args[1:]
    if args and args[0] == "serve":
        args = args[1:]
    return args


def _values_after(args: list[str], position: int) -> list[str]:
    values = []
    for word in args[position:]:
        if word.startswith("--") or word in _SINGLE_DASH:
            break
        values.append(word)
    return values


def parse_adapters(entries: Iterable[str]) -> tuple[Adapter, ...]:
    """Reads `--lora-modules`: `name=path`, a JSON object, or a JSON list of objects.

    Raises:
        ValueError: if an entry is none of these; the message says which and what was expected.
    """
    adapters: list[Adapter] = []
    for entry in entries:
        stripped = entry.strip()
        if stripped.startswith(("{", "[")):
            try:
                value = json.loads(stripped)
            except json.JSONDecodeError as error:
                raise ValueError(f"--lora-modules {entry}: not JSON ({error})") from None
            objects = value if isinstance(value, list) else [value]
            adapters += [_adapter(entry, each) for each in objects]
        else:
            name, equals, path = stripped.partition("=")
            if not equals or not name or not path:
                raise ValueError(
                    f"--lora-modules {entry}: expected name=path or"
                    ' {"name": ..., "path": ..., "base_model_name": ...}'
                )
            adapters.append(Adapter(name, path))
    return tuple(adapters)


def _adapter(entry: str, value: object) -> Adapter:
    if isinstance(value, dict):
        name, path = value.get("name"), value.get("path")
        base = value.get("base_model_name")
        if isinstance(name, str) and isinstance(path, str) and isinstance(base, str | None):
            return Adapter(name, path, base)
    raise ValueError(f'--lora-modules {entry}: expected {{"name": ..., "path": ...}}')


def parse_length(text: str) -> int:
    """A number of tokens as vLLM writes them: `4096`, `32k` (1,000s), `32K` (1,024s).

    Raises:
        ValueError: for anything else.
    """
    factors = {"k": 1000, "K": 1024, "m": 1000**2, "M": 1024**2}
    stripped = text.strip()
    factor = factors.get(stripped[-1:], 1)
    return round(float(stripped[:-1] if factor != 1 else stripped) * factor)
