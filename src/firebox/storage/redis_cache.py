"""Cache in Redis, shared by several servers. Without Redis it is empty: slower responses, no errors."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from firebox.domain.errors import PartUnavailable
from firebox.storage.cache import Cache
from firebox.storage.log_throttle import LogThrottle
from firebox.storage.redis_client import PREFIX, ask

if TYPE_CHECKING:
    from redis.asyncio import Redis

WARNING_EVERY_S = 60.0
DELETIONS_KEPT = 10_000
VALUE_BYTES = 8 << 20
"""Larger values are not cached: they would delay other requests to Redis."""


class RedisCache(Cache):
    """Values in Redis. Keys that could not be deleted there are remembered, and never returned by this server again.

    clock: monotonic, in seconds.
    """

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis
        self._throttle = LogThrottle(WARNING_EVERY_S, clock)
        self._undeleted: dict[str, None] = {}

    async def get(self, key: str) -> bytes | None:
        if self._undeleted and not await self._delete_the_rest():
            return None
        found: bytes | None = await self._ask(self._redis.get(_name(key)))
        return found

    async def set(self, key: str, value: bytes, ttl_s: int) -> None:
        if ttl_s <= 0 or len(value) > VALUE_BYTES or (self._undeleted and not await self._delete_the_rest()):
            return
        await self._ask(self._redis.set(_name(key), value, ex=ttl_s))

    async def delete(self, key: str) -> None:
        """Delete a key: now, or once Redis is available again."""
        if len(self._undeleted) < DELETIONS_KEPT:
            self._undeleted[key] = None
        await self._delete_the_rest()

    async def _delete_the_rest(self) -> bool:
        keys = list(self._undeleted)
        if await self._ask(self._redis.delete(*map(_name, keys))) is None:
            return False
        for key in keys:
            self._undeleted.pop(key, None)
        return True

    async def _ask(self, answer: Any) -> Any:
        """Return the answer of Redis, or None if it is unavailable."""
        try:
            return await ask(answer, "cache", self._throttle, effect="slower responses")
        except PartUnavailable:
            return None


def _name(key: str) -> bytes:
    return f"{PREFIX}cache:{key}".encode("utf-8", "surrogatepass")
