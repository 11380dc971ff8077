"""What each file says, and which object counts when files disagree. No clock, no disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pointsman.resources.base import Ref
from pointsman.resources.parse import Parsed, Reading, parse_again
from pointsman.resources.problems import Problem


@dataclass(frozen=True, slots=True)
class Page:
    """One file as it was last read: its good objects (old ones too) and its problems."""

    objects: dict[Ref, Parsed]
    problems: tuple[Problem, ...]
    reading: Reading = field(default_factory=Reading)
    """For reading the file again."""

    @property
    def is_sound(self) -> bool:
        """Nothing in it is an error."""
        return not any(problem.is_error for problem in self.problems)


EMPTY = Page({}, ())


def page(reading: Reading, before: Page) -> Page:
    """What a file says now. What cannot be read now stands as it was said `before`."""
    objects: dict[Ref, Parsed] = {}
    problems: list[Problem] = []
    broken: set[Ref] = set()
    is_in_doubt = False
    for item in reading.parsed:
        problems += item.problems
        if item.resource is not None and item.ref is not None:
            first = objects.get(item.ref)
            if first is None:
                objects[item.ref] = item
            else:
                problems.append(_twice(first, item))
        elif any(problem.is_error for problem in item.problems):
            if item.ref is not None:
                broken.add(item.ref)
            else:
                is_in_doubt = True
    for ref, item in before.objects.items():
        if ref not in objects and (is_in_doubt or ref in broken):
            objects[ref] = item
    return Page(objects, tuple(problems), reading)


def page_of(text: Callable[[], str], name: str, before: Page, *, strict: bool = False) -> Page:
    """What a file says whose `text` may fail to be read; then `before` stands, with a problem."""
    try:
        return page(parse_again(text(), name, before.reading, strict=strict), before)
    except FileNotFoundError:
        return EMPTY
    except OSError as error:
        message = f"cannot be read: {error.strerror or error}"
    except ValueError as error:
        message = str(error)
    return Page(before.objects, (Problem("error", name, 0, "", message),), before.reading)


def loses(before: Page, after: Page) -> bool:
    """Whether objects go, or errors come: then a half-written file is to be suspected."""
    return not after.is_sound or any(ref not in after.objects for ref in before.objects)


def winners(
    pages: Iterable[Page], vanished: Iterable[Page] = ()
) -> tuple[dict[Ref, Parsed], list[Problem]]:
    """For each object the first page that has it; the others are problems, with both places.

    Pages of files that have just `vanished` fill in for what no other page has: a file that was
    renamed is for a moment not where it was, and no problem.
    """
    chosen: dict[Ref, Parsed] = {}
    problems: list[Problem] = []
    for item in pages:
        problems += item.problems
        for ref, parsed in item.objects.items():
            first = chosen.setdefault(ref, parsed)
            if first is not parsed:
                problems.append(_twice(first, parsed))
    for item in vanished:
        for ref, parsed in item.objects.items():
            chosen.setdefault(ref, parsed)
    return chosen, problems


def _twice(first: Parsed, second: Parsed) -> Problem:
    message = f"{second.ref} stands in {first.origin} already, which counts; this one is left out"
    return Problem("error", second.origin.file, second.origin.line, "", message, str(second.ref))
