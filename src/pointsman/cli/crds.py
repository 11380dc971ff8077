"""`pointsman crds`: which definitions a cluster must have, and where their authors publish them."""

from __future__ import annotations

import sys

import click

from pointsman.cli import tables
from pointsman.resources.parse import parse_text
from pointsman.resources.releases import RELEASES, Release
from pointsman.sources.folders import STDIN, read_text, scan, text_of

APPLY = "kubectl apply --server-side -f"
"""Some definitions are too large for the annotation that an apply on the client's side leaves."""


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH...]")
@click.option("--all", "all_of_them", is_flag=True, help="Also those that few need.")
@click.option(
    "--experimental", is_flag=True, help="With fields of the Gateway API's experimental channel."
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["url", "name", "command"]),
    help="Only the URLs, the names of the definitions, or the commands that apply them.",
)
def crds(paths: tuple[str, ...], all_of_them: bool, experimental: bool, output: str | None) -> None:
    """Show which definitions a cluster needs, and the URLs of their releases.

    With PATHs (files, folders, or - for standard input), those that these manifests need. Nothing
    is fetched or installed.

    \b
      pointsman crds
      pointsman crds manifests/ -o command
      pointsman crds -o url | xargs -n 1 kubectl apply --server-side -f
      kubectl get crd $(pointsman crds -o name)
    """  # noqa: D301  # click reads the escape
    used = _used(paths) if paths else set()
    chosen = [
        release
        for release in RELEASES
        if all_of_them
        or used & set(release.names)
        or (release.is_needed and (not paths or release is RELEASES[0]))
    ]
    if output is None:
        _print_table(chosen, experimental)
        return
    for release in chosen:
        url = release.url(is_experimental=experimental)
        if output == "name":
            for name in release.names:
                click.echo(name)
        else:
            click.echo(url if output == "url" else f"{APPLY} {url}")


def _used(paths: tuple[str, ...]) -> set[str]:
    """The names of the definitions of all kinds in some files."""
    found = scan(paths)
    if found.problems:
        raise click.ClickException(str(found.problems[0]))
    texts = {}
    try:
        for name in found.files:
            texts[name] = read_text(name)
        if STDIN in paths:
            texts["<stdin>"] = text_of(sys.stdin.buffer)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    parsed = [item for name, text in texts.items() for item in parse_text(text, name)]
    kinds = {(item.ref.group, item.ref.kind) for item in parsed if item.ref is not None}
    return {
        name
        for release in RELEASES
        for cls, name in zip(release.kinds, release.names, strict=True)
        if (cls.KIND.group, cls.KIND.kind) in kinds
    }


def _print_table(chosen: list[Release], experimental: bool) -> None:
    rows = [[release.name, release.version, release.purpose, _kinds(release)] for release in chosen]
    tables.show(["NAME", "VERSION", "FOR", "KINDS"], rows)
    click.echo()
    for release in chosen:
        click.echo(f"{APPLY} {release.url(is_experimental=experimental)}")


def _kinds(release: Release) -> str:
    return ", ".join(cls.KIND.kind for cls in release.kinds)
