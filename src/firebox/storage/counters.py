"""Usage counters per client, shared by all workers and servers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

Clock = Callable[[], float]
"""Returns seconds since 1970. The clocks of servers that share counters must agree to about a second."""

KEY_CHARACTERS = 200


class Counters(Protocol):
    """Sums and leases per subject ("user 7", "address 127.0.0.1"). Every call may raise PartUnavailable."""

    async def add(self, subject: str, name: str, *, amount: int, window_s: int) -> int:
        """Add to a subject's usage in the current window of `window_s` seconds. Return the new sum."""
        ...

    async def total(self, subject: str, name: str, *, window_s: int) -> int:
        """Return a subject's usage in the current window."""
        ...

    async def lease(self, subject: str, lease_id: str, *, allowed: int, ttl_s: int) -> bool:
        """Take one of `allowed` leases, or renew it, for `ttl_s` unless it is released. Return False when all are taken."""
        ...

    async def release(self, subject: str, lease_id: str) -> None:
        """Release a lease; one that has expired is ignored."""
        ...

    async def forget(self, *, before_s: float, at_most: int) -> int:
        """Delete usage in windows that ended before `before_s`, and expired leases. Return how many rows were deleted."""
        ...


def window_end(now_s: float, window_s: int) -> int:
    """Return the end of the window that contains `now_s`. Windows are aligned to 1970, so a day is a UTC day."""
    return (int(now_s) // window_s + 1) * window_s


def key_text(text: str) -> str:
    """Return a key for a subject or lease id that can be stored. Different texts have different keys."""
    if len(text) <= KEY_CHARACTERS and text.isascii() and text.isprintable():
        return text
    return "sha256 " + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
