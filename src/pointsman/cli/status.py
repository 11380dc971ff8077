"""`pointsman status`: how everything of a running instance stands, on one screen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

from pointsman.cli import tables
from pointsman.cli.connection import ask, fail, instance_option
from pointsman.resources import kinds

Row = dict[str, Any]

_UNKNOWN = "-"
_MESSAGE = 200
"""Characters of a message in a table; `-o json` has all of it."""


@click.command()
@click.argument("kind", required=False)
@click.option("-n", "--namespace", help="Only objects of this namespace.")
@click.option("-q", "--quiet", is_flag=True, help="Only what is not as it should be.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="Everything, for programs.")
@instance_option
def status(
    kind: str | None,
    namespace: str | None,
    quiet: bool,
    output: str | None,
    instance: str | None,
) -> None:
    """Show every condition, what Envoy acknowledged, and every endpoint.

    \b
      pointsman status
      pointsman status httproute -q
    """  # noqa: D301  # click reads the escape
    wanted = None
    if kind is not None:
        wanted = {(cls.KIND.group, cls.KIND.kind) for cls in kinds.by_name(kind)}
        if not wanted:
            fail(f'the server doesn\'t have a resource type "{kind}"')
    answer = ask(instance, lambda client: client.status())
    if output == "json":
        click.echo(json.dumps(answer, indent=4))
        return
    objects = [
        item
        for item in answer["objects"]
        if (wanted is None or (item["group"], item["kind"]) in wanted)
        and (namespace is None or item["namespace"] in ("", namespace))
    ]
    _show_objects(objects, answer["xds"], quiet)
    if kind is None:
        _show_rest(answer, quiet)


def _show_rest(answer: Row, quiet: bool) -> None:
    _section("LISTENERS", *_listener_table(answer["listeners"], quiet))
    refused = [row for row in answer["xds"] if row.get("state") == "NACKED"]
    headers = ["TYPE", "RESOURCE", "WHY ENVOY REFUSED IT"]
    rows = [[r.get("type", ""), r.get("name", ""), _short(r.get("message", ""))] for r in refused]
    _section("REFUSED BY ENVOY", headers, rows)
    _section("ENDPOINTS", *_endpoint_table(answer["endpoints"], quiet))
    if answer["endpointsError"]:
        click.echo(answer["endpointsError"], err=True)
    problems = answer["problems"]
    places = [f"{p.get('file', '')}:{p.get('line') or ''}".rstrip(":") for p in problems]
    fields = [p.get("field") or p.get("subject", "") for p in problems]
    messages = [p.get("message", "") for p in problems]
    rows = [list(row) for row in zip(places, fields, messages, strict=True)]
    _section("PROBLEMS IN FILES", ["PLACE", "FIELD", "PROBLEM"], rows)


def _show_objects(objects: Sequence[Row], xds: Sequence[Row], quiet: bool) -> None:
    states = acknowledged(xds)
    rows: list[list[str]] = []
    for item in objects:
        state = states.get(item["object"], _UNKNOWN)
        shown = [
            condition
            for condition in item["conditions"]
            if not (quiet or _is_good_news(condition)) or not _is_good(condition, item)
        ]
        if shown or state == "NACKED":
            rows += _object_rows(item, state, shown)
    if rows:
        tables.show(["OBJECT", "CONDITION", "STATUS", "REASON", "ENVOY", "MESSAGE"], rows)
    else:
        click.echo("all is as it should be" if quiet else "no object has a condition")


def _object_rows(item: Row, state: str, conditions: Sequence[Row]) -> list[list[str]]:
    """The object's own conditions beside its name, those of listeners and parents below it."""
    rows: list[list[str]] = []
    before = ""
    if not conditions or conditions[0]["of"]:
        rows.append([item["object"], "", "", "", state, ""])
    for condition in conditions:
        of = condition["of"]
        lead = f"  {of}" if of and of != before else ""
        before = of
        is_first = not rows
        rows.append(
            [
                item["object"] if is_first else lead,
                condition.get("type", _UNKNOWN),
                _status_text(condition, item),
                condition.get("reason", ""),
                state if is_first else "",
                _short(condition.get("message", "")),
            ]
        )
    return rows


def acknowledged(xds: Iterable[Row]) -> dict[str, str]:
    """What Envoy said to the resources of each object: the worst of it."""
    worst = ("ACKED", "PENDING", "NACKED")
    states: dict[str, str] = {}
    for row in xds:
        state = row.get("state", "PENDING")
        for subject in row.get("objects", ()):
            before = states.get(subject, "ACKED")
            states[subject] = max(before, state, key=worst.index)
    return states


_GOOD_WHEN_FALSE = frozenset(
    {
        "Conflicted",
        "InsecureFrontendValidationMode",
        "OverlappingTLSConfig",
        "Overridden",
        "PartiallyInvalid",
    }
)


def _is_good_news(condition: Row) -> bool:
    """It says no more than that nothing of its kind is the matter."""
    return condition.get("type") in _GOOD_WHEN_FALSE


def _is_good(condition: Row, item: Row) -> bool:
    wanted = "False" if condition.get("type") in _GOOD_WHEN_FALSE else "True"
    return condition.get("status") == wanted and not _is_old(condition, item)


def _is_old(condition: Row, item: Row) -> bool:
    generation: int = item["generation"]
    observed = condition.get("observedGeneration")
    return isinstance(observed, int) and observed < generation


def _status_text(condition: Row, item: Row) -> str:
    text = str(condition.get("status", _UNKNOWN))
    return f"{text} (old)" if _is_old(condition, item) else text


def _listener_table(rows: Sequence[Row], quiet: bool) -> tuple[list[str], list[list[str]]]:
    headers = ["GATEWAY", "LISTENER", "PROTOCOL", "ADDRESS", "BOUND", "MESSAGE"]
    return headers, [
        [
            row.get("gateway", ""),
            row.get("name", ""),
            row.get("protocol", ""),
            f"{row.get('address', '')}:{row.get('port', '')}",
            _yes(row.get("is_bound")),
            _short(row.get("message", "")),
        ]
        for row in rows
        if not quiet or not row.get("is_bound")
    ]


def _endpoint_table(rows: Sequence[Row], quiet: bool) -> tuple[list[str], list[list[str]]]:
    headers = [
        "POOL",
        "ENDPOINT",
        "ADDRESS",
        "READY",
        "RUNNING",
        "QUEUE",
        "IN FLIGHT",
        "KV CACHE",
        "ADAPTERS",
        "MESSAGE",
    ]
    return headers, [
        [
            row.get("pool", ""),
            row.get("name", ""),
            row.get("address", ""),
            _yes(row.get("is_ready")),
            _number(row.get("running")),
            _number(row.get("waiting")),
            _number(row.get("in_flight")),
            _share(row.get("kv_cache")),
            ",".join(row.get("adapters", ())) or _UNKNOWN,
            _short(row.get("error", "")),
        ]
        for row in rows
        if not quiet or not row.get("is_ready") or row.get("error")
    ]


def _section(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if rows:
        click.echo()
        click.secho(title, bold=True)
        tables.show(headers, rows)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MESSAGE else f"{line[: _MESSAGE - 3]}..."


def _yes(value: Any) -> str:
    return _UNKNOWN if value is None else ("yes" if value else "no")


def _number(value: Any) -> str:
    return _UNKNOWN if value is None else f"{value:g}"


def _share(value: Any) -> str:
    return _UNKNOWN if value is None else f"{value:.0%}"
