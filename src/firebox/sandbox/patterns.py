"""File name patterns as `fnmatch` has them (`*`, `?`, `[...]`), matched without backtracking.

`*` matches any text, folders included. What lies between two `*` is looked for once, from left to right: the first place where
it fits is as good as any later one, so a name is gone through once for each pattern, whatever the two look like.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate

_BRACKET = re.compile(r"\[!?+\]?+[^\]]*+\]")


class _Piece:
    """A part of a pattern between two `*`. signs: what each of its characters may be, as fnmatch writes it."""

    def __init__(self, signs: Sequence[str]) -> None:
        self.length = len(signs)
        self._text = "".join(signs) if not any(sign == "?" or len(sign) > 1 for sign in signs) else None
        # Without the end anchor of fnmatch; nothing in it repeats.
        self._expression = re.compile("".join(translate(sign)[:-2] for sign in signs)) if self._text is None else None

    def fits(self, name: str, start: int) -> bool:
        """Check whether the piece matches at a position."""
        if self._expression is not None:
            return self._expression.match(name, start) is not None
        return name.startswith(self._text or "", start)

    def find(self, name: str, start: int, end: int) -> int:
        """Return the first position in a part of the name where the piece matches, or -1."""
        if self._expression is not None:
            found = self._expression.search(name, start, end)
            return found.start() if found is not None else -1
        return name.find(self._text or "", start, end)


class Pattern:
    """One pattern."""

    def __init__(self, pattern: str) -> None:
        pieces: list[list[str]] = [[]]
        position = 0
        while position < len(pattern):
            bracket = _BRACKET.match(pattern, position)
            sign = bracket[0] if bracket is not None else pattern[position]
            position += len(sign)
            if sign == "*":
                pieces.append([])
            else:
                pieces[-1].append(sign)
        self._first = _Piece(pieces[0])
        self._middle = [_Piece(piece) for piece in pieces[1:-1] if piece]
        self._last = _Piece(pieces[-1]) if len(pieces) > 1 else None

    def matches(self, name: str) -> bool:
        """Check whether the whole name matches."""
        start = self._first.length
        if self._last is None:
            return len(name) == start and self._first.fits(name, 0)
        end = len(name) - self._last.length
        if end < start or not self._first.fits(name, 0) or not self._last.fits(name, end):
            return False
        for piece in self._middle:
            found = piece.find(name, start, end)
            if found < 0:
                return False
            start = found + piece.length
        return True
