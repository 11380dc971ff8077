"""Which images Pointsman serves itself, and with which command."""

from __future__ import annotations

from pathlib import Path

import pytest

from pointsman.resources.core import Container
from pointsman.standalone.addresses import Place
from pointsman.standalone.images import Surroundings, is_known, stand_in

AROUND = Surroundings(
    Place("127.9.9.2"), Path("/run/pod"), Path("/run/admin.sock"), {"/config/": Path("/v/config")}
)


def container(image: str, *args: str, command: tuple[str, ...] = ()) -> Container:
    return Container(name="c", image=image, args=args, command=command)


@pytest.mark.parametrize(
    ("image", "command"),
    [
        ("vllm/vllm-openai:v0.10.0", "modelserver"),
        ("public.example.com/q9/vllm-cpu-release-repo:v0.8.0", "modelserver"),
        ("ghcr.io/llm-d/llm-d-inference-sim", "modelserver"),
        ("registry.example.com:5000/a/fake-llm@sha256:" + "0" * 64, "modelserver"),
        ("us-docker.example.dev/x/gateway-api-inference-extension/epp:main", "picker"),
        ("registry.example.io/llm-d-inference-scheduler:v1", "picker"),
        ("a/b/lora-syncer:main", "lora-syncer"),
    ],
)
def test_an_image_is_known_by_its_repository(image: str, command: str) -> None:
    found = stand_in(container(image), AROUND)
    assert found is not None
    assert found.command == command


@pytest.mark.parametrize("image", ["nginx", "acme/not-vllm-at-all", "", "epp-tools", "x/y/steppe"])
def test_other_images_are_not(image: str) -> None:
    assert not is_known(image)
    assert stand_in(container(image), AROUND) is None


@pytest.mark.parametrize(
    ("command", "args"),
    [
        (("python3", "-m", "vllm.entrypoints.openai.api_server"), ("--model", "m", "--port=7000")),
        (("vllm", "serve"), ("m", "--port", "7000")),
        ((), ("--model=m", "--port", "8000", "--port", "7000")),
    ],
)
def test_a_model_server_binds_to_its_pods_address_and_its_own_port(
    command: tuple[str, ...], args: tuple[str, ...]
) -> None:
    found = stand_in(container("vllm/vllm-openai", *args, command=command), AROUND)
    assert found is not None
    assert found.arguments[-4:] == ("--host", "127.9.9.2", "--port", "7000")
    assert found.arguments[0] not in ("python3", "vllm", "serve")
    assert found.readiness is not None
    assert found.readiness.http_get is not None
    assert found.readiness.http_get.port == 7000


@pytest.mark.parametrize("port", ["-grpcPort=9102", "--grpc-port=9102"])
def test_a_picker_gets_its_flags_its_address_and_the_feed(port: str) -> None:
    found = stand_in(container("x/epp", "-poolName", "p", port), AROUND)
    assert found is not None
    line = " ".join(found.arguments)
    assert line.startswith(f"-poolName p {port} -grpcPort 9102 -grpcHealthPort 9003")
    assert "--bind 127.9.9.2" in line
    assert "--feed unix:/run/admin.sock" in line
    assert found.admin_socket == Path("/run/pod/picker-admin.sock")


def test_paths_in_a_volume_become_paths_on_this_machine() -> None:
    assert AROUND.local_path("/config/a.yaml") == "/v/config/a.yaml"
    assert AROUND.local_path("/config") == "/v/config"
    assert AROUND.local_path("/configuration") == "/configuration"


def test_a_shared_address_gives_a_container_a_port_of_its_own() -> None:
    place = Place("127.0.0.1", is_shared=True)
    port = place.port(8000)
    assert port != 8000
    assert place.port(8000) == port
    assert place.ports == {8000: port}
