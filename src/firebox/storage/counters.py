"""How much each client has used: counted where every worker and every server sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

Clock = Callable[[], float]
"""Gives seconds since 1970. Servers that count together need clocks that agree to a second or so."""


KEY_CHARACTERS = 200


class Counters(Protocol):
    """Sums and leases by subject ("user 7", "address 127.0.0.1"). Raises, each: PartUnavailable."""

    async def add(self, subject: str, name: str, *, amount: int, window_s: int) -> int:
        """Add to what a subject has used in the present window of `window_s` seconds; return the sum, this included."""
        ...

    async def total(self, subject: str, name: str, *, window_s: int) -> int:
        """Say what a subject has used in the present window."""
        ...

    async def lease(self, subject: str, lease_id: str, *, allowed: int, ttl_s: int) -> bool:
        """Take one of `allowed` places; False when all are taken. A place that nobody gives back is free after `ttl_s`.

        Whoever has the place already keeps it, for `ttl_s` from now on.
        """
        ...

    async def release(self, subject: str, lease_id: str) -> None:
        """Give a place back; one that nobody has any more is no mistake."""
        ...

    async def forget(self, *, before_s: float, at_most: int) -> int:
        """Remove what was used in windows that were over at `before_s`, and places that are free; say how much was removed."""
        ...


def window_end(now_s: float, window_s: int) -> int:
    """Say when the window ends that `now_s` is in: windows follow each other from 1970 on, so a day is a day of UTC."""
    return (int(now_s) // window_s + 1) * window_s


def key_text(text: str) -> str:
    """Make a subject or the name of a place fit to be kept, whatever is in it; two stay two."""
    if len(text) <= KEY_CHARACTERS and text.isascii() and text.isprintable():
        return text
    return "sha256 " + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
