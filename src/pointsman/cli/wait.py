"""`pointsman wait`: until objects are as they should be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from pointsman.admin.client import AdminClient
from pointsman.admin.summary import conditions_in
from pointsman.cli.connection import ask, fail, instance_option, not_found
from pointsman.cli.jsonpath import JSONPathError, Template, text_of
from pointsman.cli.output import name_of
from pointsman.cli.targets import Target, targets
from pointsman.resources.base import DEFAULT_NAMESPACE
from pointsman.resources.durations import go_seconds
from pointsman.resources.label_query import LabelQuery, LabelQueryError

Item = dict[str, Any]
Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class ConditionGoal:
    """A condition has a status; for routes and policies, in the view of all their parents."""

    type: str
    status: str
    said: str = "condition met"

    def is_met(self, item: Item) -> bool:
        """A condition of an older generation of the object does not count."""
        generation = item["metadata"].get("generation", 0)
        found = [
            condition
            for condition in conditions_in(item.get("status") or {})
            if str(condition.get("type", "")).lower() == self.type.lower()
            and (condition.get("observedGeneration") or generation) >= generation
        ]
        own = [condition for condition in found if not condition["of"]] or found
        return bool(own) and all(
            str(condition.get("status", "")).lower() == self.status.lower() for condition in own
        )


@dataclass(frozen=True, slots=True)
class PathGoal:
    """A JSONPath leads to a value, or to anything when none is given."""

    template: Template
    value: str | None
    said: str = "condition met"

    def is_met(self, item: Item) -> bool:
        """Every value that the path leads to must be the one asked for."""
        found = [text_of(value) for value in self.template.values(item)]
        return bool(found) and (self.value is None or all(text == self.value for text in found))


@dataclass(frozen=True, slots=True)
class ExistenceGoal:
    """Objects are there (`create`), or are not (`delete`)."""

    is_there: bool
    said: str

    def is_met(self, item: Item) -> bool:
        """An object that is seen is there."""
        return self.is_there


Goal = ConditionGoal | PathGoal | ExistenceGoal
"""What is waited for; `said` is what is printed of an object that came to be so."""


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="KIND/NAME... | KIND [NAME...]")
@click.option(
    "--for",
    "goal",
    required=True,
    metavar="GOAL",
    help="condition=TYPE[=STATUS], jsonpath=TEMPLATE[=VALUE], create or delete.",
)
@click.option("--timeout", default="30s", show_default=True, help="Like 90s or 5m.")
@click.option("-n", "--namespace", default=DEFAULT_NAMESPACE, show_default=True)
@click.option("-l", "--selector", default="", help="All objects of the kind with these labels.")
@click.option("--all", "everything", is_flag=True, help="All objects of the kind.")
@instance_option
def wait(
    what: tuple[str, ...],
    goal: str,
    timeout: str,
    namespace: str,
    selector: str,
    everything: bool,
    instance: str | None,
) -> None:
    """Wait until objects are as they should be.

    \b
      pointsman wait gtw/inference-gateway --for=condition=Programmed
      pointsman wait pod --all --for=condition=Ready --timeout=60s
      pointsman wait deploy/web --for=jsonpath='{.status.readyReplicas}'=2
    """  # noqa: D301  # click reads the escape
    found = targets(what)
    if any(target.name is None for target in found) and not (everything or selector):
        fail("name an object (KIND/NAME), or give --all or --selector")
    try:
        labels = LabelQuery.of(selector)
        limit_s = go_seconds(timeout)
    except LabelQueryError as error:
        fail(str(error))
    except ValueError as error:
        fail(f"invalid --timeout: {error}")
    waiting = Waiting(found, read_goal(goal), namespace, labels)
    ask(instance, lambda client: _wait(client, waiting, limit_s))


def read_goal(text: str) -> Goal:
    """The value of `--for`; a wrong one ends the command."""
    kind, _, rest = text.partition("=")
    if kind == "condition" and rest:
        name, _, status = rest.partition("=")
        return ConditionGoal(name, status or "True")
    if kind == "jsonpath" and rest:
        template, _, value = rest.partition("}=") if "}=" in rest else (rest, "", "")
        has_value = "}=" in rest
        try:
            read = Template(template + "}" if has_value else template)
        except JSONPathError as error:
            fail(f"error parsing jsonpath {rest}, {error}")
        return PathGoal(read, value if has_value else None)
    if text in ("create", "delete"):
        return ExistenceGoal(text == "create", f"{text}d" if text == "delete" else "created")
    return fail(
        f"unrecognized condition: {text!r} (write condition=Ready, jsonpath='{{.x}}'=value, "
        "create or delete)"
    )


class Waiting:
    """Which objects are waited for, and which of them are as they should be."""

    def __init__(
        self, wanted: list[Target], goal: Goal, namespace: str, labels: LabelQuery
    ) -> None:
        self._wanted = wanted
        self.goal = goal
        self._namespace = namespace
        self._labels = labels
        self._present: dict[Key, Item] = {}
        self._met: dict[Key, Item] = {}
        self._is_for_absence = isinstance(goal, ExistenceGoal) and not goal.is_there
        self._must_exist = not isinstance(goal, ExistenceGoal)

    @property
    def kinds(self) -> dict[tuple[str, str], None]:
        """(group, kind) to watch."""
        return dict.fromkeys(pair for target in self._wanted for pair in target.pairs)

    def take(self, event: dict[str, Any]) -> Item | None:
        """Take in an event; the object, when by this it came to be as it should be."""
        item = event["object"]
        if not self._means(item):
            return None
        key = _key(item)
        if event["type"] == "DELETED":
            self._present.pop(key, None)
            return item if self._is_for_absence else None
        self._present[key] = item
        if not self.goal.is_met(item):
            self._met.pop(key, None)
            return None
        is_news = key not in self._met
        self._met[key] = item
        return item if is_news else None

    def is_over(self) -> bool:
        """All are as they should be."""
        if self._is_for_absence:
            return not self._present
        if not self._present or set(self._present) != set(self._met):
            return False
        return not self.missing()

    def missing(self) -> list[Target]:
        """Named objects that are not there."""
        return [
            target
            for target in self._wanted
            if target.name is not None and not any(map(target.has, self._present.values()))
        ]

    def fail_if_missing(self) -> None:
        """End the command when an object that must be there is not."""
        if self._must_exist:
            for target in self.missing():
                raise not_found(target.resource, target.name or "")
            if not self._present:
                fail("no matching resources found")

    def remaining(self) -> str:
        """What is not yet as it should be."""
        left = [item for key, item in self._present.items() if key not in self._met]
        names = [name_of(item) for item in left] or [
            f"{target.resource}/{target.name}" for target in self.missing()
        ]
        return ", ".join(names[:10])

    def _means(self, item: Item) -> bool:
        namespace = item["metadata"].get("namespace", "")
        return (
            namespace in ("", self._namespace)
            and any(target.has(item) for target in self._wanted)
            and self._labels.matches(item["metadata"].get("labels", {}))
        )


async def _wait(client: AdminClient, waiting: Waiting, limit_s: float) -> None:
    try:
        async with asyncio.timeout(max(limit_s, 0.001)):
            await _until_met(client, waiting, click.echo)
    except TimeoutError:
        fail(f"timed out waiting for the condition on {waiting.remaining()}")


async def _until_met(client: AdminClient, waiting: Waiting, say: Callable[[str], None]) -> None:
    is_synced = False
    async for event in client.watch(waiting.kinds):
        if event["type"] == "SYNCED":
            is_synced = True
            waiting.fail_if_missing()
        elif (item := waiting.take(event)) is not None:
            say(f"{name_of(item)} {waiting.goal.said}")
        if is_synced and waiting.is_over():
            return
    fail("the instance ended while waiting")


def _key(item: Item) -> Key:
    meta = item["metadata"]
    group = item["apiVersion"].rpartition("/")[0]
    return group, item["kind"], meta.get("namespace", ""), meta["name"]
