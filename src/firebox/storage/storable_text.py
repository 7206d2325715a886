"""Checks of text that is stored. PostgreSQL rejects U+0000 and lone surrogates; the same rule holds for SQLite."""

from __future__ import annotations

import re

from firebox.domain.errors import InvalidRequest

LARGEST_INTEGER = 2**63 - 1
NAME_CHARACTERS = 255
"""Names are indexed, and PostgreSQL limits an index entry to 2,704 bytes."""
REPLACEMENT = "\ufffd"

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def is_storable(text: str) -> bool:
    return _UNSTORABLE.search(text) is None


def check_storable(text: str, *, where: str, max_characters: int = 0) -> str:
    """Return the text. max_characters: 0 for no maximum.

    Raises: InvalidRequest, naming `where`, for text that cannot be stored unchanged.
    """
    if max_characters and len(text) > max_characters:
        raise InvalidRequest(f"{len(text)} characters; at most {max_characters} are allowed", where=where)
    if not is_storable(text):
        raise InvalidRequest("text with a NUL character or a lone surrogate cannot be stored", where=where)
    return text


def replace_unstorable(text: str) -> str:
    """Replace unstorable characters by U+FFFD: for output, where that already stands for undecodable bytes."""
    return _UNSTORABLE.sub(REPLACEMENT, text)


def check_storable_number(number: int | None, *, where: str) -> int | None:
    """Return the number. Raises: InvalidRequest, naming `where`, if it is negative or too large for a database."""
    if number is not None and not 0 <= number <= LARGEST_INTEGER:
        raise InvalidRequest(f"{number} is not a whole number from 0 to {LARGEST_INTEGER}", where=where)
    return number


def is_possible_key(key: int | str) -> bool:
    """Return whether a row may have this id or name: ids are positive, and databases reject larger numbers."""
    return is_storable(key) if isinstance(key, str) else 0 < key <= LARGEST_INTEGER
