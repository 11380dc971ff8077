"""`pointsman controller`: the gateway of a Kubernetes cluster."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import sys
from datetime import timedelta
from pathlib import Path

import click
import uvloop

from pointsman.cluster.controller import ClusterController, ControllerSettings
from pointsman.cluster.settings import OWN_CONTROLLER, Installation
from pointsman.resources.durations import go_seconds
from pointsman.resources.fields import CONTROLLER_NAME, DNS_LABEL, GO_DURATION, PATTERN_TEXTS
from pointsman.sources.kubernetes.access import Access, AccessError, access, namespace_in
from pointsman.sources.kubernetes.api import Api

DEFAULT_NAMESPACE = "pointsman-system"
SHORTEST_CERTIFICATE_LIFE_S = 10.0
_LEVELS = (logging.INFO, logging.DEBUG)


def _matching(pattern: str) -> click.ParamType[str]:
    class Matching(click.ParamType[str]):
        name = "text"

        def convert(
            self, value: str, param: click.Parameter | None, ctx: click.Context | None
        ) -> str:
            if not re.fullmatch(pattern, value):
                self.fail(f"{value!r} is not {PATTERN_TEXTS[pattern]}", param, ctx)
            return value

    return Matching()


_NAMESPACE = _matching(DNS_LABEL)
_PORT = click.IntRange(1, 65535)


@click.command()
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="How to reach the API server.")
@click.option("--context", "context_name", help="Which context of the kubeconfig.")
@click.option(
    "--controller-name",
    "controllers",
    multiple=True,
    type=_matching(CONTROLLER_NAME),
    default=(OWN_CONTROLLER,),
    show_default=True,
    help="Serve the GatewayClasses of this controller; may be repeated. With "
    "gateway.envoyproxy.io/gatewayclass-controller those of Envoy Gateway.",
)
@click.option(
    "--namespace",
    type=_NAMESPACE,
    envvar="POD_NAMESPACE",
    help="Where the controller is installed.  [default: the pod's, or pointsman-system]",
)
@click.option(
    "--watch-namespace",
    "watch_namespaces",
    multiple=True,
    type=_NAMESPACE,
    help="Look at this namespace only; may be repeated.",
)
@click.option(
    "--service",
    type=_matching(DNS_LABEL),
    default="pointsman",
    show_default=True,
    help="The Service by which Envoys find the controller.",
)
@click.option("--xds-port", type=_PORT, default=18000, show_default=True)
@click.option("--health-port", type=_PORT, default=8081, show_default=True)
@click.option("--metrics-port", type=_PORT, default=9090, show_default=True)
@click.option("--bind", default="0.0.0.0", show_default=True, help="The address of these ports.")
@click.option(
    "--image",
    envvar="POINTSMAN_IMAGE",
    default="pointsman",
    show_default=True,
    help="The image of Envoys and of pickers that are provided: that of Pointsman.",
)
@click.option(
    "--image-pull-policy",
    envvar="POINTSMAN_IMAGE_PULL_POLICY",
    type=click.Choice(["Always", "IfNotPresent", "Never"]),
)
@click.option(
    "--image-pull-secret",
    "image_pull_secrets",
    multiple=True,
    help="A Secret for that image in the namespaces of Gateways and pools; may be repeated.",
)
@click.option(
    "--provide-pickers",
    is_flag=True,
    help="Make a picker for every InferencePool that names none.",
)
@click.option(
    "--leader-election/--no-leader-election",
    "elects_leader",
    default=True,
    help="Of several replicas one writes; without, this one does.",
)
@click.option(
    "--certificate-lifetime",
    default="2160h",
    show_default=True,
    help="Of the certificates between the controller and Envoys; renewed after two thirds.",
)
@click.option("-v", "--verbose", is_flag=True, help="Say more.")
def controller(  # one option, one parameter
    kubeconfig: Path | None,
    context_name: str | None,
    controllers: tuple[str, ...],
    namespace: str | None,
    watch_namespaces: tuple[str, ...],
    service: str,
    xds_port: int,
    health_port: int,
    metrics_port: int,
    bind: str,
    image: str,
    image_pull_policy: str | None,
    image_pull_secrets: tuple[str, ...],
    provide_pickers: bool,
    elects_leader: bool,
    certificate_lifetime: str,
    verbose: bool,
) -> None:
    """Serve the Gateways of a Kubernetes cluster.

    For each Gateway of its classes: Envoys in a Deployment with a Service, programmed with the
    routes, pools and policies of the cluster; conditions are written back.

    \b
      pointsman controller
      pointsman controller --context kind-dev --namespace default
      pointsman controller --controller-name gateway.envoyproxy.io/gatewayclass-controller
    """  # noqa: D301  # click reads the escape
    logging.basicConfig(
        stream=sys.stderr,
        level=_LEVELS[verbose],
        format="%(asctime)s %(levelname).1s controller: %(message)s",
        datefmt="%H:%M:%S",
    )
    installation = Installation(
        namespace=namespace or namespace_in() or DEFAULT_NAMESPACE,
        service=service,
        xds_port=xds_port,
        image=image,
        image_pull_policy=image_pull_policy,
        image_pull_secrets=image_pull_secrets,
        provides_pickers=provide_pickers,
        certificate_life=_lifetime(certificate_lifetime),
    )
    settings = ControllerSettings(
        installation,
        identity=os.environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}",
        controllers=controllers,
        watch_namespaces=watch_namespaces,
        elects_leader=elects_leader,
        bind=bind,
        health_port=health_port,
        metrics_port=metrics_port,
    )
    try:
        uvloop.run(_run(settings, access(kubeconfig, context_name)))
    except (AccessError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _lifetime(text: str) -> timedelta:
    if not re.fullmatch(GO_DURATION, text):
        raise click.BadParameter(
            f"{text!r} is not {PATTERN_TEXTS[GO_DURATION]}", param_hint="--certificate-lifetime"
        )
    seconds = go_seconds(text)
    if seconds < SHORTEST_CERTIFICATE_LIFE_S:
        raise click.BadParameter(
            f"must be {SHORTEST_CERTIFICATE_LIFE_S:g}s or more", param_hint="--certificate-lifetime"
        )
    return timedelta(seconds=seconds)


async def _run(settings: ControllerSettings, way: Access) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await way.connection()  # a kubeconfig that is wrong is told at once
    async with Api(way, "pointsman-controller") as api:
        running = ClusterController(settings, api)
        async with running.running():
            stopped = asyncio.create_task(stop.wait())
            failed = asyncio.create_task(running.failed())
            await asyncio.wait({stopped, failed}, return_when=asyncio.FIRST_COMPLETED)
            for task in (stopped, failed):
                if not task.done():
                    task.cancel()
            if failed.done() and not failed.cancelled():
                failed.result()
