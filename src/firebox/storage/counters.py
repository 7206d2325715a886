"""How much each client has used: counted where every worker and every server sees it."""

from __future__ import annotations

from typing import Protocol


class Counters(Protocol):
    """Sums and leases by subject ("user 7", "address 127.0.0.1"). Raises, each: PartUnavailable."""

    async def add(self, subject: str, name: str, amount: int, window_s: int) -> int:
        """Add to what a subject has used in the present window of `window_s` seconds; return the sum, this included."""
        ...

    async def total(self, subject: str, name: str, window_s: int) -> int:
        """Say what a subject has used in the present window."""
        ...

    async def lease(self, subject: str, lease_id: str, allowed: int, ttl_s: int) -> bool:
        """Take one of `allowed` places; False when all are taken. A place that nobody gives back is free after `ttl_s`."""
        ...

    async def release(self, subject: str, lease_id: str) -> None:
        """Give a place back."""
        ...
