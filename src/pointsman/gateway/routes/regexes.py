r"""Whether Envoy would take a regular expression, told before it is asked.

Envoy reads RE2, and one expression that it cannot read makes it refuse all routes of a listener. So
each is read here first, by the published grammar of RE2: no backreferences, no lookaround, no
possessive or doubled repetition; `\Q...\E`, `\p{Greek}`, `[[:alpha:]]` and flags in the middle are
allowed. It is an approximation at two ends: of the scripts for `\p` only common ones are known, and
the size of the compiled program (RE2 bounds its memory) is estimated, not too low.

>>> problem("/v[0-9]+/(?:chat|completions)") is None
True
>>> problem("(a)\\1")
'the escape \\1 has no meaning'
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_REPEAT = 1000
"""RE2's bound for one counted repetition, and for the product of nested ones."""
MAX_COST = 40_000
"""Bound of the estimated instructions; RE2's own, from its 8 MiB, is about twice that."""
MAX_DEPTH = 500

_REPEAT = re.compile(r"\{([0-9]{1,9})(,([0-9]{1,9})?)?\}")
_GROUP_NAME = re.compile(r"P?<([A-Za-z0-9_]+)>")
_FLAGS = re.compile(r"([imsU]*)(-[imsU]+)?([:)])")
_POSIX = re.compile(r"\[:\^?([a-z]+):\]")
_POSIX_NAMES = re.compile(
    r"alnum|alpha|ascii|blank|cntrl|digit|graph|lower|print|punct|space|upper|word|xdigit"
)
_PROPERTY = re.compile(r"[pP](?:([A-Z])|\{\^?([A-Za-z_]+)\})")
_PROPERTY_NAMES = re.compile(
    r"Any|C[cfos]?|L[lmotu]?|M[cen]?|N[dlo]?|P[cdefios]?|S[ckmo]?|Z[lps]?|Arabic|Armenian|Bengali|"
    r"Common|Cyrillic|Devanagari|Georgian|Greek|Han|Hangul|Hebrew|Hiragana|Katakana|Latin|Tamil|Thai"
)
_CHARACTER = re.compile(
    r"[aftnrv]|x[0-9a-fA-F]{2}|x\{([0-9a-fA-F]{1,8})\}|0[0-7]{0,2}|[1-7][0-7]{1,2}"
)
_CLASS_LETTERS = frozenset("dDsSwW")
_EMPTY_LETTERS = frozenset("AbBz")
_LAST_CHARACTER = 0xFF
_ESCAPED = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}

_SMALL_COST, _CLASS_COST, _PROPERTY_COST = 2, 20, 80


class _RefusedError(ValueError):
    """The expression cannot be read; the message says why."""


@dataclass(slots=True)
class _Group:
    """An open group: what its parts cost, and the last of them, which a repetition would take."""

    cost: int = _SMALL_COST
    repeats: int = 1
    last_cost: int = 0
    last_repeats: int = 1
    can_repeat: bool = False

    def add(self, cost: int, repeats: int = 1) -> None:
        self.cost += cost
        self.repeats = max(self.repeats, repeats)
        self.last_cost, self.last_repeats, self.can_repeat = cost, repeats, True

    def repeat(self, operator: str, least: int, most: int | None) -> None:
        if not self.can_repeat:
            raise _RefusedError(f"the repetition {operator} has nothing to repeat")
        count = max(1, least if most is None else most)
        product = self.last_repeats * count
        if count > MAX_REPEAT or product > MAX_REPEAT:
            raise _RefusedError(f"the repetition {operator} is over {MAX_REPEAT}")
        self.cost += self.last_cost * count
        self.repeats = max(self.repeats, product)
        self.can_repeat = False


def problem(text: str) -> str | None:
    """Why Envoy would refuse `text` as a regular expression; None where it would not."""
    if not text:
        return "an empty regular expression"
    try:
        # Envoy's RE2 reads bytes, not characters.
        cost = _Reader(text.encode().decode("latin-1")).cost()
    except UnicodeEncodeError:
        return "a regular expression that is no valid text"
    except _RefusedError as error:
        return str(error).encode("latin-1").decode(errors="replace")
    return None if cost <= MAX_COST else "the regular expression is too large"


class _Reader:
    """One walk over an expression, with a stack of its open groups."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._groups = [_Group()]
        self._names: set[str] = set()

    def cost(self) -> int:
        """The estimated size of the whole."""
        while self._at < len(self._text):
            self._step()
            if self._groups[0].cost > MAX_COST:
                break
        if len(self._groups) > 1 and self._at >= len(self._text):
            raise _RefusedError("a ( is not closed")
        return sum(group.cost for group in self._groups)

    def _step(self) -> None:
        group = self._groups[-1]
        character = self._text[self._at]
        repeat = _REPEAT.match(self._text, self._at) if character == "{" else None
        if character == "(":
            self._open()
        elif character == ")":
            self._close()
        elif character == "|":
            self._at += 1
            group.can_repeat = False
        elif character in "*+?":
            self._at += 1
            group.repeat(character, 0, 1)
            self._skip_lazy()
        elif repeat is not None:
            self._counted(repeat)
        elif character == "[":
            group.add(self._class())
        elif character == "\\":
            self._escape()
        else:
            self._at += 1
            group.add(_CLASS_COST if character == "." else _SMALL_COST)

    def _skip_lazy(self) -> None:
        if self._text.startswith("?", self._at):
            self._at += 1

    def _counted(self, found: re.Match[str]) -> None:
        least = int(found[1])
        most = least if found[2] is None else int(found[3]) if found[3] is not None else None
        if most is not None and most < least:
            raise _RefusedError(f"the repetition {found[0]} ends before it begins")
        self._at = found.end()
        self._groups[-1].repeat(found[0], least, most)
        self._skip_lazy()

    def _open(self) -> None:
        self._at += 1
        if self._text.startswith("?", self._at):
            self._at += 1
            named = _GROUP_NAME.match(self._text, self._at)
            flags = _FLAGS.match(self._text, self._at)
            if named is not None:
                if named[1] in self._names:
                    raise _RefusedError(f"two groups are named {named[1]}")
                self._names.add(named[1])
                self._at = named.end()
            elif flags is not None:
                self._at = flags.end()
                if flags[3] == ")":
                    self._groups[-1].can_repeat = False
                    return
            else:
                operator = self._text[self._at - 2 : self._at + 2]
                raise _RefusedError(f"the group {operator} is not known to RE2")
        self._groups.append(_Group())
        if len(self._groups) > MAX_DEPTH:
            raise _RefusedError(f"groups are nested more than {MAX_DEPTH} deep")

    def _close(self) -> None:
        self._at += 1
        if len(self._groups) == 1:
            raise _RefusedError("a ) closes nothing")
        inner = self._groups.pop()
        self._groups[-1].add(inner.cost, inner.repeats)

    def _escape(self) -> None:
        group = self._groups[-1]
        letter = self._text[self._at + 1 : self._at + 2]
        if letter == "Q":
            end = self._text.find("\\E", self._at + 2)
            stop = len(self._text) if end < 0 else end
            for _ in range(stop - self._at - 2):
                group.add(_SMALL_COST)
            self._at = len(self._text) if end < 0 else end + 2
        elif letter in _EMPTY_LETTERS and letter:
            self._at += 2
            group.add(1)
        elif letter == "C":
            self._at += 2
            group.add(_SMALL_COST)
        else:
            cost = self._class_escape()
            if cost is None:
                self._character()
                cost = _SMALL_COST
            group.add(cost)

    def _class_escape(self) -> int | None:
        r"""Passes `\d`, `\pL` and the like and tells their cost; None where another escape is."""
        if self._text[self._at + 1 : self._at + 2] in _CLASS_LETTERS:
            self._at += 2
            return _CLASS_COST
        found = _PROPERTY.match(self._text, self._at + 1)
        if found is None:
            return None
        if not _PROPERTY_NAMES.fullmatch(found[1] or found[2]):
            raise _RefusedError(f"the character class \\{found[0]} is not known")
        self._at = found.end()
        return _PROPERTY_COST

    def _character(self) -> int:
        """Passes one character, escaped or plain, and tells its number."""
        text, start = self._text, self._at
        if text[start] != "\\":
            self._at += 1
            return ord(text[start])
        letter = text[start + 1 : start + 2]
        if letter.isascii() and letter.isprintable() and letter and not letter.isalnum():
            self._at += 2
            return ord(letter)
        found = _CHARACTER.match(text, start + 1)
        if found is None:
            shown = f"\\{letter}" if letter else "at the end"
            raise _RefusedError(f"the escape {shown} has no meaning")
        self._at = found.end()
        value = _number(found)
        if value > _LAST_CHARACTER:
            raise _RefusedError(f"\\{found[0]} is no character")
        return value

    def _class(self) -> int:
        self._at += 1
        if self._text.startswith("^", self._at):
            self._at += 1
        cost, is_first = _CLASS_COST, True
        while is_first or not self._text.startswith("]", self._at):
            if self._at >= len(self._text):
                raise _RefusedError("a [ is not closed")
            cost += self._class_item()
            is_first = False
        self._at += 1
        return cost

    def _class_item(self) -> int:
        posix = _POSIX.match(self._text, self._at)
        if posix is not None:
            if not _POSIX_NAMES.fullmatch(posix[1]):
                raise _RefusedError(f"the character class {posix[0]} is not known")
            self._at = posix.end()
            return _CLASS_COST
        if self._text[self._at] == "\\":
            found = self._class_escape()
            if found is not None:
                return found
        low = self._character()
        following = self._text[self._at : self._at + 2]
        if following[:1] != "-" or following in ("-", "-]"):
            return _SMALL_COST
        self._at += 1
        if self._character() < low:
            raise _RefusedError("a range in [] ends before it begins")
        return _CLASS_COST


def _number(found: re.Match[str]) -> int:
    text = found[0]
    if text in _ESCAPED:
        return _ESCAPED[text]
    if text.startswith("x"):
        return int(found[1] or text[1:], 16)
    return int(text, 8)
