"""What is kept for a while to be found quicker: in this process, or in Redis for several servers."""

from __future__ import annotations

from typing import Protocol


class Cache(Protocol):
    """Bytes by key, each for a time. A cache that cannot be reached has nothing and keeps nothing: it never raises."""

    async def get(self, key: str) -> bytes | None: ...

    async def set(self, key: str, value: bytes, ttl_s: int) -> None: ...

    async def delete(self, key: str) -> None: ...
