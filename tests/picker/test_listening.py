"""TLS as the flags ask for it, on the ports of gateways and of metrics."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import tempfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from pointsman.certificates import Authority
from pointsman.picker.process import Picker
from pointsman.picker.settings.options import Options
from pointsman.store import Store
from tests.picker.conftest import Objects, free_ports, pool

ECDSA = "ECDHE-ECDSA-AES256-GCM-SHA384"


@pytest.fixture
def authority(folder: Path) -> Authority:
    """Has signed the certificate of the picker (`server`), and that of a reader (`client`)."""
    made = Authority.create("tests", timedelta(days=1))
    (folder / "ca.crt").write_bytes(made.certificate)
    for name in ("server", "client"):
        (folder / name).mkdir()
        certificate, key = made.issue(name, ["127.0.0.1"], timedelta(days=1))
        (folder / name / "tls.crt").write_bytes(certificate)
        (folder / name / "tls.key").write_bytes(key)
    return made


@contextlib.asynccontextmanager
async def running(**more: object) -> AsyncIterator[tuple[int, int]]:
    """A picker; yields its ports of gateways and of metrics."""
    ports = free_ports(3)
    options = Options(
        pool_name="pool",
        bind="127.0.0.1",
        grpc_port=ports[0],
        grpc_health_port=ports[1],
        metrics_port=ports[2],
        **more,  # type: ignore[arg-type]
    )
    store = Store()
    store.apply([pool()])
    async with Picker(options, store, Objects(store)).running():
        yield ports[0], ports[2]


async def agreed(port: int, context: ssl.SSLContext) -> tuple[str | None, str]:
    """Version and cipher on which both sides agree."""
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    tls = writer.get_extra_info("ssl_object")
    writer.close()
    return tls.version(), tls.cipher()[0]


async def test_the_lowest_version_and_the_ciphers_are_those_of_the_flags() -> None:
    older = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    async with running(tls_ciphers=(ECDSA,)) as (port, _):
        assert await agreed(port, older) == ("TLSv1.2", ECDSA)
    async with running(tls_min_version=ssl.TLSVersion.TLSv1_3) as (port, _):
        assert (await agreed(port, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)))[0] == "TLSv1.3"
        with pytest.raises(OSError):  # noqa: PT011  # a TLS alert, or only the end of it
            await agreed(port, older)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no files in memory here")
async def test_a_certificate_is_made_where_no_file_can_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", refuse)
    async with running() as (port, _):
        version, _ = await agreed(port, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        assert version == "TLSv1.3"


async def test_metrics_may_be_behind_tls_and_a_clients_certificate(
    folder: Path, authority: Authority
) -> None:
    del authority
    flags = {"metrics_cert_path": folder / "server", "metrics_client_ca": folder / "ca.crt"}
    async with running(**flags) as (_, port), aiohttp.ClientSession() as session:
        url = f"https://127.0.0.1:{port}/metrics"
        context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        with pytest.raises(aiohttp.ClientError):
            await session.get(url, ssl=context)
        context.load_cert_chain(folder / "client" / "tls.crt", folder / "client" / "tls.key")
        async with session.get(url, ssl=context) as answer:
            assert "inference_pool_ready_pods" in await answer.text()
