"""A cache in Redis, which several servers share. Without Redis it is an empty one: slower answers, no errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar, cast

import structlog

from firebox.storage.log_throttle import Quiet
from firebox.storage.redis_client import PREFIX

if TYPE_CHECKING:
    from redis.asyncio import Redis

WARNING_EVERY_S = 60.0
DELETIONS_KEPT = 10_000
VALUE_BYTES = 8 << 20
"""A larger value is not kept: it would hold up everybody else on its way."""

T = TypeVar("T")

_log = structlog.get_logger("firebox.storage")


class RedisCache:
    """Keeps values in Redis. What could not be deleted there is remembered here, and never given out by this server again.

    clock: seconds, never backwards.
    """

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis
        self._quiet = Quiet(WARNING_EVERY_S, clock)
        self._undeleted: dict[str, None] = {}

    async def get(self, key: str) -> bytes | None:
        """Give what is kept under a key; None also when Redis does not answer."""
        if self._undeleted and not await self._delete_the_rest():
            return None

        async def ask() -> bytes | None:
            return cast("bytes | None", await self._redis.get(_name(key)))

        return await self._try(ask, None)

    async def set(self, key: str, value: bytes, ttl_s: int) -> None:
        """Keep a value for a while, if Redis answers."""
        if ttl_s <= 0 or len(value) > VALUE_BYTES or (self._undeleted and not await self._delete_the_rest()):
            return

        async def ask() -> None:
            await self._redis.set(_name(key), value, ex=ttl_s)

        await self._try(ask, None)

    async def delete(self, key: str) -> None:
        """Forget a key: now, or as soon as Redis answers again."""
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
        """Ask Redis; on any failure of it write a line at most once a minute, and go on without."""
        from redis.exceptions import RedisError

        try:
            return await ask()
        except (RedisError, OSError, asyncio.IncompleteReadError) as error:
            if self._quiet.due():
                _log.warning("the cache does not answer", part="Redis", error=type(error).__name__, effect="slower answers")
            return otherwise


def _name(key: str) -> bytes:
    return f"{PREFIX}cache:{key}".encode("utf-8", "surrogatepass")
