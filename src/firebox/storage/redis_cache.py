"""Cache in Redis, shared by several servers. Without Redis it is empty: slower responses, no errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar, cast

import structlog

from firebox.storage.log_throttle import LogThrottle
from firebox.storage.redis_client import PREFIX

if TYPE_CHECKING:
    from redis.asyncio import Redis

WARNING_EVERY_S = 60.0
DELETIONS_KEPT = 10_000
VALUE_BYTES = 8 << 20
"""Larger values are not cached: they would delay other requests to Redis."""

T = TypeVar("T")

_log = structlog.get_logger("firebox.storage")


class RedisCache:
    """Values in Redis. Keys that could not be deleted there are remembered, and never returned by this server again.

    clock: monotonic, in seconds.
    """

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis
        self._throttle = LogThrottle(WARNING_EVERY_S, clock)
        self._undeleted: dict[str, None] = {}

    async def get(self, key: str) -> bytes | None:
        """Return the value of a key; None also when Redis is unavailable."""
        if self._undeleted and not await self._delete_the_rest():
            return None

        async def ask() -> bytes | None:
            return cast("bytes | None", await self._redis.get(_name(key)))

        return await self._try(ask, None)

    async def set(self, key: str, value: bytes, ttl_s: int) -> None:
        """Store a value for a while, if Redis is available."""
        if ttl_s <= 0 or len(value) > VALUE_BYTES or (self._undeleted and not await self._delete_the_rest()):
            return

        async def ask() -> None:
            await self._redis.set(_name(key), value, ex=ttl_s)

        await self._try(ask, None)

    async def delete(self, key: str) -> None:
        """Delete a key: now, or once Redis is available again."""
        if len(self._undeleted) < DELETIONS_KEPT:
            self._undeleted[key] = None
        await self._delete_the_rest()

    async def _delete_the_rest(self) -> bool:
        keys = list(self._undeleted)

        async def ask() -> bool:
            await self._redis.delete(*map(_name, keys))
            return True

        if not await self._try(ask, False):
            return False
        for key in keys:
            self._undeleted.pop(key, None)
        return True

    async def _try(self, ask: Callable[[], Awaitable[T]], otherwise: T) -> T:
        """Send a request to Redis. On failure log at most once a minute, and return `otherwise`."""
        from redis.exceptions import RedisError

        try:
            return await ask()
        except (RedisError, OSError, asyncio.IncompleteReadError) as error:
            if self._throttle.due():
                _log.warning("cache unavailable", part="Redis", error=type(error).__name__, effect="slower responses")
            return otherwise


def _name(key: str) -> bytes:
    return f"{PREFIX}cache:{key}".encode("utf-8", "surrogatepass")
