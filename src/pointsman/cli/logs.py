"""`pointsman logs`: what a process of the instance has written."""

from __future__ import annotations

import click

from pointsman.admin.client import AdminClient
from pointsman.cli.connection import ask, fail, instance_option
from pointsman.cli.targets import Target, targets
from pointsman.resources.base import DEFAULT_NAMESPACE
from pointsman.resources.selectors import labels_match


@click.command()
@click.argument("name", metavar="NAME")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is still written.")
@click.option("--tail", type=click.IntRange(0), help="Only so many of the last lines.")
@click.option("-c", "--container", help="One container of a pod that has several.")
@click.option("-n", "--namespace", default=DEFAULT_NAMESPACE, show_default=True)
@instance_option
def logs(
    name: str,
    follow: bool,
    tail: int | None,
    container: str | None,
    namespace: str,
    instance: str | None,
) -> None:
    """Print the output of a pod (or of another process, like envoy).

    \b
      pointsman logs vllm-llama2-7b-0
      pointsman logs deploy/vllm-llama2-7b -f
      pointsman logs envoy --tail 20
    """  # noqa: D301  # click reads the escape
    target = targets([name])[0] if "/" in name else None

    async def print_lines(client: AdminClient) -> None:
        source = name if target is None else await _pod_of(client, target, namespace)
        full = f"{source}/{container}" if container else source
        async for line in client.logs(full, tail=tail, follow=follow):
            click.echo(line)

    ask(instance, print_lines)


async def _pod_of(client: AdminClient, target: Target, namespace: str) -> str:
    """`namespace/pod` of a Pod, or of the first pod of a Deployment."""
    kind = target.pairs[0][1]
    if kind == "Pod":
        return f"{namespace}/{target.name}"
    if kind != "Deployment":
        fail(f"cannot show the logs of a {kind}: name a pod or a deployment")
    found = await client.objects("deployments", namespace, target.name)
    if not found:
        fail(f'deployments.apps "{target.name}" not found')
    wanted = found[0]["spec"]["selector"].get("matchLabels", {})
    for pod in await client.objects("pods", namespace):
        if labels_match(wanted, pod["metadata"].get("labels", {})):
            return f"{namespace}/{pod['metadata']['name']}"
    return fail(f'deployments.apps "{target.name}" has no pods')
