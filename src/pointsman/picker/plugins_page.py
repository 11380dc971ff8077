"""The page of all plugins, docs/plugins.md, made from the code: `python -m` this module prints it.

What a plugin is comes from the plugin itself, its formula from the docstring of the function that
computes it, its parameters from their model.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from pointsman.picker.scheduling.parameters import LabelSelectorFilter, Parameters, Plugin
from pointsman.picker.scheduling.plugins import BUILT_IN, ENTRY_POINTS, LATER, PARAMETERS
from pointsman.picker.scheduling.profile import DEFAULT

EXAMPLE = '''\
from pointsman.picker.scheduling.parameters import Plugin


def nearest(parameters):
    zone = parameters["zone"]

    def score(endpoints, wanted):
        """1 in the zone, else 0."""
        return [1.0 if e.labels.get("zone") == zone else 0.0 for e in endpoints]

    return Plugin(scorer=score)
'''
"""A plugin of one's own; a test installs it."""

_HEAD = """\
# Plugins

<!-- Made by `python -m pointsman.picker.plugins_page`; a test holds it to the code. -->

Every plugin type that an `EndpointPickerConfig` may name. Names, parameters and formulas are those
of the reference picker unless a type is said to be our own. How they are put together is told in
[picker.md](picker.md#configuring-it).

A filter leaves a part of the candidates; one that would leave nothing leaves all, unless it says
otherwise. A scorer gives each candidate a number from 0 (worst) to 1, which counts as often as its
weight in the profile says. The picker orders by the sum.
"""

_OWN = """\
## A plugin of one's own

A plugin is a function from its parameters to a `Plugin`, published by an installed package as an
entry point; its name there is its type. This is a whole one, `mine.py`:

{example}
In the package's `pyproject.toml`:

    [project.entry-points."{group}"]
    nearest-scorer = "mine:nearest"

In the configuration:

    plugins:
    - {{type: nearest-scorer, parameters: {{zone: a}}}}

| field of `Plugin` | what it is |
| --- | --- |
| `scorer` | `(endpoints, wanted) -> scores`: for each endpoint one number from 0 to 1 |
| `filter` | `(endpoints, wanted) -> endpoints`: a part of them, in their order |
| `detector` | `(endpoints) -> float`: how saturated they are; 1 and above sheds requests |
| `listener` | has `picked(address, wanted)`, and hears of each pick |
| `reads_headers` | whether `wanted.headers` is needed |

An endpoint has `address`, `labels` (of its pod), `measures` (its last metrics, or None), `requests`
and `tokens` (of our own, in flight) and `others` (requests of other pickers, as far as is known);
what is wanted has `model`, `priority`, `prompt_tokens`, `max_tokens`, `cached_tokens` (by address)
and `headers`. The first line of a filter's docstring is what `pointsman explain` says it keeps. A
plugin must not wait for anything: it runs in the middle of a decision. Parameters that are wrong
may raise; the error is told with its place in the configuration, which then stays as it was.
"""

_SAMPLES: Mapping[str, Mapping[str, Any]] = {
    "by-label": {"label": "l", "validValues": ["v"]},
    "header-label-affinity-scorer": {"headerName": "h", "labelKey": "l"},
    "utilization-filter": {"conditions": [{"metric": "waiting-queue", "maxValue": 1}]},
    "context-length-aware": {"enableFiltering": True},
    "endpoint-attribute-filter": {
        "attribute": "a",
        "algorithm": {"type": "threshold", "threshold": {"operator": "LessThan", "value": 1}},
    },
    "endpoint-attribute-scorer": {
        "attributeKey": "a",
        "algorithm": {"type": "linear_lower_is_better"},
    },
}
"""Parameters of types that need some, to make one and look at it."""

_USERS_NAMES = {
    "allows_none": "allowsNoLabel",
    "exploration": "explorationProbability",
    "falls_back": "fallbackOnEmpty",
    "idle_threshold": "idleThreshold",
    "length_scale_tokens": "matchLengthScaleTokens",
    "length_weight": "matchLengthWeight",
    "max_busy_score": "maxBusyScore",
    "max_penalty_ms": "maxTTFTPenaltyMs",
    "max_requests": "maxConcurrency",
    "prefill_tokens_per_s": "peakPrefillThroughput",
    "threshold_tokens": "queueThresholdTokens",
}
"""What a function calls an argument, to the parameter that it comes from."""

_ROLES = {
    "filter": "filter",
    "scorer": "scorer",
    "picking": "picker",
    "detector": "saturation detector",
    "admitter": "admitter",
    "attribute": "producer",
    "extraction": "extractor",
    "media_items": "producer",
}


def page() -> str:
    """The whole page."""
    parts = [_HEAD, *_overview(), *(_section(name) for name in sorted(PARAMETERS))]
    built_in = ", ".join(f"`{name}`" for name in sorted(BUILT_IN))
    later = [f"| `{name}` | {LATER[name]} |" for name in sorted(LATER)]
    parts += [
        "## Taken, and always in effect\n",
        f"These name what the picker does anyway, whatever their parameters: {built_in}.\n",
        "Parameters that change nothing, of these and of those above, are told in the log.\n",
        "## Not there yet\n",
        "Naming one of these is an error that says so.\n",
        "| type | why |\n| --- | --- |",
        *later,
        "",
        _OWN.format(example=_indented(EXAMPLE), group=ENTRY_POINTS),
    ]
    return "\n".join(parts)


def _overview() -> Iterator[str]:
    weights = {scorer.name: f"weight {scorer.weight:g}" for scorer in DEFAULT.scorers}
    default = {step.name: "yes" for step in DEFAULT.filters} | weights
    yield "| type | is a | | in the default profile |\n| --- | --- | --- | --- |"
    for name in sorted(PARAMETERS):
        what = _first_line(PARAMETERS[name])
        yield f"| [`{name}`](#{name}) | {_role(name)} | {what} | {default.get(name, '')} |"
    yield ""


def _section(name: str) -> str:
    lines = [f"## {name}\n", f"A {_role(name)}. {inspect.getdoc(PARAMETERS[name])}\n"]
    lines += [f"{text}\n" for text in _formulas(_made(name))]
    rows = list(_rows(PARAMETERS[name].model_json_schema(by_alias=True)))
    if rows:
        lines += ["| parameter | value | default |", "| --- | --- | --- |", *rows, ""]
    return "\n".join(lines)


def _made(name: str) -> Plugin:
    return PARAMETERS[name].model_validate(_SAMPLES.get(name, {}))()


def _role(name: str) -> str:
    plugin = _made(name)
    roles = [text for field, text in _ROLES.items() if getattr(plugin, field)]
    return " and ".join(roles) or "profile handler"


def _formulas(plugin: Plugin) -> Iterator[str]:
    for field, role in _ROLES.items():
        function = getattr(plugin, field)
        if inspect.isroutine(function) or isinstance(function, partial):
            yield f"As a {role}: {_in_users_names(_told(function))}"


def _told(function: Callable[..., Any]) -> str:
    """The docstring; of a method that of its class, or of the module of a class of few words."""
    bare = function.func if isinstance(function, partial) else function
    owner = getattr(bare, "__self__", None)
    if owner is None:
        return inspect.getdoc(bare) or ""
    text = inspect.getdoc(type(owner)) or ""
    return text if "\n" in text else inspect.getdoc(inspect.getmodule(type(owner))) or ""


def _in_users_names(text: str) -> str:
    for name, users in _USERS_NAMES.items():
        text = re.sub(rf"\b{name}\b", users, text)
    return text


def _first_line(kind: type[Parameters] | type[LabelSelectorFilter]) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def _rows(schema: Mapping[str, Any], prefix: str = "", root: Any = None) -> Iterator[str]:
    """One row for each parameter, those of nested values below it."""
    root = root if root is not None else schema
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        inner, is_list = _inner(field, root)
        if inner is None:
            default = "required" if name in required else _shown(field.get("default"))
            yield f"| `{prefix}{name}` | {_value(field)} | {default} |"
        else:
            yield from _rows(inner, f"{prefix}{name}{'[]' if is_list else ''}.", root)


def _inner(field: Mapping[str, Any], root: Mapping[str, Any]) -> tuple[Any, bool]:
    """The schema of the objects that a field holds, and whether it is a list of them."""
    items = field.get("items")
    reference = (items if isinstance(items, dict) else field).get("$ref")
    if reference is None:
        return None, False
    return root["$defs"][reference.rpartition("/")[2]], items is not None


def _value(field: Mapping[str, Any]) -> str:
    if "enum" in field or "const" in field:
        return " or ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    kind = str(field.get("type", "object"))
    if kind == "array":
        return f"list of {_value(field.get('items', {}))}"
    bounds = [
        f"{text} {field[key]:g}"
        for key, text in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
        )
        if key in field
    ]
    return " ".join([kind, " and ".join(bounds)]).strip()


def _shown(default: Any) -> str:
    return "" if default in (None, "", [], {}, ()) else f"`{default}`"


def _indented(text: str) -> str:
    return "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines())


if __name__ == "__main__":
    sys.stdout.write(page())
