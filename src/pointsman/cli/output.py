"""The forms in which objects are printed: `-o wide|yaml|json|name|jsonpath=TEMPLATE`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
import yaml

from pointsman.cli.connection import fail
from pointsman.cli.jsonpath import JSONPathError, Template
from pointsman.resources import scalars

_FORMS = ("wide", "yaml", "json", "name", "jsonpath=TEMPLATE")
# libyaml's emitter where PyYAML was built with it.
_BASE: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_BASE):  # type: ignore[misc]  # whichever of two classes it is
    """Quotes what Kubernetes would not read back as text; PyYAML thinks of YAML 1.1 (`12e5`)."""


def _text(dumper: Any, text: str) -> Any:
    try:
        is_plain = isinstance(scalars.plain(text), str)
    except scalars.NotInJSONError:
        is_plain = False
    style = "|" if "\n" in text else None if is_plain else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


@dataclass(frozen=True, slots=True)
class Output:
    """How to print. `form` is "" for a table."""

    form: str = ""
    template: Template | None = None

    @classmethod
    def of(cls, text: str | None) -> Output:
        """The value of `-o`; a wrong one ends the command."""
        # Both `-o yaml` and `-o=yaml` are common.
        form, equals, rest = (text or "").removeprefix("=").partition("=")
        if form == "jsonpath" and equals:
            try:
                return cls("jsonpath", Template(rest))
            except JSONPathError as error:
                fail(f"error parsing jsonpath {rest}, {error}")
        if form not in ("", "wide", "yaml", "json", "name") or equals:
            fail(
                f'unable to match a printer suitable for the output format "{text}", '
                f"allowed formats are: {', '.join(_FORMS)}"
            )
        return cls(form)

    @property
    def is_table(self) -> bool:
        """For the eye."""
        return self.form in ("", "wide")

    def print(self, items: Sequence[dict[str, Any]], *, is_single: bool) -> None:
        """Print objects in a form that is no table; one that was asked for by name stands alone."""
        if self.form == "name":
            for item in items:
                click.echo(name_of(item))
            return
        value = items[0] if is_single else _list_of(items)
        if self.template is not None:
            click.echo(self.template.render(value), nl=False)
        elif self.form == "json":
            click.echo(json.dumps(value, indent=4, ensure_ascii=False))
        else:
            click.echo(as_yaml(value), nl=False)


def as_yaml(value: Any, *, is_sorted: bool = True) -> str:
    """A value as YAML, keys sorted as kubectl does unless their order is to stay."""
    return str(
        yaml.dump(value, Dumper=_Dumper, sort_keys=is_sorted, allow_unicode=True, width=1000)
    )


def name_of(item: dict[str, Any]) -> str:
    """`kind.group/name`, in lower case."""
    group, _, _ = item["apiVersion"].rpartition("/")
    kind = item["kind"].lower()
    full = f"{kind}.{group}" if group else kind
    return f"{full}/{item['metadata']['name']}"


def _list_of(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "List",
        "metadata": {"resourceVersion": ""},
        "items": list(items),
    }
