"""`pointsman api-resources`: the kinds that are known."""

from __future__ import annotations

import click

from pointsman.cli import tables
from pointsman.cli.connection import fail
from pointsman.resources import kinds
from pointsman.resources.base import Kind, Resource


@click.command("api-resources")
@click.option("--api-group", help="Only the kinds of one group; '' is the core group.")
@click.option("--namespaced", type=bool, help="Only kinds that live in namespaces, or do not.")
@click.option("--no-headers", is_flag=True, help="A table without its heading.")
@click.option("-o", "--output", type=click.Choice(["wide", "name"]), help="More, or only names.")
def api_resources(
    api_group: str | None, namespaced: bool | None, no_headers: bool, output: str | None
) -> None:
    """List the kinds of objects that Pointsman reads.

    \b
      pointsman api-resources --api-group=inference.networking.k8s.io
    """  # noqa: D301  # click reads the escape
    found = [
        cls
        for cls in sorted(kinds.ALL, key=lambda cls: (cls.KIND.group, cls.KIND.plural))
        if (api_group is None or cls.KIND.group == api_group)
        and (namespaced is None or cls.KIND.namespaced == namespaced)
    ]
    if api_group is not None and not found:
        groups = sorted({cls.KIND.group for cls in kinds.ALL if cls.KIND.group})
        fail(f"no kinds in the group {api_group!r} (known groups: {', '.join(groups)})")
    if output == "name":
        for cls in found:
            click.echo(_full_name(cls.KIND))
        return
    headers = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"]
    headers += ["USED"] if output == "wide" else []
    rows = [_row(cls, is_wide=output == "wide") for cls in found]
    tables.show(headers, rows, with_headers=not no_headers)


def _row(cls: type[Resource], *, is_wide: bool) -> list[str]:
    kind = cls.KIND
    row = [
        kind.plural,
        ",".join(kind.short_names),
        kind.api_version,
        str(kind.namespaced).lower(),
        kind.kind,
    ]
    return [*row, "yes" if cls in kinds.USED else "no"] if is_wide else row


def _full_name(kind: Kind) -> str:
    return f"{kind.plural}.{kind.group}" if kind.group else kind.plural
