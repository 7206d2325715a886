"""Cache for values with a time to live: in this process, or in Redis for several servers."""

from __future__ import annotations

from typing import Protocol


class Cache(Protocol):
    """Bytes by key, each with a time to live. An unavailable cache is an empty one: it never raises."""

    async def get(self, key: str) -> bytes | None: ...

    async def set(self, key: str, value: bytes, ttl_s: int) -> None: ...

    async def delete(self, key: str) -> None: ...
