"""The sockets of a picker: gRPC with and without TLS, HTTP for metrics and the admin socket."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from pointsman.certificates import Rotation, server_context
from pointsman.picker.settings.options import Options
from pointsman.wire.http2 import Limits
from pointsman.wire.server import GrpcServer

log = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT_S = 1.0
CERTIFICATE_INTERVAL_S = 1.0
"""Between two looks at the files of certificates."""


class Certificates:
    """The TLS contexts of a picker, whose certificates follow their files."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._rotations: list[Rotation] = []

    def of_gateways(self) -> ssl.SSLContext | None:
        """For the gRPC port; None for plain HTTP/2."""
        options = self._options
        if not options.secure_serving:
            return None
        return self._followed(server_context(options.cert_path, "pointsman-picker"))

    def of_metrics(self) -> ssl.SSLContext | None:
        """For the metrics port; None for plain HTTP."""
        options = self._options
        folder = options.metrics_cert_path
        if folder is None:
            return None
        context = server_context(folder, "pointsman-picker")
        context.set_alpn_protocols(["http/1.1"])
        if options.metrics_client_ca is not None:
            context.load_verify_locations(options.metrics_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return self._followed(context, folder)

    def _followed(self, context: ssl.SSLContext, folder: Path | None = None) -> ssl.SSLContext:
        options = self._options
        context.minimum_version = options.tls_min_version
        if options.tls_ciphers:
            context.set_ciphers(":".join(options.tls_ciphers))
        folder = folder if folder is not None else options.cert_path
        if folder is not None and options.reloads_certificates:
            self._rotations.append(Rotation(context, folder))
        return context

    async def follow(self) -> None:
        """Take up new certificates, for ever; a wrong one leaves the last good one."""
        while True:
            await asyncio.sleep(CERTIFICATE_INTERVAL_S)
            for rotation in self._rotations:
                try:
                    if rotation.refresh():
                        log.info("A new certificate is in use")
                except (OSError, ssl.SSLError) as error:
                    log.warning("The certificate stays as it was: %s", error)


def limits(options: Options) -> Limits:
    """What one connection of a gateway may ask for."""
    found = Limits()
    if options.max_received_bytes is not None:
        found = replace(found, max_received_message_bytes=options.max_received_bytes)
    if options.max_sent_bytes is not None:
        found = replace(found, max_sent_message_bytes=options.max_sent_bytes)
    return found


async def listen(
    service: GrpcServer, health: GrpcServer, options: Options, tls: Certificates
) -> None:
    """Listen where the options say."""
    for address in options.listen:
        if address.startswith("unix:"):
            await service.listen_unix(Path(address.removeprefix("unix:")))
        else:
            host, _, port = address.rpartition(":")
            await service.listen_tcp(host.strip("[]"), int(port))
    if options.has_own_pool:
        await service.listen_tcp(options.bind, options.grpc_port, tls.of_gateways())
        await health.listen_tcp(options.bind, options.grpc_health_port)


@asynccontextmanager
async def http_site(
    app: web.Application,
    *,
    unix: Path | None = None,
    tcp: tuple[str, int] | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[None]:
    """Serve HTTP on a Unix socket, a TCP port or both, until the end of the block."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    try:
        if unix is not None:
            unix.unlink(missing_ok=True)  # noqa: ASYNC240  # one call, on a local file system
            await web.UnixSite(runner, str(unix)).start()
        if tcp is not None:
            await web.TCPSite(runner, *tcp, ssl_context=tls).start()
        yield
    finally:
        await runner.cleanup()
