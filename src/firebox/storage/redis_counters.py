"""Counters in Redis, shared by several servers. Each call is one atomic script; keys expire."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from firebox.storage.counters import Clock, Counters, key_text, window_end
from firebox.storage.log_throttle import LogThrottle
from firebox.storage.redis_client import PREFIX, ask

if TYPE_CHECKING:
    from redis.asyncio import Redis

WARNING_EVERY_S = 10.0
SLACK_S = 60
"""How much longer than its window a count is kept, to allow for clock skew."""

# Expiry is always relative: an absolute time would differ on a Redis host whose clock is off.

_ADD = """
local sum = redis.call('INCRBY', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return sum
"""

# A sorted set per subject: members are leases, scores their expiry in milliseconds since 1970.
_LEASE = """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2])
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[4]) then
    return 0
end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', tonumber(last[2]) - tonumber(ARGV[2]) + tonumber(ARGV[5])))
return 1
"""


class RedisCounters(Counters):
    """Counters in Redis. clock: seconds since 1970."""

    def __init__(self, redis: Redis, clock: Clock = time.time) -> None:
        self._redis = redis
        self._clock = clock
        self._throttle = LogThrottle(WARNING_EVERY_S)
        self._add: Any = redis.register_script(_ADD)
        self._lease: Any = redis.register_script(_LEASE)

    async def add(self, subject: str, name: str, *, amount: int, window_s: int) -> int:
        now_s = self._clock()
        end_s = window_end(now_s, window_s)
        key = _usage_key(subject, name, window_s, end_s)
        return int(await self._ask(self._add(keys=[key], args=[amount, math.ceil(end_s - now_s) + SLACK_S])))

    async def total(self, subject: str, name: str, *, window_s: int) -> int:
        key = _usage_key(subject, name, window_s, window_end(self._clock(), window_s))
        return int(await self._ask(self._redis.get(key)) or 0)

    async def lease(self, subject: str, lease_id: str, *, allowed: int, ttl_s: int) -> bool:
        now_ms = int(self._clock() * 1000)
        arguments = [key_text(lease_id), now_ms, now_ms + ttl_s * 1000, allowed, SLACK_S * 1000]
        return bool(await self._ask(self._lease(keys=[_lease_key(subject)], args=arguments)))

    async def release(self, subject: str, lease_id: str) -> None:
        await self._ask(self._redis.zrem(_lease_key(subject), key_text(lease_id)))

    async def forget(self, *, before_s: float, at_most: int) -> int:
        """Do nothing: keys expire soon after their windows."""
        del before_s, at_most
        return 0

    async def _ask(self, answer: Any) -> Any:
        return await ask(answer, "counters", self._throttle)


def _usage_key(subject: str, name: str, window_s: int, end_s: int) -> str:
    return f"{PREFIX}usage:{name}:{window_s}:{end_s}:{key_text(subject)}"


def _lease_key(subject: str) -> str:
    return f"{PREFIX}leases:{key_text(subject)}"
