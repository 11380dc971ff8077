"""`pointsman explain`: why each request went where it went."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from pointsman.admin.client import AdminClient
from pointsman.cli import tables
from pointsman.cli.connection import ask, fail, instance_option

Decision = dict[str, Any]
"""As the picker tells it."""

POLL_S = 1.0
MOST = 1_000
"""What the picker remembers."""
FOLLOWED = 200
"""Of one second, the last so many are shown."""

_UNKNOWN = "-"


@click.command()
@click.option("--request", "request_id", metavar="ID", help="The one of that x-request-id.")
@click.option("--model", help="Those that asked for this model, or were given it.")
@click.option("--endpoint", metavar="HOST[:PORT]", help="Those that this endpoint won.")
@click.option("--pool", metavar="NAMESPACE/NAME", help="Those of this InferencePool.")
@click.option(
    "--limit", type=click.IntRange(1, MOST), default=5, show_default=True, help="The last so many."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is still decided.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="Everything, for programs.")
@instance_option
def explain(
    request_id: str | None,
    model: str | None,
    endpoint: str | None,
    pool: str | None,
    limit: int,
    follow: bool,
    output: str | None,
    instance: str | None,
) -> None:
    """Show the picker's last decisions: who could have answered, who did, and why.

    \b
      pointsman explain
      pointsman explain --model food-review -f
      pointsman explain --request 6e4fd2a1-... -o json
    """  # noqa: D301  # click reads the escape
    asked = {"request_id": request_id, "model": model, "endpoint": endpoint, "pool": pool}
    only = {name: value for name, value in asked.items() if value is not None}

    async def show_all(client: AdminClient) -> None:
        known = await _decisions(client, limit, only)
        _print(known, output, is_followed=follow)
        if not follow and not known:
            _explain_nothing(request_id, is_narrowed=bool(only))
        if follow:
            async for news in _news(client, known, only):
                _print(news, output, is_followed=True)

    ask(instance, show_all)


def _explain_nothing(request_id: str | None, *, is_narrowed: bool) -> None:
    if request_id is not None:
        fail(f"no decision for the request {request_id} (the last {MOST:,} are remembered)")
    what = "no such decision" if is_narrowed else "no decision yet"
    click.echo(f"{what}: requests to an InferencePool are decided by its picker", err=True)


async def _decisions(client: AdminClient, limit: int, only: Mapping[str, str]) -> list[Decision]:
    """The oldest first, whatever the number of pickers."""
    return sorted(await client.decisions(limit, only), key=lambda each: each["at"])


async def _news(
    client: AdminClient, known: Sequence[Decision], only: Mapping[str, str]
) -> AsyncIterator[list[Decision]]:
    """What is decided from now on, in parts, for ever."""
    while True:
        await asyncio.sleep(POLL_S)
        found = await _decisions(client, FOLLOWED, only)
        yield new_ones(known, found)
        known = found or known


def new_ones(known: Sequence[Decision], found: Sequence[Decision]) -> list[Decision]:
    """Those of `found` that were not there before; both are the last ones of a moment."""
    before = {_key(each) for each in known}
    newest = max((each["at"] for each in known), default=0.0)
    return [each for each in found if each["at"] >= newest and _key(each) not in before]


def _key(decision: Decision) -> tuple[Any, ...]:
    return decision["at"], decision["pool"], decision["request_id"]


def _print(decisions: Sequence[Decision], output: str | None, *, is_followed: bool) -> None:
    if output == "json":
        if not is_followed:
            click.echo(json.dumps(decisions, indent=4))
        for decision in decisions if is_followed else ():
            click.echo(json.dumps(decision))
        return
    for decision in decisions:
        _show(decision)
        click.echo()


def _show(decision: Decision) -> None:
    at = datetime.fromtimestamp(decision["at"]).astimezone().isoformat(" ", "milliseconds")
    click.secho(f"{decision['request_id'] or 'a request without an id'}", bold=True, nl=False)
    click.echo(f"  {at}  {decision['pool']}")
    click.echo(f"  {_asked(decision)}")
    click.secho(f"  {_outcome(decision)}", fg="red" if decision["status"] else "green")
    if not decision["candidates"]:
        return
    click.echo()
    _show_candidates(decision)
    for name, dropped in decision.get("dropped", {}).items():
        if dropped:
            rule = decision["rules"].get(name, "")
            what = f" (it keeps {_lowered(rule)})" if rule else ""
            click.echo(f"  {name} dropped {', '.join(dropped)}{what}")
    if decision.get("weights") and decision["totals"]:
        click.echo()
        _show_scores(decision)


def _asked(decision: Decision) -> str:
    model, target = decision["model"], decision["target"]
    name = "no model" if model is None else model
    became = f" became {target}" if target not in (None, model) else ""
    objective = f" by the objective {decision['objective']}" if decision["objective"] else ""
    return (
        f"{decision['api'] or 'request'} for {name}{became}, about "
        f"{decision['prompt_tokens']} prompt tokens, priority {decision['priority']}{objective}"
    )


def _outcome(decision: Decision) -> str:
    took = f"in {decision['duration_us']:.0f} µs"
    if decision["status"]:
        return f"refused with {decision['status']} {decision['reason']} {took}"
    winner, *rest = decision["endpoints"]
    total = decision.get("totals", {}).get(winner)
    points = f" with {total:.2f} points" if total is not None else ""
    others = f", to fall back on {', '.join(rest)}" if rest else ""
    return f"{winner} won{points} {took}{others}"


def _show_candidates(decision: Decision) -> None:
    headers = [
        *("CANDIDATE", "IN FLIGHT", "QUEUE", "RUNNING", "KV CACHE", "TOKENS HELD"),
        *("ADAPTERS", "OUTCOME"),
    ]
    rows = [
        [
            row["endpoint"],
            str(row["in_flight"]),
            _known(row["queue"], "g"),
            _known(row["running"], "g"),
            _known(row["kv_cache"], ".0%"),
            str(row["cached_tokens"]),
            ",".join(row["adapters"]) or _UNKNOWN,
            _fate(decision, row["endpoint"]),
        ]
        for row in _ordered(decision)
    ]
    _table(headers, rows)
    more = decision["candidates_total"] - len(rows)
    if more > 0:
        click.echo(f"  and {more} more, of which nothing was kept")


def _show_scores(decision: Decision) -> None:
    """A score is from 0 to 1, and counts as often as its weight says."""
    weights: dict[str, float] = decision["weights"]
    names = [f"{name.removesuffix('-scorer')} x{weight:g}" for name, weight in weights.items()]
    totals: dict[str, float] = decision["totals"]
    rows = [
        [
            address,
            *(f"{decision['scores'][address].get(name, 0.0):.2f}" for name in weights),
            f"{totals[address]:.2f}",
        ]
        for address in sorted(totals, key=lambda each: -totals[each])
    ]
    _table(["SCORES", *names, "TOTAL"], rows)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; where the terminal is too narrow, as lines that it folds, for no number may go."""
    lines = tables.plain_lines(headers, rows)
    if max(map(len, lines)) <= shutil.get_terminal_size().columns:
        tables.show(headers, rows)
        return
    for line in lines:
        click.echo(line)


def _ordered(decision: Decision) -> list[Decision]:
    """The chosen first, then by total, then the dropped."""
    chosen: list[str] = decision["endpoints"]
    totals: dict[str, float] = decision.get("totals", {})

    def place(row: Decision) -> tuple[int, float]:
        name = row["endpoint"]
        return (chosen.index(name) if name in chosen else len(chosen)), -totals.get(name, -1.0)

    return sorted(decision["candidates"], key=place)


def _fate(decision: Decision, address: str) -> str:
    chosen = decision["endpoints"]
    if chosen and address == chosen[0]:
        return "won"
    if address in chosen:
        return f"fallback {chosen.index(address)}"
    if any(address in dropped for dropped in decision.get("dropped", {}).values()):
        return "dropped"
    return _UNKNOWN if decision["status"] else "not chosen"


def _known(value: float | None, form: str) -> str:
    return _UNKNOWN if value is None else format(value, form)


def _lowered(rule: str) -> str:
    return rule[:1].lower() + rule[1:].rstrip(".")
