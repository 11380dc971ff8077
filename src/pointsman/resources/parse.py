"""Documents to objects: each object, or all that is wrong with it, in the user's own terms.

Nothing that stands in a file raises; it becomes a `Problem`. A field that no CRD knows is a
warning and the object is made without it, unless the caller is strict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from pointsman.resources import kinds
from pointsman.resources.base import DEFAULT_NAMESPACE, Ref, Resource
from pointsman.resources.core import ConfigMap
from pointsman.resources.documents import Document, Mark, Part, read, read_part, split
from pointsman.resources.envoy_gateway import CONFIG_KEY, EnvoyGatewayConfig
from pointsman.resources.explain import MAX_FAULTS, Fault, Faults, faults
from pointsman.resources.problems import Problem, field_text, shown


class Origin(NamedTuple):
    """Where an object is written down."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Parsed:
    """What one document came to."""

    origin: Origin
    ref: Ref | None
    """The object meant; None when not even that can be told."""
    resource: Resource | None
    """None when there is an error, or the kind is unknown."""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """The objects of a text, and what makes reading its next version cheap."""

    parsed: tuple[Parsed, ...] = ()
    parts: dict[str, tuple[int, tuple[Parsed, ...]]] = field(default_factory=dict)
    """By the text of a part: the line it started on, and what it came to."""


def parse_text(text: str, file: str, *, strict: bool = False) -> tuple[Parsed, ...]:
    """Every object of a text, lists unpacked; `file` is the name that problems bear.

    With `strict`, unknown fields are errors.
    """
    return parse_again(text, file, Reading(), strict=strict).parsed


def parse_again(text: str, file: str, before: Reading, *, strict: bool = False) -> Reading:
    """The same for a text of which `before` is an earlier version: only what differs is parsed."""
    found, problems = split(text, file)
    parts: dict[str, tuple[int, tuple[Parsed, ...]]] = {}
    parsed = [Parsed(Origin(file, problem.line), None, None, (problem,)) for problem in problems]
    for part in found:
        known = before.parts.get(part.text)
        if known is not None:
            items = _moved(*known, part.first_line)
        else:
            items = tuple(_parts_objects(part, file, strict))
        parts[part.text] = part.first_line, items
        parsed += items
    return Reading(tuple(parsed), parts)


def _parts_objects(part: Part, file: str, strict: bool) -> Iterator[Parsed]:
    documents, problems = read_part(part, file)
    for document in documents:
        yield from _objects(document, strict)
    for problem in problems:
        yield Parsed(Origin(file, problem.line), None, None, (problem,))


def _moved(old_line: int, items: tuple[Parsed, ...], new_line: int) -> tuple[Parsed, ...]:
    by = new_line - old_line
    if by == 0:
        return items
    return tuple(
        replace(
            item,
            origin=item.origin._replace(line=item.origin.line + by),
            problems=tuple(replace(problem, line=problem.line + by) for problem in item.problems),
        )
        for item in items
    )


def parse_object(data: Any, file: str = "object") -> Parsed:
    """One object from plain data (an API server's answer, say), without lines."""
    return _object(Document(file, data, Mark(0)), strict=False)


def embedded_config(config_map: ConfigMap) -> tuple[EnvoyGatewayConfig | None, list[Problem]]:
    """The EnvoyGateway configuration inside a ConfigMap, None when there is none to be read.

    Problems bear the name of the ConfigMap and its key, with lines counted within the text.
    """
    text = config_map.data.get(CONFIG_KEY)
    if text is None:
        return None, []
    file = f"{config_map.ref} {CONFIG_KEY}"
    documents, problems = read(text, file)
    if problems or not documents:
        return None, problems
    found = faults(EnvoyGatewayConfig, documents[0].data)
    if found.value is not None:
        return found.value, []
    return None, [_problem(documents[0], fault, "") for fault in found.errors]


def parse_document(document: Document) -> Parsed:
    """The object of a document that is no list (see `unpacked`)."""
    return _object(document, strict=False)


def unpacked(document: Document) -> Iterator[Document]:
    """Each item of a list as a document of its own; itself where it is no list."""
    data = document.data
    if not (isinstance(data, dict) and is_list(data)):
        yield document
        return
    items_mark = document.mark.parts.get("items", document.mark)
    for position, item in enumerate(data["items"]):
        mark = items_mark.parts.get(position, items_mark)
        inner = {**_of_list(data), **item} if isinstance(item, dict) else item
        yield Document(document.file, inner, mark)


def _objects(document: Document, strict: bool) -> Iterator[Parsed]:
    return (_object(item, strict) for item in unpacked(document))


def is_list(data: dict[str, Any]) -> bool:
    """Whether it stands for several objects: a `List`, or one of a kind's own."""
    kind = data.get("kind")
    return isinstance(kind, str) and kind.endswith("List") and isinstance(data.get("items"), list)


def _of_list(data: dict[str, Any]) -> dict[str, Any]:
    # The items of a `GatewayList` need not repeat their kind; those of a plain `List` do.
    if data["kind"] == "List":
        return {}
    return {"apiVersion": data.get("apiVersion"), "kind": data["kind"].removesuffix("List")}


def _object(document: Document, strict: bool) -> Parsed:
    origin = Origin(document.file, document.mark.line)
    data = document.data
    if not isinstance(data, dict):
        fault = Fault((), f"must be a Kubernetes object, is {shown(data)}")
        return Parsed(origin, None, None, (_problem(document, fault, ""),))
    missing = [
        Fault((key,), "is required" if data.get(key) is None else "must be a string")
        for key in ("apiVersion", "kind")
        if not isinstance(data.get(key), str)
    ]
    if missing:
        return Parsed(origin, None, None, tuple(_problem(document, f, "") for f in missing))
    group, _, version = data["apiVersion"].rpartition("/")
    cls = kinds.lookup(group, data["kind"])
    if cls is None:
        problem = _unknown_kind(document, group, data["kind"])
        return Parsed(origin, _ref_of(group, data["kind"], True, data), None, (problem,))
    ref = _ref_of(group, data["kind"], cls.KIND.namespaced, data)
    if version not in kinds.versions(cls):
        known = " or ".join(f"{group}/{v}" if group else v for v in kinds.versions(cls))
        fault = Fault(("apiVersion",), f"must be {known}, is {shown(data['apiVersion'])}")
        return Parsed(origin, ref, None, (_problem(document, fault, _subject(ref, "")),))
    return _validated(document, origin, cls, ref, strict)


def _validated(
    document: Document, origin: Origin, cls: type[Resource], ref: Ref | None, strict: bool
) -> Parsed:
    found: Faults[Any] = faults(cls, document.data)
    subject = _subject(ref, document.data["kind"])
    warnings = [_warning(document, fault, subject) for fault in found.unknown]
    if strict:
        warnings = [problem.as_error() for problem in warnings]
    errors = [_problem(document, fault, subject) for fault in found.errors]
    problems = tuple(sorted([*errors, *warnings], key=lambda p: (p.line, p.field))[:MAX_FAULTS])
    if found.value is None or any(problem.is_error for problem in problems):
        return Parsed(origin, ref, None, problems)
    resource: Resource = found.value
    wanted = (resource.metadata.namespace or DEFAULT_NAMESPACE) if cls.KIND.namespaced else ""
    if resource.metadata.namespace != wanted:
        resource = resource.with_metadata(namespace=wanted)
    if resource.api_version != cls.KIND.api_version:
        resource = resource.model_copy(update={"api_version": cls.KIND.api_version})
    return Parsed(origin, resource.ref, resource, problems)


def _ref_of(group: str, kind: str, namespaced: bool, data: dict[str, Any]) -> Ref | None:
    metadata = data.get("metadata")
    if not isinstance(metadata, dict):
        return None
    name, namespace = metadata.get("name"), metadata.get("namespace") or DEFAULT_NAMESPACE
    if not isinstance(name, str) or not isinstance(namespace, str):
        return None
    return Ref(group, kind, namespace if namespaced else "", name)


def _subject(ref: Ref | None, kind: str) -> str:
    # A broken object may have any text for its name; a message stays on its line.
    text = str(ref) if ref is not None else kind
    return text if text.isprintable() else shown(text)


def _unknown_kind(document: Document, group: str, kind: str) -> Problem:
    near = [name for name in kinds.names_like(kind) if name != kind]
    groups = [cls.KIND.api_version for cls in kinds.ALL if cls.KIND.kind == kind]
    hint = ""
    if groups:
        hint = f", did you mean {' or '.join(groups)}?"
    elif near:
        hint = f", did you mean {' or '.join(near)}?"
    where = f"in group {shown(group)}" if group else "in the core group"
    message = f"unknown kind {shown(kind)} {where}{hint}; the object is left out"
    problem = _problem(document, Fault(("kind",), message), "")
    return replace(problem, severity="warning")


def _problem(document: Document, fault: Fault, subject: str) -> Problem:
    line = document.mark.line_of(fault.where)
    text = field_text(fault.where)
    return Problem("error", document.file, line, text, fault.message, subject)


def _warning(document: Document, fault: Fault, subject: str) -> Problem:
    return replace(_problem(document, fault, subject), severity="warning")
