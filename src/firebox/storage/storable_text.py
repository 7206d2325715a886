"""Which text can be kept: no U+0000 and no lone surrogates, since PostgreSQL refuses them. The same holds on SQLite."""

from __future__ import annotations

import re

from firebox.domain.errors import InvalidRequest

LARGEST_INTEGER = 2**63 - 1
NAME_CHARACTERS = 255
"""A name is in an index, and PostgreSQL's entries hold 2,704 bytes."""
REPLACEMENT = "\ufffd"

_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")


def can_be_kept(text: str) -> bool:
    return _UNKEEPABLE.search(text) is None


def check_storable(text: str, *, where: str, max_characters: int = 0) -> str:
    """Return the text. max_characters: 0 for no maximum.

    Raises: InvalidRequest, naming `where`, for text that cannot be kept as it is.
    """
    if max_characters and len(text) > max_characters:
        raise InvalidRequest(f"{len(text)} characters; at most {max_characters} are allowed", where=where)
    if not can_be_kept(text):
        raise InvalidRequest("text with a NUL character or half a surrogate pair cannot be kept", where=where)
    return text


def keepable(text: str) -> str:
    """Put U+FFFD for what cannot be kept: for output, in which that already stands for bytes that are no text."""
    return _UNKEEPABLE.sub(REPLACEMENT, text)


def check_number(number: int | None, *, where: str) -> int | None:
    """Return the number. Raises: InvalidRequest, naming `where`, for one below 0 or too large for a database."""
    if number is not None and not 0 <= number <= LARGEST_INTEGER:
        raise InvalidRequest(f"{number} is not a whole number from 0 to {LARGEST_INTEGER}", where=where)
    return number


def can_be_id(number: int) -> bool:
    """Whether a row may have this id: a database refuses larger numbers, and nobody has a smaller one."""
    return 0 < number <= LARGEST_INTEGER
