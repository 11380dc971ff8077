"""`pointsman get`: the objects of a running instance, as kubectl would show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click
from click.shell_completion import CompletionItem

from pointsman.admin.client import AdminClient
from pointsman.cli import tables
from pointsman.cli.columns import Column, age, columns
from pointsman.cli.connection import CommandError, ask, fail, instance_option, not_found
from pointsman.cli.output import Output, name_of
from pointsman.cli.targets import Target, targets
from pointsman.resources import kinds
from pointsman.resources.base import DEFAULT_NAMESPACE
from pointsman.resources.label_query import LabelQuery, LabelQueryError

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """What was asked for, and how it is shown."""

    targets: tuple[Target, ...]
    namespace: str | None
    """None for all."""
    labels: LabelQuery
    output: Output
    with_headers: bool = True
    with_labels: bool = False

    @property
    def is_single(self) -> bool:
        """One object by name, which is printed alone and not in a list."""
        return len(self.targets) == 1 and self.targets[0].name is not None


def _complete_kind(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    names = sorted(cls.KIND.plural for cls in kinds.USED)
    return [CompletionItem(name) for name in dict.fromkeys(names) if name.startswith(incomplete)]


@click.command()
@click.argument(
    "what", nargs=-1, required=True, metavar="KIND [NAME...]", shell_complete=_complete_kind
)
@click.option("-n", "--namespace", default=DEFAULT_NAMESPACE, show_default=True)
@click.option("-A", "--all-namespaces", is_flag=True, help="Objects of every namespace.")
@click.option("-o", "--output", metavar="FORM", help="wide, yaml, json, name or jsonpath=TEMPLATE.")
@click.option("-l", "--selector", default="", help="Labels, like app=web,tier!=test or 'a in (b)'.")
@click.option("-w", "--watch", is_flag=True, help="Go on with what changes.")
@click.option("--show-labels", is_flag=True, help="Another column with the labels.")
@click.option("--no-headers", is_flag=True, help="A table without its heading.")
@instance_option
def get(
    what: tuple[str, ...],
    namespace: str,
    all_namespaces: bool,
    output: str | None,
    selector: str,
    watch: bool,
    show_labels: bool,
    no_headers: bool,
    instance: str | None,
) -> None:
    """Show objects of a running instance.

    \b
      pointsman get gateways
      pointsman get gtw inference-gateway -o jsonpath='{.status.addresses[0].value}'
      pointsman get pods,svc -A
      pointsman get httproute/llm-route -o yaml
    """  # noqa: D301  # click reads the escape
    try:
        labels = LabelQuery.of(selector)
    except LabelQueryError as error:
        fail(str(error))
    query = Query(
        tuple(targets(what)),
        None if all_namespaces else namespace,
        labels,
        Output.of(output),
        not no_headers,
        show_labels,
    )
    ask(instance, lambda client: _watch(client, query) if watch else _get(client, query))


async def _get(client: AdminClient, query: Query) -> None:
    found: list[tuple[Target, list[Item]]] = []
    missing: list[CommandError] = []
    for target in query.targets:
        items = await _fetch(client, query, target)
        if target.name is not None and not items:
            missing.append(not_found(target.resource, target.name))
        found.append((target, items))
    everything = [item for _, items in found for item in items]
    if query.output.is_table:
        _print_tables(query, found)
        if not everything and not missing:
            click.echo(_nothing(query), err=True)
    elif everything or not missing:
        query.output.print(everything, is_single=query.is_single)
    for error in missing[:-1]:
        error.show()
    if missing:
        raise missing[-1]


async def _fetch(client: AdminClient, query: Query, target: Target) -> list[Item]:
    items: list[Item] = []
    for group, kind in target.pairs:
        namespace = query.namespace if target.is_namespaced else None
        word = f"{kind}.{group}" if group else kind
        items += await client.objects(word, namespace, target.name)
    return [item for item in items if target.has(item) and query.labels.matches(_labels(item))]


def _nothing(query: Query) -> str:
    if query.namespace is None or not any(target.is_namespaced for target in query.targets):
        return "No resources found"
    return f"No resources found in {query.namespace} namespace."


def _print_tables(query: Query, found: Sequence[tuple[Target, list[Item]]]) -> None:
    by_kind: dict[tuple[str, str], list[Item]] = {}
    for _, items in found:
        for item in items:
            by_kind.setdefault(_pair(item), []).append(item)
    is_mixed = len(by_kind) > 1
    for index, (pair, items) in enumerate(by_kind.items()):
        if index:
            click.echo()
        headers, rows = _table(query, pair, items, is_mixed)
        tables.show(headers, rows, with_headers=query.with_headers)


def _table(
    query: Query, pair: tuple[str, str], items: Sequence[Item], is_mixed: bool
) -> tuple[list[str], list[list[str]]]:
    shown = columns(*pair, wide=query.output.form == "wide")
    with_namespace = query.namespace is None and any(i["metadata"].get("namespace") for i in items)
    headers = ["NAMESPACE"] if with_namespace else []
    headers += ["NAME", *(column.heading for column in shown if not column.is_wide), "AGE"]
    headers += [column.heading for column in shown if column.is_wide]
    headers += ["LABELS"] if query.with_labels else []
    now = datetime.now(UTC)
    rows = [
        ([item["metadata"].get("namespace", "")] if with_namespace else [])
        + [name_of(item) if is_mixed else item["metadata"]["name"]]
        + _cells(item, shown, now)
        + ([_labels_text(item)] if query.with_labels else [])
        for item in items
    ]
    return headers, rows


def _cells(item: Item, shown: Sequence[Column], now: datetime) -> list[str]:
    plain = [column.cell(item) for column in shown if not column.is_wide]
    wide = [column.cell(item) for column in shown if column.is_wide]
    return [*plain, age(item, now), *wide]


async def _watch(client: AdminClient, query: Query) -> None:
    kinds_wanted = [pair for target in query.targets for pair in target.pairs]
    if len(set(kinds_wanted)) > 1 and query.output.is_table:
        headers_of: tuple[str, str] | None = None
    else:
        headers_of = kinds_wanted[0]
    first: list[Item] = []
    is_synced = False
    widths: list[int] = []
    async for event in client.watch(dict.fromkeys(kinds_wanted)):
        if event["type"] == "SYNCED":
            is_synced = True
            widths = _print_first(query, headers_of, first)
            continue
        item = event["object"]
        if not _wants(query, item):
            continue
        if not is_synced:
            first.append(item)
        elif not query.output.is_table:
            query.output.print([item], is_single=True)
        else:
            widths = _print_row(query, item, widths, headers_of is None)


def _wants(query: Query, item: Item) -> bool:
    namespace = item["metadata"].get("namespace", "")
    return (
        (query.namespace is None or not namespace or namespace == query.namespace)
        and any(target.has(item) for target in query.targets)
        and query.labels.matches(_labels(item))
    )


def _print_first(query: Query, pair: tuple[str, str] | None, items: list[Item]) -> list[int]:
    if not query.output.is_table:
        for item in items:
            query.output.print([item], is_single=True)
        return []
    if pair is not None:
        headers, rows = _table(query, pair, items, is_mixed=False)
        for line in tables.plain_lines(headers, rows, with_headers=query.with_headers):
            click.echo(line)
        return [max(len(row[i]) for row in [headers, *rows]) for i in range(len(headers))]
    _print_tables(query, [(query.targets[0], items)])
    return []


def _print_row(query: Query, item: Item, widths: list[int], is_mixed: bool) -> list[int]:
    _, rows = _table(query, _pair(item), [item], is_mixed)
    row = rows[0]
    if len(widths) != len(row):
        widths = [0] * len(row)
    widths = [max(width, len(cell)) for width, cell in zip(widths, row, strict=True)]
    cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
    click.echo("   ".join(cells).rstrip())
    return widths


def _pair(item: Item) -> tuple[str, str]:
    return item["apiVersion"].rpartition("/")[0], item["kind"]


def _labels(item: Item) -> dict[str, str]:
    return dict(item["metadata"].get("labels", {}))


def _labels_text(item: Item) -> str:
    return ",".join(f"{key}={value}" for key, value in _labels(item).items()) or "<none>"
