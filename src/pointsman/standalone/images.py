"""Container images that Pointsman serves itself, and the command that stands in for each.

An image is known by the name of its repository, whatever registry or tag it comes from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pointsman.picker.settings import flags
from pointsman.picker.settings.options import Options
from pointsman.resources.core import Container, Probe
from pointsman.standalone.addresses import Place

MODEL_SERVER_PORT = 8000
PICKER_PORT = 9002
PICKER_IMAGE = "pointsman/epp"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a container's command needs to know of its pod."""

    place: Place
    folder: Path
    """The pod's own folder, for sockets."""
    feed: Path
    """The admin socket of this instance: where objects come from."""
    mounts: Mapping[str, Path]
    """Mount path in the container to the folder on this machine."""

    def local_path(self, text: str) -> str:
        """`text` with a mount path at its start turned into the folder behind it."""
        for mount in sorted(self.mounts, key=len, reverse=True):
            root = mount.rstrip("/")
            if text == root or text.startswith(f"{root}/"):
                return str(self.mounts[mount]) + text[len(root) :]
        return text


@dataclass(frozen=True, slots=True)
class StandIn:
    """One of our commands in the place of an image."""

    command: str
    arguments: tuple[str, ...]
    readiness: Probe | None = None
    """How to ask whether it is ready, where the manifest does not say."""
    admin_socket: Path | None = None
    """Where a picker answers questions about its endpoints."""


Maker = Callable[[Container, Surroundings], StandIn]


def stand_in(container: Container, around: Surroundings) -> StandIn | None:
    """What runs in the place of a container; None for an image that nobody knows."""
    maker = _maker(container.image)
    return maker(container, around) if maker is not None else None


def is_known(image: str) -> bool:
    """Whether Pointsman can serve that image."""
    return _maker(image) is not None


def is_vllm(image: str) -> bool:
    """Whether the image is vLLM, or something that takes its command line."""
    return _maker(image) is _model_server


def known_images() -> str:
    """What to say to somebody whose image is not known."""
    return ", ".join(name for name, _, _ in _KNOWN)


def _maker(image: str) -> Maker | None:
    repository = re.sub(r"(@sha256:[0-9a-f]+)$|(:[\w.-]+)$", "", image)
    return next((maker for _, pattern, maker in _KNOWN if pattern.search(repository)), None)


def _model_server(container: Container, around: Surroundings) -> StandIn:
    given = _after_vllm_command((*container.command, *container.args))
    port = int_flag(given, "--port", MODEL_SERVER_PORT)
    return _model_server_at(port, tuple(around.local_path(item) for item in given), around)


def _fake_llm(container: Container, around: Surroundings) -> StandIn:
    return _model_server_at(MODEL_SERVER_PORT, ("--preset", "fake-llm"), around)


def _model_server_at(port: int, given: tuple[str, ...], around: Surroundings) -> StandIn:
    real = str(around.place.port(port))
    # The last of a repeated flag counts, so these win over the manifest's.
    arguments = (*given, "--host", around.place.ip, "--port", real)
    probe = Probe.model_validate({"httpGet": {"path": "/health", "port": port}})
    return StandIn("modelserver", arguments, probe)


def _picker(container: Container, around: Surroundings) -> StandIn:
    given = container.args or container.command[1:]
    try:
        said = flags.parse(given)
    except flags.FlagError:
        # The picker tells of it when it starts.
        said = Options()
    ports = {
        "-grpcPort": said.grpc_port,
        "-grpcHealthPort": said.grpc_health_port,
        "-metricsPort": said.metrics_port,
    }
    real = [part for flag, port in ports.items() for part in (flag, str(around.place.port(port)))]
    socket = around.folder / "picker-admin.sock"
    arguments = (
        *(around.local_path(item) for item in given),
        *real,
        *("--bind", around.place.ip),
        *("--feed", f"unix:{around.feed}"),
        *("--admin-socket", str(socket)),
    )
    health = {"grpc": {"port": ports["-grpcHealthPort"], "service": "inference-extension"}}
    return StandIn("picker", arguments, Probe.model_validate(health), socket)


def _lora_syncer(container: Container, around: Surroundings) -> StandIn:
    given = tuple(around.local_path(item) for item in container.args)
    return StandIn("lora-syncer", (*given, "--host", around.place.ip))


def _after_vllm_command(line: tuple[str, ...]) -> tuple[str, ...]:
    """What follows `vllm serve` or `python3 -m vllm...api_server` (or stands alone)."""
    for index, part in enumerate(line):
        if part in ("serve", "vllm.entrypoints.openai.api_server"):
            return line[index + 1 :]
    return line[1:] if line[:1] == ("vllm",) else line


def int_flag(arguments: tuple[str, ...], name: str, default: int) -> int:
    """The last value of a flag, in any form that Go's or Python's parsers take."""
    bare = name.lstrip("-").replace("_", "-")
    found = default
    for index, part in enumerate(arguments):
        flag, equals, value = part.partition("=")
        if flag.lstrip("-").replace("_", "-") != bare or not flag.startswith("-"):
            continue
        text = value if equals else next(iter(arguments[index + 1 : index + 2]), "")
        if text.isascii() and text.isdigit():
            found = int(text)
    return found


_KNOWN: tuple[tuple[str, re.Pattern[str], Maker], ...] = (
    (
        "the endpoint picker (epp)",
        re.compile(r"(^|[/-])(epp|endpoint-picker|llm-d-inference-scheduler|llm-d-router)$"),
        _picker,
    ),
    ("the LoRA syncer (lora-syncer)", re.compile(r"(^|/)lora-syncer$"), _lora_syncer),
    ("the fake LLM (fake-llm)", re.compile(r"(^|/)fake-llm$"), _fake_llm),
    (
        "vLLM (vllm-openai, vllm-cpu...) and its simulator",
        re.compile(r"(^|/)(vllm[^/]*|[^/]*inference-sim)$"),
        _model_server,
    ),
)
